//! A client's socket with the limits that HTTP libraries leave out: the first bytes already read are given out first, a
//! head that trickles in is cut, and so is a client that has stopped reading. It says when a connection rests: then
//! whoever serves it can do without everything but this.
//!
//! It never limits how long a request may take, nor an upgraded connection.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};

use super::crowd::Share;
use crate::driver::host::gather::Room;
use crate::driver::upstream::{FirstLine, RawTarget, Stall, first_line};

/// A first line that is longer is hyper's to refuse.
const LONGEST_LINE: usize = 64 * 1024;

/// What every HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The time limits of a client's connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From the first byte of a head to its last.
    pub(super) head: Duration,
    /// Between two requests on one connection.
    pub(super) idle: Duration,
    /// Between two requests, until the connection rests.
    pub(super) rest: Duration,
    /// A client may stop reading for this long.
    pub(super) stall: Duration,
}

/// A socket that can tell that it has something to read without reading it.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Ready with bytes, the end or a fault; what has arrived since the last read that found nothing counts as well.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Asks the kernel: are there bytes?
    fn has_arrived(&self) -> bool;
}

impl Socket for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn has_arrived(&self) -> bool {
        holds_bytes(self)
    }
}

impl Socket for UnixStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn has_arrived(&self) -> bool {
        holds_bytes(self)
    }
}

fn holds_bytes(socket: impl AsFd) -> bool {
    recv(socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok_and(|(count, _)| count > 0)
}

/// What a client's connection and those who serve its requests know of each other.
#[derive(Debug, Default)]
// One cache line each, here and below: connections of two lanes are allocated side by side.
#[repr(align(64))]
pub(super) struct Use {
    /// Requests under way.
    open: AtomicU32,
    /// Nothing is under way, nothing is left to write, and nothing has come for a while.
    rests: AtomicBool,
    /// A request has come.
    served: AtomicBool,
    /// It rests, and its last answer has left.
    idle: AtomicBool,
    /// Its place is needed.
    unwanted: AtomicBool,
    /// When it came, or came to rest last, as the crowd counts.
    since: AtomicU64,
    task: AtomicWaker,
    /// What its client has, if it is limited.
    share: OnceLock<Arc<Share>>,
    /// Its requests are part of that, each.
    http2: AtomicBool,
    /// A request has come since a head was last waited for.
    came: AtomicBool,
    has_target: AtomicBool,
    /// What the first line of the head that has come names, where hyper got it escaped.
    target: Mutex<Option<RawTarget>>,
}

impl Use {
    /// Is a request under way?
    pub(super) fn is_busy(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    /// Its client has this share.
    pub(super) fn belongs_to(&self, share: &Arc<Share>) {
        let _ = self.share.set(share.clone());
    }

    /// It carries many requests at once, and each counts.
    pub(super) fn speaks_http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
    }

    /// What the request that has just come asks for, if that is not what hyper says.
    pub(super) fn take_target(&self) -> Option<RawTarget> {
        if !self.has_target.swap(false, Ordering::Relaxed) {
            return None;
        }
        self.target.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put_target(&self, target: RawTarget) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
        self.has_target.store(true, Ordering::Relaxed);
    }

    fn counted(&self) -> Option<&Share> {
        if self.http2.load(Ordering::Relaxed) { self.share.get().map(|share| &**share) } else { None }
    }

    /// Has its client more requests and connections than one may have?
    pub(super) fn has_too_many(&self, per_client: Option<u32>) -> bool {
        self.counted().zip(per_client).is_some_and(|(share, most)| share.load(Ordering::Relaxed) > most)
    }

    /// It waits for its next request from now on.
    pub(super) fn comes_to_rest(&self, now: u64) {
        self.note_since(now);
        self.idle.store(true, Ordering::Release);
    }

    /// When it came.
    pub(super) fn note_since(&self, now: u64) {
        self.since.store(now, Ordering::Relaxed);
    }

    /// The moment noted last.
    pub(super) fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// Would nothing be lost with it? It has not said a word, or has its last answer; and is not on its way out already.
    pub(super) fn may_be_closed(&self) -> bool {
        self.is_idle() && !self.unwanted.load(Ordering::Acquire)
    }

    fn is_idle(&self) -> bool {
        !self.is_busy() && (self.idle.load(Ordering::Acquire) || !self.served.load(Ordering::Acquire))
    }

    /// Its place is needed.
    pub(super) fn close(&self) {
        self.unwanted.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Resolves when its place is needed and it is idle. To be polled by one task only, which is always woken by the same waker: so it
    /// is left once, `left`.
    pub(super) fn poll_unwanted(&self, left: &mut bool, cx: &Context<'_>) -> Poll<()> {
        if !*left {
            *left = true;
            self.task.register(cx.waker());
        }
        if !self.unwanted.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        if self.is_idle() {
            return Poll::Ready(());
        }
        // A request has come in between.
        self.unwanted.store(false, Ordering::Release);
        Poll::Pending
    }

    /// Resolves when no request was under way for the whole of the limit: HTTP/2 has none of its own between two requests.
    pub(super) async fn unused(&self, limit: Duration) {
        let mut since = Instant::now();
        loop {
            tokio::time::sleep(limit / 8).await;
            if self.is_busy() {
                since = Instant::now();
            } else if since.elapsed() >= limit {
                return;
            } else if since.elapsed() >= limit / 4 {
                self.idle.store(true, Ordering::Release);
            }
        }
    }

    /// As the socket last saw it.
    pub(super) fn rests(&self) -> bool {
        self.rests.load(Ordering::Relaxed)
    }
}

/// A request that its client's connection is busy with.
pub(super) struct Busy(Arc<Use>);

impl Busy {
    pub(super) fn new(connection: &Arc<Use>) -> Self {
        connection.open.fetch_add(1, Ordering::AcqRel);
        connection.served.store(true, Ordering::Relaxed);
        connection.came.store(true, Ordering::Relaxed);
        connection.idle.store(false, Ordering::Relaxed);
        connection.counted().inspect(|share| _ = share.fetch_add(1, Ordering::Relaxed));
        Self(connection.clone())
    }

    /// It became something else than a request, and lasts as long as the connection.
    pub(super) fn for_good(self) {
        self.0.open.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.counted().inspect(|share| _ = share.fetch_sub(1, Ordering::Relaxed));
    }
}

/// A socket of a client.
#[repr(align(64))]
pub(super) struct ClientIo<S> {
    socket: S,
    /// Read already, and given out before anything else.
    first: Bytes,
    reading: Reading,
    writing: Stall,
    /// Nothing was written since the last flush: whoever writes has no bytes left.
    flushed: bool,
    next: Next,
    /// The last bytes of a head were the last that were given out.
    at_end_of_head: bool,
}

/// What the next byte that is given out belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It begins a head, for certain.
    Head,
    /// A request.
    Request,
    /// A request, or a head whose beginning was given out: only hyper knows. It is asked, by taking it apart.
    Unknown,
    /// Frames of HTTP/2.
    Frame,
}

/// What the client has time for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A request is under way: no limit.
    Busy,
    /// Between two requests.
    Idle,
    /// A head has begun.
    Head,
}

