//! A client's socket with the limits that HTTP libraries leave out: the first bytes already read are given out first, a
//! head that trickles in is cut, and so is a client that has stopped reading. It says when a connection rests: then
//! whoever serves it can do without everything but this.
//!
//! It never limits how long a request may take, nor an upgraded connection.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};

use super::connection_state::ConnectionState;
use super::timeouts::ConnectionTimeouts;
use crate::driver::upstream::{FirstLine, Stall, first_line};
use crate::host::coalesce::CoalesceBuffer;

/// A first line that is longer is hyper's to refuse.
const LONGEST_LINE: usize = 64 * 1024;

/// What every HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A socket that can tell that it has something to read without reading it.
pub(super) trait ClientSocket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Ready with bytes, the end or a fault; what has arrived since the last read that found nothing counts as well.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Asks the kernel: are there bytes?
    fn has_arrived(&self) -> bool;
}

impl ClientSocket for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn has_arrived(&self) -> bool {
        holds_bytes(self)
    }
}

impl ClientSocket for UnixStream {
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

/// A socket of a client.
#[repr(align(64))]
pub(super) struct ClientIo<S> {
    socket: S,
    /// Read already, and given out before anything else.
    first: Bytes,
    reading: ReadClock,
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
enum ReadPhase {
    /// A request is under way: no limit.
    BusyGuard,
    /// Between two requests.
    Idle,
    /// A head has begun.
    Head,
}

/// The clock of heads and of idle connections. One timer serves a connection for its whole life: it is set again only when
/// it fires, or when it would fire too late, so that a busy connection does not touch it.
struct ReadClock {
    used: Arc<ConnectionState>,
    limits: ConnectionTimeouts,
    phase: ReadPhase,
    /// A head has begun, and its time has not.
    unclocked: bool,
    /// When its time is up.
    due: Instant,
    timer: Pin<Box<Sleep>>,
}

impl ReadClock {
    fn new(used: Arc<ConnectionState>, limits: ConnectionTimeouts) -> Self {
        let due = Instant::now() + limits.head;
        Self { used, limits, phase: ReadPhase::Head, unclocked: false, due, timer: Box::pin(tokio::time::sleep_until(due)) }
    }

    fn head(&mut self) {
        (self.phase, self.unclocked) = (ReadPhase::Head, false);
        self.due = Instant::now() + self.limits.head;
    }

    /// After a look at the socket: `got` something or nothing. Says whether the client's time is up.
    fn is_late(&mut self, got: bool, flushed: bool, cx: &mut Context<'_>) -> bool {
        let phase = match (self.used.is_busy(), self.phase) {
            (true, _) => ReadPhase::BusyGuard,
            (false, ReadPhase::Head) => ReadPhase::Head,
            (false, _) if got => ReadPhase::Head,
            (false, _) => ReadPhase::Idle,
        };
        if got && phase != ReadPhase::BusyGuard {
            // Most heads come whole: then this is the last look before the request is under way, and the clock is not asked.
            self.unclocked |= self.phase != ReadPhase::Head;
            self.phase = phase;
            return false;
        }
        if phase != self.phase || self.unclocked {
            self.phase = phase;
            match phase {
                ReadPhase::BusyGuard => {}
                ReadPhase::Idle => self.due = Instant::now() + self.limits.idle,
                ReadPhase::Head => self.head(),
            }
            self.unclocked = false;
        }
        match phase {
            ReadPhase::BusyGuard => false,
            ReadPhase::Head => self.is_over(self.due, cx),
            ReadPhase::Idle => {
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
pub(super) enum Protocol {
    Http1,
    Http2,
}

impl<S: ClientSocket> ClientIo<S> {
    /// An accepted connection, of which nothing is read yet.
    pub(super) fn new(socket: S, limits: ConnectionTimeouts) -> Self {
        let reading = ReadClock::new(Arc::default(), limits);
        let writing = Stall::new(limits.stall);
        Self { socket, first: Bytes::new(), reading, writing, flushed: true, next: Next::Head, at_end_of_head: false }
    }

    /// What those who serve its requests tell it, and it them.
    pub(super) fn used(&self) -> Arc<ConnectionState> {
        self.reading.used.clone()
    }

    /// Reads the first bytes, as many as it takes to tell HTTP/2 from HTTP/1; they are given out again. `None`: it closed
    /// without a word.
    pub(super) async fn begin(&mut self) -> io::Result<Option<Protocol>> {
        let mut first = [0; PREFACE.len()];
        let mut len = 0;
        let speaks = loop {
            let got = self.socket.read(&mut first[len..]).await?;
            if got == 0 {
                return Ok(None);
            }
            len += got;
            if first[..len] != PREFACE[..len] {
                break Protocol::Http1;
            }
            if len == PREFACE.len() {
                break Protocol::Http2;
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
        self.reading.limits = ConnectionTimeouts { head: far, idle: far, rest: far, ..self.reading.limits };
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

impl<S: ClientSocket> ClientIo<S> {
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

impl<S: ClientSocket> AsyncRead for ClientIo<S> {
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

impl<S: ClientSocket> AsyncWrite for ClientIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.wrote(written, cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = match CoalesceBuffer::new().coalesce(bufs) {
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
