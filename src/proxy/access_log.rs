//! The access log of acc's own edge: a line in nginx's "combined" format plus the outcome of the
//! request, in a file per instance. Where nginx is the edge it writes the same line, see
//! `templates/nginx/nginx.conf`.
//!
//! It never delays a request: if the queue is full, the line is dropped and counted. Requests that
//! do not count as use go to a separate file, because a growing file is a sign of use. A request
//! for no instance leaves no line.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::request::ParsedRequest;
use crate::domain::name::InstanceName;
use crate::domain::time::WallTime;
use crate::host::append::AppendFile;
use crate::host::clock::{Clock, SystemClock};
use crate::host::io_threads;

/// Most bytes queued, for each I/O thread.
const QUEUE: usize = 1024 * 1024;
/// Lines are buffered this long before they are written: waking the writer for every line would
/// cost more than the line.
const WRITE_EVERY: Duration = Duration::from_millis(10);
/// A longer file is renamed to `NAME.1`.
const FILE_MAX: u64 = 32 * 1024 * 1024;

/// Where the lines of an instance go: its name, and whether the request counts as use.
pub type LogPath = dyn Fn(&str, bool) -> PathBuf + Send + Sync;

/// Accepts lines. Each I/O thread has its own queue in its own cache lines: memory that two CPUs
/// write in turn is slow.
#[derive(Clone)]
pub struct AccessLog {
    queues: Arc<[Arc<LineQueue>]>,
    dropped: Arc<AtomicU64>,
}

/// The queued lines of one I/O thread.
#[repr(align(64))]
struct LineQueue {
    pending: Arc<Mutex<PendingLines>>,
    /// Sent when the first line is queued; closed when the last log, and the last line, is dropped.
    wake: mpsc::Sender<()>,
    dropped: Arc<AtomicU64>,
}

/// The queued lines, by file.
#[derive(Default)]
struct PendingLines {
    /// By instance: requests that count as use, and those that do not.
    files: HashMap<InstanceName, [String; 2]>,
    len: usize,
    /// When the first of them arrived, as text: the others arrived within [`WRITE_EVERY`] and the
    /// time of a write.
    timestamp: String,
}

/// The line of one request, which is queued when it is dropped.
pub(super) struct AccessLine {
    queue: Arc<LineQueue>,
    /// Bytes of the body that were sent.
    pub(super) sent: u64,
    name: InstanceName,
    status: StatusCode,
    draft: LineDraft,
    timings: Timings,
}

/// How long a request took up to the head of its response, and in which steps; forms the end of its
/// line.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timings {
    /// How long it was held.
    pub(super) held: Option<Duration>,
    /// How long after it was let through the application began its response, and the status.
    pub(super) answer: Option<(Duration, StatusCode)>,
}

/// What a line needs of a request, copied before its headers are changed. It keeps no part of the
/// request, whose buffer is needed for the next one.
pub(super) struct LineDraft {
    started: Instant,
    client: Option<IpAddr>,
    counts: bool,
    /// The response has no body, whatever length its head gives.
    bodiless: bool,
    /// The user name of basic authentication.
    basic_user: String,
    /// In quotes the request line and, from `rest` on, referer and user agent; and the host.
    text: String,
    rest: usize,
}

impl AccessLog {
    /// Starts the writer. It ends, with everything written, when the last `AccessLog` is dropped;
    /// the handle resolves then.
    pub fn start(path: Box<LogPath>) -> (Self, tokio::task::JoinHandle<()>) {
        let (wake, woken) = mpsc::channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let queue = |_| {
            Arc::new(LineQueue {
                pending: Arc::default(),
                wake: wake.clone(),
                dropped: dropped.clone(),
            })
        };
        let queues: Arc<[_]> = (0..=io_threads::MAX).map(queue).collect();
        let pending = queues
            .iter()
            .map(|queue: &Arc<LineQueue>| queue.pending.clone())
            .collect();
        let writer = tokio::spawn(write_all(woken, pending, Arc::from(path), dropped.clone()));
        (Self { queues, dropped }, writer)
    }

    /// Lines lost because the disk could not keep up.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn line(
        &self,
        draft: LineDraft,
        name: &InstanceName,
        status: StatusCode,
        timings: Timings,
    ) -> Box<AccessLine> {
        Box::new(AccessLine {
            queue: self.queues[io_threads::current()].clone(),
            sent: 0,
            name: name.clone(),
            status,
            draft,
            timings,
        })
    }
}

