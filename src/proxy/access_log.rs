//! The access log of acc's own edge: a line in nginx's "combined" form plus the time taken, to a file per instance.
//!
//! It never holds up a request: a line that finds the queue full is dropped and counted. What does not count as use goes to
//! another file than what does, because a file that grows is a sign of use.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{StatusCode, Version};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::domain::name::InstanceName;
use crate::domain::time::WallTime;
use crate::driver::host::append::AppendFile;
use crate::driver::host::clock::{Clock, SystemClock};

/// Lines that wait to be written.
const QUEUE: usize = 8192;
/// What is gathered before it is written: waking the writer for every line would cost more than the line.
const GATHER: Duration = Duration::from_millis(10);
/// A file longer than this is set aside as `NAME.1`.
const FILE_MAX: u64 = 32 * 1024 * 1024;

/// Where the lines of an instance go: its name, and whether the request counts as use.
pub type LogPath = dyn Fn(&str, bool) -> PathBuf + Send + Sync;

/// Takes lines.
#[derive(Clone)]
pub struct AccessLog {
    lines: mpsc::Sender<Entry>,
    dropped: Arc<AtomicU64>,
}

/// One request, complete once it is dropped: then it is handed to the writer.
pub(super) struct Line {
    log: AccessLog,
    started: Instant,
    /// Bytes of body sent.
    pub(super) sent: u64,
    entry: Option<Entry>,
}

/// It keeps nothing of the request itself: what that was read into is needed for the next one, and lines wait.
struct Entry {
    name: InstanceName,
    counts: bool,
    client: Option<IpAddr>,
    /// The request's line and, from `rest` on, where it came from and by which program; in quotes.
    text: String,
    rest: usize,
    status: StatusCode,
    sent: u64,
    micros: u128,
}

/// What a line needs of a request, taken before its headers are changed.
pub(super) struct Draft {
    started: Instant,
    client: Option<IpAddr>,
    counts: bool,
    text: String,
    rest: usize,
}

impl AccessLog {
    /// Starts the writer; it ends, with everything written, when the last `AccessLog` is dropped. The handle tells when.
    pub fn start(path: Box<LogPath>) -> (Self, tokio::task::JoinHandle<()>) {
        let (lines, queue) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let log = Self { lines, dropped: dropped.clone() };
        (log, tokio::spawn(write_all(queue, Arc::from(path), dropped)))
    }

    /// Lines lost because the disk could not keep up.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn line(&self, draft: Draft, name: &InstanceName, status: StatusCode) -> Box<Line> {
        let Draft { started, client, counts, text, rest } = draft;
        let entry = Entry { name: name.clone(), counts, client, text, rest, status, sent: 0, micros: 0 };
        Box::new(Line { log: self.clone(), started, sent: 0, entry: Some(entry) })
    }
}