/// The clock of heads and of idle connections. One timer serves a connection for its whole life: it is set again only when
/// it fires, or when it would fire too late, so that a busy connection does not touch it.
struct Reading {
    used: Arc<Use>,
    limits: Limits,
    phase: Phase,
    /// A head has begun, and its time has not.
    unclocked: bool,
    /// When its time is up.
    due: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Reading {
    fn new(used: Arc<Use>, limits: Limits) -> Self {
        let due = Instant::now() + limits.head;
        Self { used, limits, phase: Phase::Head, unclocked: false, due, timer: Box::pin(tokio::time::sleep_until(due)) }
    }

    fn head(&mut self) {
        (self.phase, self.unclocked) = (Phase::Head, false);
        self.due = Instant::now() + self.limits.head;
    }

    /// After a look at the socket: `got` something or nothing. Says whether the client's time is up.
    fn is_late(&mut self, got: bool, flushed: bool, cx: &mut Context<'_>) -> bool {
        let phase = match (self.used.is_busy(), self.phase) {
            (true, _) => Phase::Busy,
            (false, Phase::Head) => Phase::Head,
            (false, _) if got => Phase::Head,
            (false, _) => Phase::Idle,
        };
        if got && phase != Phase::Busy {
            // Most heads come whole: then this is the last look before the request is under way, and the clock is not asked.
            self.unclocked |= self.phase != Phase::Head;
            self.phase = phase;
            return false;
        }
        if phase != self.phase || self.unclocked {
            self.phase = phase;
            match phase {
                Phase::Busy => {}
                Phase::Idle => self.due = Instant::now() + self.limits.idle,
                Phase::Head => self.head(),
            }
            self.unclocked = false;
        }
        match phase {
            Phase::Busy => false,
            Phase::Head => self.is_over(self.due, cx),
            Phase::Idle => {
                // The first part of the limit comes first: after it the connection rests, and waits for the other by itself.
                let rest = self.due - self.limits.idle.saturating_sub(self.limits.rest);
                let rests = flushed && self.is_over(rest, cx);
                self.used.rests.store(rests, Ordering::Relaxed);
                (rests || !flushed) && self.is_over(self.due, cx)
            }
        }
    }

    /// Has this moment come? If not the task is woken when it has.
    fn is_over(&mut self, due: Instant, cx: &mut Context<'_>) -> bool {
        if self.timer.deadline() > due {
            self.timer.as_mut().reset(due);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return true;
            }
            self.timer.as_mut().reset(due);
        }
        false
    }
}

/// Which protocol the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
}

impl<S: Socket> ClientIo<S> {
    /// An accepted connection, of which nothing is read yet.
    pub(super) fn new(socket: S, limits: Limits) -> Self {
        let reading = Reading::new(Arc::default(), limits);
        let writing = Stall::new(limits.stall);
        Self { socket, first: Bytes::new(), reading, writing, flushed: true, next: Next::Head, at_end_of_head: false }
    }

    /// What those who serve its requests tell it, and it them.
    pub(super) fn used(&self) -> Arc<Use> {
        self.reading.used.clone()
    }