impl LineDraft {
    pub(super) fn of(head: &Parts, parsed: &ParsedRequest, started: Instant) -> Self {
        let value = |name| {
            head.headers
                .get(name)
                .map_or(&b"-"[..], HeaderValue::as_bytes)
        };
        let (referer, agent) = (value(header::REFERER), value(header::USER_AGENT));
        let target = head
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let mut text = String::with_capacity(
            head.method.as_str().len()
                + target.len()
                + referer.len()
                + agent.len()
                + parsed.host.as_str().len()
                + 32,
        );
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
        text.push_str(" host=");
        text.push_str(parsed.host.as_str());
        let basic_user = head
            .headers
            .get(header::AUTHORIZATION)
            .and_then(basic_user)
            .unwrap_or_default();
        Self {
            started,
            client: parsed.origin.client,
            counts: parsed.verdict.counts,
            bodiless: head.method == Method::HEAD,
            basic_user,
            text,
            rest,
        }
    }

    pub(super) fn is_bodiless(&self) -> bool {
        self.bodiless
    }

    /// Marks the request as answered without the application, so that it does not count as use.
    pub(super) fn does_not_count(&mut self) {
        self.counts = false;
    }
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let mut pending = lock(&self.queue.pending);
        if pending.len >= QUEUE {
            self.queue.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let first = pending.len == 0;
        if first {
            pending.timestamp = timestamp(SystemClock.wall());
        }
        pending.add(self);
        drop(pending);
        if first {
            let wake = self.queue.wake.clone();
            // Full: the writer has been woken already.
            let wake_writer = move || _ = wake.try_send(());
            // Not before the response is sent, which the task that drops this does next: to wake
            // another thread takes longer.
            match tokio::runtime::Handle::try_current() {
                Ok(here) => drop(here.spawn(async move { wake_writer() })),
                Err(_) => wake_writer(),
            }
        }
    }
}

impl PendingLines {
    fn add(&mut self, line: &AccessLine) {
        if !self.files.contains_key(&line.name) {
            self.files
                .insert(line.name.clone(), <[String; 2]>::default());
        }
        let Some(text) = self
            .files
            .get_mut(&line.name)
            .map(|files| &mut files[usize::from(line.draft.counts)])
        else {
            return;
        };
        let before = text.len();
        write_line(text, line, &self.timestamp);
        self.len += text.len() - before;
    }

    /// Takes the queued lines.
    fn take(&mut self) -> HashMap<InstanceName, [String; 2]> {
        self.len = 0;
        std::mem::take(&mut self.files)
    }
}

fn lock(pending: &Mutex<PendingLines>) -> MutexGuard<'_, PendingLines> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for lines, collects for a while, and writes them on a thread that may block on the disk.
async fn write_all(
    mut woken: mpsc::Receiver<()>,
    queues: Vec<Arc<Mutex<PendingLines>>>,
    path: Arc<LogPath>,
    dropped: Arc<AtomicU64>,
) {
    let mut more = true;
    while more {
        more = woken.recv().await.is_some();
        if more {
            tokio::time::sleep(WRITE_EVERY).await;
        }
        let batch: Vec<_> = queues
            .iter()
            .map(|pending| lock(pending).take())
            .filter(|files| !files.is_empty())
            .collect();
        let (path, dropped) = (path.clone(), dropped.clone());
        let _ = tokio::task::spawn_blocking(move || write(batch, &*path, &dropped)).await;
    }
}

fn write(batch: Vec<HashMap<InstanceName, [String; 2]>>, path: &LogPath, dropped: &AtomicU64) {
    let files = batch
        .into_iter()
        .flatten()
        .flat_map(|(name, [other, counted])| [(name.clone(), false, other), (name, true, counted)]);
    // Not kept open: while the instance is quiet it may be purged, or its log removed.
    for (name, counts, text) in files.filter(|(_, _, text)| !text.is_empty()) {
        let path = path(name.as_str(), counts);
        if let Err(error) =
            AppendFile::open(&path).and_then(|mut file| file.append(text.as_bytes(), FILE_MAX))
        {
            dropped.fetch_add(text.lines().count() as u64, Ordering::Relaxed);
            tracing::warn!(path = %path.display(), %error, "could not write the access log");
        }
    }
}

/// `10/Oct/2000:13:55:36 +0000`
fn timestamp(time: WallTime) -> String {
    jiff::Timestamp::from_millisecond(time.0).map_or_else(
        |_| "-".to_owned(),
        |t| t.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
    )
}

/// The user name of basic authentication, as nginx reads it, quoted.
fn basic_user(value: &HeaderValue) -> Option<String> {
    let (scheme, value) = value.as_bytes().split_at_checked(6)?;
    let value = STANDARD
        .decode(value.trim_ascii())
        .ok()
        .filter(|_| scheme.eq_ignore_ascii_case(b"basic "))?;
    let end = value.iter().position(|byte| *byte == b':')?;
    let mut basic_user = String::new();
    quote(&mut basic_user, &value[..end]);
    Some(basic_user)
}

impl Display for Timings {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("wake=")?;
        write_seconds(f, self.held)?;
        f.write_str(" answer=")?;
        write_seconds(f, self.answer.map(|(time, _)| time))?;
        f.write_str(" upstream=")?;
        f.write_str(
            self.answer
                .as_ref()
                .map_or("-", |(_, status)| status.as_str()),
        )
    }
}