impl Draft {
    pub(super) fn of(head: &Parts, client: Option<IpAddr>, counts: bool, started: Instant) -> Self {
        let said = |name| head.headers.get(name).map_or(&b"-"[..], HeaderValue::as_bytes);
        let (referer, agent) = (said(header::REFERER), said(header::USER_AGENT));
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut text = String::with_capacity(head.method.as_str().len() + target.len() + referer.len() + agent.len() + 20);
        text.push('"');
        text.push_str(head.method.as_str());
        text.push(' ');
        quote(&mut text, target.as_bytes());
        text.push_str(match head.version {
            Version::HTTP_09 => " HTTP/0.9\"",
            Version::HTTP_10 => " HTTP/1.0\"",
            Version::HTTP_2 => " HTTP/2.0\"",
            Version::HTTP_3 => " HTTP/3.0\"",
            _ => " HTTP/1.1\"",
        });
        let rest = text.len();
        for value in [referer, agent] {
            text.push_str(" \"");
            quote(&mut text, value);
            text.push('"');
        }
        Self { started, client, counts, text, rest }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(mut entry) = self.entry.take() else { return };
        entry.sent = self.sent;
        entry.micros = self.started.elapsed().as_micros();
        if self.log.lines.try_send(entry).is_err() {
            self.log.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Waits for lines, lets more of them come, and writes them on a thread where the disk holds up nobody.
async fn write_all(mut queue: mpsc::Receiver<Entry>, path: Arc<LogPath>, dropped: Arc<AtomicU64>) {
    loop {
        let mut batch = Vec::new();
        if queue.recv_many(&mut batch, QUEUE).await == 0 {
            return;
        }
        tokio::time::sleep(GATHER).await;
        while let Ok(entry) = queue.try_recv() {
            batch.push(entry);
        }
        let (path, dropped) = (path.clone(), dropped.clone());
        let _ = tokio::task::spawn_blocking(move || write(batch, &*path, &dropped)).await;
    }
}

fn write(batch: Vec<Entry>, path: &LogPath, dropped: &AtomicU64) {
    let time = stamp(SystemClock.wall());
    let mut texts: HashMap<(InstanceName, bool), String> = HashMap::new();
    for entry in batch {
        let line = format_line(&entry, &time);
        texts.entry((entry.name, entry.counts)).or_default().push_str(&line);
    }
    // Not kept open: an instance may be purged, or its log taken away, while it is quiet.
    for ((name, counts), text) in texts {
        let path = path(name.as_str(), counts);
        if let Err(error) = AppendFile::open(&path).and_then(|mut file| file.append(text.as_bytes(), FILE_MAX)) {
            dropped.fetch_add(text.lines().count() as u64, Ordering::Relaxed);
            tracing::warn!(path = %path.display(), %error, "could not write the access log");
        }
    }
}

/// `10/Oct/2000:13:55:36 +0000`
fn stamp(time: WallTime) -> String {
    jiff::Timestamp::from_millisecond(time.0).map_or_else(|_| "-".to_owned(), |t| t.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string())
}

fn format_line(entry: &Entry, time: &str) -> String {
    let mut line = String::with_capacity(256);
    match entry.client {
        Some(ip) => _ = write!(line, "{ip}"),
        None => line.push('-'),
    }
    let (request, rest) = entry.text.split_at(entry.rest);
    _ = write!(line, " - - [{time}] {request} {} {}{rest}", entry.status.as_u16(), entry.sent);
    _ = writeln!(line, " {}.{:03}", entry.micros / 1_000_000, entry.micros / 1000 % 1000);
    line
}

/// As nginx does: what would end the field or the line is written as `\xNN`.
fn quote(line: &mut String, bytes: &[u8]) {
    let plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | ..0x20 | 0x7f..);
    let mut left = bytes;
    while !left.is_empty() {
        let end = left.iter().position(|byte| !plain(byte)).unwrap_or(left.len());
        let (now, others) = left.split_at(end);
        // Nothing beyond ASCII is plain.
        line.push_str(std::str::from_utf8(now).unwrap_or_default());
        left = match others.split_first() {
            Some((byte, others)) => {
                _ = write!(line, "\\x{byte:02X}");
                others
            }
            None => others,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(agent: &[u8]) -> Parts {
        let request = hyper::Request::builder().uri("/a?b=1").header("user-agent", HeaderValue::from_bytes(agent).unwrap());
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_line_cannot_be_broken_from_outside() {
        let mut text = String::new();
        quote(&mut text, b"a\"b\\c\nd\xc3\xa9\x7f");
        assert_eq!(text, r"a\x22b\x5Cc\x0Ad\xC3\xA9\x7F");
        assert_eq!(stamp(WallTime(971_186_136_000)), "10/Oct/2000:13:55:36 +0000");
    }

    #[tokio::test]
    async fn lines_go_to_the_file_of_their_kind_and_all_are_written_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let (log, done) = AccessLog::start(Box::new(move |name, counts| root.join(format!("{name}-{counts}.log"))));
        let name = InstanceName::parse("shop").unwrap();
        for counts in [true, true, false] {
            let draft = Draft::of(&head(b"x \"y"), "1.2.3.4".parse().ok(), counts, Instant::now());
            log.line(draft, &name, StatusCode::OK).sent = 5;
        }
        drop(log);
        done.await.unwrap();
        let counted = std::fs::read_to_string(dir.path().join("shop-true.log")).unwrap();
        assert_eq!(counted.lines().count(), 2);
        assert!(counted.starts_with("1.2.3.4 - - ["), "{counted}");
        assert!(counted.contains("\"GET /a?b=1 HTTP/1.1\" 200 5 \"-\" \"x \\x22y\" 0.0"), "{counted}");
        assert_eq!(std::fs::read_to_string(dir.path().join("shop-false.log")).unwrap().lines().count(), 1);
    }

    #[tokio::test]
    async fn a_full_queue_costs_a_line_and_no_time() {
        let (lines, queue) = mpsc::channel(1);
        let log = AccessLog { lines, dropped: Arc::default() };
        let name = InstanceName::parse("shop").unwrap();
        for _ in 0..3 {
            drop(log.line(Draft::of(&head(b"x"), None, true, Instant::now()), &name, StatusCode::OK));
        }
        assert_eq!(log.dropped(), 2);
        drop(queue);
    }
}