    /// Reads the first bytes, as many as it takes to tell HTTP/2 from HTTP/1; they are given out again. `None`: it closed
    /// without a word.
    pub(super) async fn begin(&mut self) -> io::Result<Option<Speaks>> {
        let mut first = [0; PREFACE.len()];
        let mut len = 0;
        let speaks = loop {
            let got = self.socket.read(&mut first[len..]).await?;
            if got == 0 {
                return Ok(None);
            }
            len += got;
            if first[..len] != PREFACE[..len] {
                break Speaks::Http1;
            }
            if len == PREFACE.len() {
                break Speaks::Http2;
            }
        };
        self.first = Bytes::copy_from_slice(&first[..len]);
        self.reading.head();
        Ok(Some(speaks))
    }

    /// On HTTP/2 heads are frames among others, and its own limits hold.
    pub(super) fn lift_read_limits(&mut self) {
        let far = Duration::from_secs(u32::MAX.into());
        self.next = Next::Frame;
        self.reading.limits = Limits { head: far, idle: far, rest: far, ..self.reading.limits };
        self.reading.head();
    }

    /// Takes back what was read from it and not used: the beginning of a head that waited behind another request.
    /// Says whether that is all there is to do: it does not rest.
    pub(super) fn unread(&mut self, bytes: Bytes) -> bool {
        self.reading.used.rests.store(false, Ordering::Relaxed);
        let goes_on = std::mem::replace(&mut self.next, Next::Head) == Next::Unknown;
        if !bytes.is_empty() {
            self.first = bytes;
            self.reading.head();
        }
        goes_on
    }

    /// Resolves when there is something to read. An error: the client's time is up.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match self.socket.poll_readable(cx) {
            Poll::Pending if self.reading.is_over(self.reading.due, cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            readable => readable,
        }
    }

    /// Has something to read come, whether or not the reactor has told of it?
    pub(super) fn has_arrived(&self) -> bool {
        self.socket.has_arrived()
    }

    fn wrote<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.flushed = false;
        if written.is_ready() {
            self.writing.rest();
            return written;
        }
        match self.writing.poll_waited(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: Socket> ClientIo<S> {
    /// What was read already, else what the socket has, within the limits.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let now = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first[..now]);
            self.first.advance(now);
            if self.first.is_empty() {
                // What it was part of may be large.
                self.first = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        let got = buf.filled().len() > before;
        if self.reading.is_late(got, self.flushed, cx) && !got { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { read }
    }

    /// The beginning of a head: its first line is given out when it is whole, with a target that hyper can read.
    fn poll_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        // A line that was begun already is put together with what follows.
        let mut line = BytesMut::from(std::mem::take(&mut self.first));
        let read = self.poll_bytes(cx, buf);
        let got = buf.filled().len() > before;
        if !line.is_empty() {
            line.extend_from_slice(&buf.filled()[before..]);
            buf.set_filled(before);
        }
        let head = if line.is_empty() { &buf.filled()[before..] } else { &line[..] };
        match first_line(head) {
            FirstLine::Partial if head.len() < LONGEST_LINE && (got || read.is_pending()) => {
                self.first = if line.is_empty() { Bytes::copy_from_slice(head) } else { line.freeze() };
                buf.set_filled(before);
                if got {
                    // There may be more, and only the socket wakes this task.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                return read;
            }
            FirstLine::Partial | FirstLine::Plain => self.first = line.freeze(),
            FirstLine::Escaped { line: escaped, replaces, raw } => {
                self.reading.used.put_target(raw);
                self.first = [&escaped[..], &head[replaces..]].concat().into();
                buf.set_filled(before);
            }
        }
        if self.first.is_empty() && !got {
            return read;
        }
        self.next = Next::Request;
        if self.first.is_empty() { read } else { self.poll_bytes(cx, buf) }
    }

    /// A request is over when another head is waited for. Where it ended is certain when it was a head and no more.
    fn note_next(&mut self) {
        if self.next == Next::Request && self.reading.used.came.swap(false, Ordering::Relaxed) {
            self.next = if self.at_end_of_head { Next::Head } else { Next::Unknown };
        }
    }
}

impl<S: Socket> AsyncRead for ClientIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let busy = this.reading.used.is_busy();
        if !busy {
            this.note_next();
        }
        let before = buf.filled().len();
        let read = match this.next {
            Next::Head if !busy => this.poll_head(cx, buf),
            Next::Unknown if !busy && this.flushed => {
                this.reading.used.rests.store(true, Ordering::Relaxed);
                return Poll::Pending;
            }
            _ => this.poll_bytes(cx, buf),
        };
        let given = &buf.filled()[before..];
        if !given.is_empty() {
            this.at_end_of_head = !busy && this.first.is_empty() && given.ends_with(b"\r\n\r\n");
        }
        read
    }
}

impl<S: Socket> AsyncWrite for ClientIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.wrote(written, cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = match Room::new().gather(bufs) {
            Some(one) => Pin::new(&mut self.socket).poll_write(cx, one),
            None => Pin::new(&mut self.socket).poll_write_vectored(cx, bufs),
        };
        self.wrote(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
