//! The health check: one request over a fresh connection. Does this path answer 2xx or 3xx?
//!
//! It implements just enough HTTP for that, reads no body and follows no redirect.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::ProbeTarget;
use crate::driver::listener::shown;

/// An application may be busy with its first start; after this long the check is repeated on a new
/// connection.
const LIMIT: Duration = Duration::from_secs(10);
/// A longer status line is invalid.
const LONGEST_LINE: usize = 4096;

/// The last response of each instance that is not healthy yet, by its address.
#[derive(Debug, Clone, Default)]
pub(super) struct Unwell(Arc<Mutex<HashMap<String, String>>>);

impl Unwell {
    fn all(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, target: &ProbeTarget, said: String) {
        self.all().insert(key(target), said);
    }

    pub(super) fn get(&self, target: &ProbeTarget) -> Option<String> {
        self.all().get(&key(target)).cloned()
    }

    pub(super) fn forget(&self, target: &ProbeTarget) {
        if target.health.is_some() {
            self.all().remove(&key(target));
        }
    }
}

fn key(target: &ProbeTarget) -> String {
    format!("{:?}", target.listen)
}

/// Sends the request. Anything but 2xx or 3xx is "not yet"; the error describes it, for people.
pub(super) async fn ask<S>(stream: S, path: &str, host: &str) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match tokio::time::timeout(LIMIT, first_line(stream, path, host)).await {
        Err(_) => Err(format!("none within {} s", LIMIT.as_secs())),
        Ok(Err(e)) => Err(format!("a broken connection: {e}")),
        Ok(Ok(line)) => match status(&line) {
            Some(200..400) => Ok(()),
            Some(_) => Err(format!(
                "`{}`",
                shown(
                    String::from_utf8_lossy(
                        line.split(|b| b"\r\n".contains(b))
                            .next()
                            .unwrap_or_default()
                    )
                    .trim_end()
                )
            )),
            None if line.is_empty() => {
                Err("a connection that was closed without a response".to_owned())
            }
            None => Err(format!(
                "not HTTP: `{}`",
                shown(&String::from_utf8_lossy(&line))
            )),
        },
    }
}

/// Reads the beginning of the response, up to the end of its first line.
async fn first_line<S>(mut stream: S, path: &str, host: &str) -> std::io::Result<Vec<u8>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: acc-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut seen = Vec::with_capacity(512);
    while !seen.contains(&b'\n') && seen.len() < LONGEST_LINE {
        if stream.read_buf(&mut seen).await? == 0 {
            break;
        }
    }
    // Read the rest, or the application would log a broken connection at every start.
    tokio::spawn(tokio::time::timeout(Duration::from_secs(1), async move {
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    }));
    Ok(seen)
}

/// The status of a status line.
#[must_use]
pub fn status(line: &[u8]) -> Option<u16> {
    let line = line.strip_prefix(b"HTTP/1.")?;
    let text = std::str::from_utf8(line.get(2..5)?).ok()?;
    (line.get(1) == Some(&b' ') && line.get(5).is_none_or(|b| b.is_ascii_whitespace()))
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status_lines() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Some(503));
        assert_eq!(status(b"HTTP/1.1 204"), Some(204));
        for bad in [
            &b""[..],
            b"HTTP/1.1",
            b"HTTP/1.1 20",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1  200",
            b"SSH-2.0-x\r\n",
            b"HTTP/2 200",
            b"HTTP/1.1 abc",
        ] {
            assert_eq!(status(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