fn write_seconds(to: &mut impl Write, time: Option<Duration>) -> fmt::Result {
    let Some(time) = time else {
        return to.write_str("-");
    };
    // Digit by digit: the formatter's padding costs more.
    match time.as_secs() {
        0 => to.write_char('0')?,
        seconds => write!(to, "{seconds}")?,
    }
    to.write_char('.')?;
    [100, 10, 1].into_iter().try_for_each(|unit| {
        let digit = time.subsec_millis() / unit % 10;
        to.write_char(char::from_digit(digit, 10).unwrap_or('0'))
    })
}

fn write_line(to: &mut String, line: &AccessLine, time: &str) {
    let draft = &line.draft;
    match draft.client {
        Some(ip) => _ = write!(to, "{ip}"),
        None => to.push('-'),
    }
    let (request, rest) = draft.text.split_at(draft.rest);
    for part in [
        " - ",
        if draft.basic_user.is_empty() {
            "-"
        } else {
            &draft.basic_user
        },
        " [",
        time,
        "] ",
        request,
        " ",
        line.status.as_str(),
    ] {
        to.push_str(part);
    }
    let time = draft.started.elapsed();
    _ = write!(to, " {}{rest} time=", line.sent);
    _ = write_seconds(to, Some(time));
    _ = writeln!(to, " {}", line.timings);
}

/// Escapes as nginx does: what would end the field or the line is written as `\xNN`.
pub fn quote(line: &mut String, bytes: &[u8]) {
    let plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | ..0x20 | 0x7f..);
    let mut left = bytes;
    while !left.is_empty() {
        let end = left
            .iter()
            .position(|byte| !plain(byte))
            .unwrap_or(left.len());
        let (now, others) = left.split_at(end);
        // All bytes in `now` are ASCII.
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

    fn draft(agent: &[u8], counts: bool) -> LineDraft {
        let request = hyper::Request::builder()
            .uri("/a?b=1")
            .header("host", "shop.test")
            .header("authorization", "Basic amFuZTp4");
        let request = request.header("user-agent", HeaderValue::from_bytes(agent).unwrap());
        let head = request.body(()).unwrap().into_parts().0;
        let origin = crate::proxy::TrustedProxies::default().origin(
            "1.2.3.4".parse().ok(),
            80,
            &head.headers,
        );
        let mut parsed =
            crate::proxy::request::read(crate::proxy::Front::Public, origin, &head, &[]).unwrap();
        parsed.verdict.counts = counts;
        LineDraft::of(&head, &parsed, Instant::now())
    }

    #[test]
    fn a_line_cannot_be_broken_from_outside() {
        let mut text = String::new();
        quote(&mut text, b"a\"b\\c\nd\xc3\xa9\x7f");
        assert_eq!(text, r"a\x22b\x5Cc\x0Ad\xC3\xA9\x7F");
        assert_eq!(
            timestamp(WallTime(971_186_136_000)),
            "10/Oct/2000:13:55:36 +0000"
        );
    }

    #[tokio::test]
    async fn lines_go_to_the_file_of_their_kind_and_all_are_written_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let (log, done) = AccessLog::start(Box::new(move |name, counts| {
            root.join(format!("{name}-{counts}.log"))
        }));
        let name = InstanceName::parse("shop").unwrap();
        for counts in [true, true, false] {
            let answer = Some((Duration::from_millis(1_234), StatusCode::CREATED));
            log.line(
                draft(b"x \"y", counts),
                &name,
                StatusCode::OK,
                Timings { held: None, answer },
            )
            .sent = 5;
        }
        drop(log);
        done.await.unwrap();
        let counted = std::fs::read_to_string(dir.path().join("shop-true.log")).unwrap();
        assert_eq!(counted.lines().count(), 2);
        assert!(counted.starts_with("1.2.3.4 - jane ["), "{counted}");
        assert!(
            counted.contains(
                "\"GET /a?b=1 HTTP/1.1\" 200 5 \"-\" \"x \\x22y\" host=shop.test time=0.0"
            ),
            "{counted}"
        );
        assert!(
            counted.ends_with(" wake=- answer=1.234 upstream=201\n"),
            "{counted}"
        );
        assert_eq!(
            std::fs::read_to_string(dir.path().join("shop-false.log"))
                .unwrap()
                .lines()
                .count(),
            1
        );
    }

    #[tokio::test]
    async fn a_full_queue_costs_a_line_and_no_time() {
        let (log, _) = AccessLog::start(Box::new(|_, _| PathBuf::from("/nonexistent/log")));
        let name = InstanceName::parse("shop").unwrap();
        lock(&log.queues[0].pending).len = QUEUE;
        for _ in 0..2 {
            drop(log.line(draft(b"x", true), &name, StatusCode::OK, Timings::default()));
        }
        assert_eq!(log.dropped(), 2);
    }
}
