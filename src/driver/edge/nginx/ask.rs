//! Checks that nginx answers, as a client would: from its listener through a worker to acc's wake
//! server and back. Resumes processes of nginx that were stopped by a signal.
//!
//! The request names no instance: it wakes none, counts as use of none, and the response is empty.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::render::nginx::{CHECK_HOST, CHECK_PATH};

/// An answer takes a millisecond or two; on an overloaded host, seconds.
const LIMIT: Duration = Duration::from_secs(5);
/// `HTTP/1.1 204`
const STATUS: usize = 12;

/// Sends the request to this address. The error says briefly what is wrong.
pub async fn ask(listen: SocketAddr) -> Result<(), String> {
    match tokio::time::timeout(LIMIT, status(reachable(listen))).await {
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
        Ok(Err(e)) => Err(e.to_string()),
        // What nginx answers if it cannot reach acc.
        Ok(Ok(status @ (502..=504))) => Err(format!(
            "it answers {status}; its workers cannot reach acc's server"
        )),
        Ok(Ok(_)) => Ok(()),
    }
}

async fn status(address: SocketAddr) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let question =
        format!("GET {CHECK_PATH} HTTP/1.1\r\nHost: {CHECK_HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut head = [0; STATUS];
    stream.read_exact(&mut head).await?;
    let text = std::str::from_utf8(&head).unwrap_or_default();
    let status = text
        .strip_prefix("HTTP/1.1 ")
        .and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::Error::other("another program than nginx answered"))
}

/// The loopback address stands for "every address of the host".
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Those of these processes that are stopped by a signal.
pub fn stopped_by_signal(pids: impl IntoIterator<Item = i32>) -> Vec<i32> {
    pids.into_iter()
        .filter(|pid| is_stopped(&fs::read(format!("/proc/{pid}/stat")).unwrap_or_default()))
        .collect()
}

/// Reads the state letter after the program's name, which may contain anything.
fn is_stopped(stat: &[u8]) -> bool {
    let after_name = stat
        .iter()
        .rposition(|byte| *byte == b')')
        .and_then(|at| stat.get(at + 1..));
    after_name.is_some_and(|rest| rest.starts_with(b" T"))
}

/// Resumes a stopped process.
pub fn resume(pid: i32) -> Result<(), String> {
    kill(Pid::from_raw(pid), Signal::SIGCONT)
        .map_err(|e| format!("could not resume process {pid}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn answered(answer: &'static [u8]) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(answer).await.unwrap();
        };
        tokio::join!(ask(address), server).0
    }

    #[tokio::test]
    async fn an_answer_of_nginx_alone_is_none() {
        assert_eq!(answered(b"HTTP/1.1 204 No Content\r\n\r\n").await, Ok(()));
        assert_eq!(
            answered(b"HTTP/1.1 404 Not Found\r\n\r\n").await,
            Ok(()),
            "templates of the operator's may not know the request"
        );
        assert!(
            answered(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
                .await
                .unwrap_err()
                .contains("502")
        );
        assert!(
            answered(b"SSH-2.0-OpenSSH_9.2p1\r\n")
                .await
                .unwrap_err()
                .contains("another program than nginx")
        );
        assert!(answered(b"").await.is_err());
    }

    #[test]
    fn addresses_that_mean_all_are_asked_at_the_loopback_one() {
        let at = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(
            (at("0.0.0.0:80"), at("[::]:80"), at("10.0.0.1:80")),
            (
                "127.0.0.1:80".into(),
                "[::1]:80".into(),
                "10.0.0.1:80".into()
            )
        );
    }

    #[test]
    fn only_what_a_signal_stopped_is_found() {
        assert!(is_stopped(b"7 (nginx) T 1 7"));
        assert!(is_stopped(b"7 (a) S \xff) T 1 7"));
        for other in [
            &b"7 (nginx) S 1 7"[..],
            b"7 (T) S 1",
            b"7 (nginx) t 1 7",
            b"",
            b"7 (x)",
        ] {
            assert!(!is_stopped(other));
        }
        assert!(stopped_by_signal([i32::MAX, std::process::id().cast_signed()]).is_empty());
    }
}
