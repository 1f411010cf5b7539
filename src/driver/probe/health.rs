//! One question over a fresh connection: does this path answer 2xx or 3xx?
//!
//! Just enough HTTP for that; it reads no body and follows no redirect.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// An application may be busy with its first start for a while; after this it is asked again on a new connection.
const LIMIT: Duration = Duration::from_secs(10);
/// A status line longer than this is none.
const LONGEST_LINE: usize = 4096;

/// Asks. Whatever is no answer of 2xx or 3xx is "not yet".
pub async fn is_well<S>(stream: S, path: &str, host: &str) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    matches!(tokio::time::timeout(LIMIT, ask(stream, path, host)).await, Ok(Ok(Some(200..400))))
}

/// The status of the answer; `None`: it is not HTTP.
async fn ask<S>(mut stream: S, path: &str, host: &str) -> std::io::Result<Option<u16>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: acc-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut seen = Vec::with_capacity(512);
    while !seen.contains(&b'\n') && seen.len() < LONGEST_LINE {
        if stream.read_buf(&mut seen).await? == 0 {
            break;
        }
    }
    let status = status(&seen);
    // The rest is taken off the application's hands, or it would log a broken connection at every start.
    tokio::spawn(tokio::time::timeout(Duration::from_secs(1), async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await }));
    Ok(status)
}

/// The status of a status line.
#[must_use]
pub fn status(line: &[u8]) -> Option<u16> {
    let line = line.strip_prefix(b"HTTP/1.")?;
    let text = std::str::from_utf8(line.get(2..5)?).ok()?;
    (line.get(1) == Some(&b' ') && line.get(5).is_none_or(|b| b.is_ascii_whitespace())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status_lines() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Some(503));
        assert_eq!(status(b"HTTP/1.1 204"), Some(204));
        for bad in
            [&b""[..], b"HTTP/1.1", b"HTTP/1.1 20", b"HTTP/1.1 2000 OK", b"HTTP/1.1  200", b"SSH-2.0-x\r\n", b"HTTP/2 200", b"HTTP/1.1 abc"]
        {
            assert_eq!(status(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
