//! The cost of processes, as the kernel counts it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::apps::LIMIT;
use crate::support::{Fixture, processes};

/// Memory of these processes in MiB: anonymous pages and shared memory, with shared pages divided
/// among them. Pages of programs and other files are left out, because the kernel can drop them and
/// read them again.
pub fn own_mib(pids: &[i32]) -> f64 {
    pids.iter()
        .map(|pid| {
            let path = format!("/proc/{pid}/smaps_rollup");
            (field(&path, "Pss_Anon:") + field(&path, "Pss_Shmem:")) / 1024.0
        })
        .sum()
}

/// The number after this word in a file of `/proc`; 0 if there is none.
fn field(path: &str, key: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text
        .lines()
        .find_map(|l| l.strip_prefix(key))
        .and_then(|v| v.split_whitespace().next()?.parse().ok());
    value.unwrap_or(0.0)
}

/// A process and its children.
pub fn family(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let children = threads
        .filter_map(|t| fs::read_to_string(t.path().join("children")).ok())
        .collect::<Vec<_>>()
        .join(" ");
    let mut all = vec![pid];
    all.extend(
        children
            .split_whitespace()
            .filter_map(|p| p.parse::<i32>().ok())
            .flat_map(family),
    );
    all
}

/// acc's own processes in this fixture: master and worker.
pub fn servers(fixture: &Fixture) -> Vec<i32> {
    let acc = fixture.acc.display().to_string();
    let found = processes::of(&fixture.dir)
        .into_iter()
        .filter(|p| p.command.starts_with(&acc) && !p.command.contains("demo-app"));
    found.map(|p| p.pid).collect()
}

/// A connection that stays open after its request was answered.
pub fn idle_connection(to: SocketAddr, host: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
        .write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
        .unwrap();
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(b".\n") {
        let n = stream.read(&mut part).unwrap();
        assert!(n > 0, "closed: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&part[..n]);
    }
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "not a 200: {}",
        String::from_utf8_lossy(&answer)
    );
    stream
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_family() {
        let own = std::process::id().cast_signed();
        assert!(own_mib(&[own]) > 0.1);
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let found = family(own);
        let _ = child.kill();
        let _ = child.wait();
        assert!(found.contains(&child.id().cast_signed()), "{found:?}");
    }
}
