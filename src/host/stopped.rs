//! Stops a process briefly, and lists the TCP connections that it holds meanwhile.
//!
//! It decides nothing. The process continues when the value is dropped.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use super::process;
use crate::domain::instance::Process;

/// A thread stops when it leaves the kernel; one that takes longer than this waits for a disk.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(1);

/// A process whose threads are all stopped.
#[derive(Debug)]
pub struct Stopped(Process);

impl Stopped {
    /// Stops it; `None`: it has ended.
    ///
    /// # Errors
    /// It may not be signalled or read, or did not stop within two seconds; it continues then.
    pub async fn stop(process: Process) -> io::Result<Option<Self>> {
        let this = Self(process);
        process::signal_one(process, libc::SIGSTOP)?;
        let all = async {
            loop {
                match all_stopped(process.pid) {
                    Ok(true) => return Ok(Some(())),
                    Ok(false) => {}
                    Err(e) if is_gone(&e) => return Ok(None),
                    Err(e) => return Err(e),
                }
                if !process::is_same(process)? {
                    return Ok(None);
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let stopped = tokio::time::timeout(PATIENCE, all)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(stopped.map(|()| this))
    }

    /// The peers of the TCP connections that it holds.
    ///
    /// # Errors
    /// Its open files or the kernel's table of sockets cannot be read.
    pub fn peers(&self) -> io::Result<HashSet<SocketAddr>> {
        let held = sockets(self.0.pid)?;
        let mut peers = HashSet::new();
        // The kernel returns the table in parts. An entry at the end of a part can be skipped if
        // its neighbour ends meanwhile.
        for _ in 0..2 {
            for (inode, peer) in table(self.0.pid)? {
                if held.contains(&inode) {
                    peers.insert(peer);
                }
            }
        }
        Ok(peers)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It could be signalled before, to stop it, so this cannot fail for lack of permission.
        let _ = process::signal_one(self.0, libc::SIGCONT);
    }
}

fn is_gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH)
}

/// Whether all its threads are stopped.
fn all_stopped(pid: i32) -> io::Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has ended meanwhile is not running.
        match fs::read(thread?.path().join("stat")) {
            Ok(stat) if !matches!(state(&stat), Some(b'T' | b'Z' | b'X')) => return Ok(false),
            Err(e) if !is_gone(&e) => return Err(e),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(true)
}

/// The state in a line of `stat`. The name before it may contain anything.
#[must_use]
pub fn state(stat: &[u8]) -> Option<u8> {
    let name_ends = stat.iter().rposition(|b| *b == b')')?;
    stat.get(name_ends + 2).copied()
}

/// The inodes of its open sockets.
fn sockets(pid: i32) -> io::Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    for file in fs::read_dir(format!("/proc/{pid}/fd"))? {
        inodes.extend(socket_of_link(
            fs::read_link(file?.path())?.as_os_str().as_bytes(),
        ));
    }
    Ok(inodes)
}

/// The inode in the link of an open file, if that is a socket.
#[must_use]
pub fn socket_of_link(link: &[u8]) -> Option<u64> {
    std::str::from_utf8(link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?)
        .ok()?
        .parse()
        .ok()
}

/// The TCP sockets that the process can see: inode and peer.
fn table(pid: i32) -> io::Result<Vec<(u64, SocketAddr)>> {
    let mut all = Vec::new();
    for name in ["tcp", "tcp6"] {
        match fs::read_to_string(format!("/proc/{pid}/net/{name}")) {
            Ok(text) => all.extend(text.lines().filter_map(peer_in_line)),
            // A kernel without IPv6.
            Err(e) if e.kind() == io::ErrorKind::NotFound && name == "tcp6" => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

/// Parses a line of `/proc/net/tcp`, `sl local_address rem_address st tx:rx tr:when retrnsmt uid
/// timeout inode …`: inode and peer. `None`: it listens, or the line is invalid.
#[must_use]
pub fn peer_in_line(text: &str) -> Option<(u64, SocketAddr)> {
    let mut columns = text.split_ascii_whitespace();
    let (ip, port) = columns.nth(2)?.split_once(':')?;
    let listens = columns.next()? == "0A";
    let inode = columns.nth(5).filter(|_| !listens)?.parse().ok()?;
    Some((
        inode,
        SocketAddr::new(address(ip)?, u16::from_str_radix(port, 16).ok()?),
    ))
}

/// Parses words in native byte order that contain the bytes of an address.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        Some(
            u32::from_str_radix(text.get(at..at + 8)?, 16)
                .ok()?
                .to_ne_bytes(),
        )
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (n, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(n * 8)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn reads_a_line() {
        let four = "   0: 0100007F:4E21 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 77 1 0 20";
        assert_eq!(
            peer_in_line(four),
            Some((77, "127.0.0.1:50000".parse().unwrap()))
        );
        let six = four.replace("0100007F:C350", "B80D0120000000000000000001000000:0050");
        assert_eq!(
            peer_in_line(&six),
            Some((77, "[2001:db8::1]:80".parse().unwrap()))
        );
        let mapped = four.replace("0100007F:C350", "0000000000000000FFFF00000100007F:0050");
        assert_eq!(
            peer_in_line(&mapped),
            Some((77, "127.0.0.1:80".parse().unwrap()))
        );
        assert_eq!(
            peer_in_line(&four.replace(" 01 ", " 0A ")),
            None,
            "it listens"
        );
        assert_eq!(
            peer_in_line(
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
            ),
            None
        );
        assert_eq!(
            (state(b"7 (a) R b) T 1 7"), state(b"7 (a")),
            (Some(b'T'), None)
        );
    }

    #[tokio::test]
    async fn what_a_process_holds_is_seen_and_it_goes_on() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (client, waiting) = (connect(), connect());
        let (accepted, _) = listener.accept().unwrap();
        let mut child = Command::new("cat")
            .stdin(OwnedFd::from(accepted))
            .stdout(Stdio::null())
            .stderr(OwnedFd::from(listener))
            .spawn()
            .unwrap();
        let process = process::by_pid(child.id().cast_signed()).unwrap().unwrap();
        let stopped = Stopped::stop(process).await.unwrap().unwrap();
        assert!(all_stopped(process.pid).unwrap());
        // It has the listener as well, but no process has accepted the second connection.
        assert_eq!(
            stopped.peers().unwrap(),
            HashSet::from([client.local_addr().unwrap()])
        );
        drop(stopped);
        drop((client, waiting));
        let ended = async {
            while child.try_wait().unwrap().is_none() {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ended)
            .await
            .unwrap();
        assert!(Stopped::stop(process).await.unwrap().is_none());
    }
}
