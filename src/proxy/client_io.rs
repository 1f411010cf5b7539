//! A client's socket with the limits that HTTP libraries leave out. It returns bytes that were read
//! already first, and ends the connection if a head arrives too slowly or the client stops reading.
//! It finds out when a connection is idle: then only this socket of it is kept.
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

/// A longer first line is left to hyper, which refuses it.
const LONGEST_LINE: usize = 64 * 1024;

/// What every HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A socket that can be asked for unread bytes without reading them.
pub(super) trait ClientSocket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Ready with bytes, the end or an error, including what has arrived since the last read that
    /// found nothing.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Asks the kernel for unread bytes.
    fn has_unread_bytes(&self) -> bool;
}

impl ClientSocket for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn has_unread_bytes(&self) -> bool {
        has_bytes(self)
    }
}

impl ClientSocket for UnixStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn has_unread_bytes(&self) -> bool {
        has_bytes(self)
    }
}

fn has_bytes(socket: impl AsFd) -> bool {
    recv(socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT)
        .is_ok_and(|(count, _)| count > 0)
}

/// A socket of a client.
#[repr(align(64))]
pub(super) struct ClientIo<S> {
    socket: S,
    /// Read already, and returned before anything else.
    first: Bytes,
    reading: ReadClock,
    writing: Stall,
    /// Nothing was written since the last flush: hyper has no bytes left to write.
    flushed: bool,
    expected: Expected,
    /// The last bytes returned were the end of a head.
    at_end_of_head: bool,
}

/// What the next returned byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// Certainly the beginning of a head.
    Head,
    /// A request.
    Request,
    /// A request, or a head whose beginning was returned: only hyper knows which, and its
    /// connection is dismantled to find out.
    Unknown,
    /// Frames of HTTP/2.
    Frame,
}

/// Which time limit applies now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadPhase {
    /// A request is under way: no limit.
    BusyGuard,
    /// Between two requests.
    Idle,
    /// A head has begun.
    Head,
}

/// The clock of heads and of idle connections. One timer serves a connection for its whole life: it
/// is set again only when it fires, or when it would fire too late, so that a busy connection does
/// not touch it.
struct ReadClock {
    state: Arc<ConnectionState>,
    limits: ConnectionTimeouts,
    phase: ReadPhase,
    /// A head has begun, and its time limit is not running yet.
    clock_not_set: bool,
    /// When the time limit ends.
    due: Instant,
    timer: Pin<Box<Sleep>>,
}

impl ReadClock {
    fn new(state: Arc<ConnectionState>, limits: ConnectionTimeouts) -> Self {
        let due = Instant::now() + limits.head;
        Self {
            state,
            limits,
            phase: ReadPhase::Head,
            clock_not_set: false,
            due,
            timer: Box::pin(tokio::time::sleep_until(due)),
        }
    }

    fn head(&mut self) {
        (self.phase, self.clock_not_set) = (ReadPhase::Head, false);
        self.due = Instant::now() + self.limits.head;
    }

    /// Called after a read, which `got` something or nothing. Returns whether the client's time is
    /// over.
    fn is_late(&mut self, got: bool, flushed: bool, cx: &mut Context<'_>) -> bool {
        let phase = match (self.state.is_busy(), self.phase) {
            (true, _) => ReadPhase::BusyGuard,
            (false, ReadPhase::Head) => ReadPhase::Head,
            (false, _) if got => ReadPhase::Head,
            (false, _) => ReadPhase::Idle,
        };
        if got && phase != ReadPhase::BusyGuard {
            // Most heads arrive whole: then this is the last read before the request is under way,
            // and the clock is not read.
            self.clock_not_set |= self.phase != ReadPhase::Head;
            self.phase = phase;
            return false;
        }
        if phase != self.phase || self.clock_not_set {
            self.phase = phase;
            match phase {
                ReadPhase::BusyGuard => {}
                ReadPhase::Idle => self.due = Instant::now() + self.limits.idle,
                ReadPhase::Head => self.head(),
            }
            self.clock_not_set = false;
        }
        match phase {
            ReadPhase::BusyGuard => false,
            ReadPhase::Head => self.is_over(self.due, cx),
            ReadPhase::Idle => {
                // First the first part of the limit: after it the connection rests, and
                // `poll_next_request` waits for the second part.
                let rest = self.due - self.limits.idle.saturating_sub(self.limits.rest);
                let rests = flushed && self.is_over(rest, cx);
                self.state.rests.store(rests, Ordering::Relaxed);
                (rests || !flushed) && self.is_over(self.due, cx)
            }
        }
    }

    /// Whether this time has passed. If not, the task is woken when it has.
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
    /// An accepted connection; nothing is read yet.
    pub(super) fn new(socket: S, limits: ConnectionTimeouts) -> Self {
        let reading = ReadClock::new(Arc::default(), limits);
        let writing = Stall::new(limits.stall);
        Self {
            socket,
            first: Bytes::new(),
            reading,
            writing,
            flushed: true,
            expected: Expected::Head,
            at_end_of_head: false,
        }
    }

    /// The state shared with the code that serves its requests.
    pub(super) fn state(&self) -> Arc<ConnectionState> {
        self.reading.state.clone()
    }

    /// Reads the first bytes, as many as needed to tell HTTP/2 from HTTP/1; they are returned again
    /// later. `None`: the client closed without sending any.
    pub(super) async fn detect_protocol(&mut self) -> io::Result<Option<Protocol>> {
        let mut first = [0; PREFACE.len()];
        let mut len = 0;
        let protocol = loop {
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
        Ok(Some(protocol))
    }

    /// Lifts the limits for HTTP/2, where heads are frames among others and other limits apply.
    pub(super) fn lift_read_limits(&mut self) {
        let far = Duration::from_secs(u32::MAX.into());
        self.expected = Expected::Frame;
        self.reading.limits = ConnectionTimeouts {
            head: far,
            idle: far,
            rest: far,
            ..self.reading.limits
        };
        self.reading.head();
    }

    /// Takes back what was read and not used: the beginning of a head behind another request.
    /// `true`: the connection was dismantled only to learn that, and continues; it does not rest.
    pub(super) fn unread(&mut self, bytes: Bytes) -> bool {
        self.reading.state.rests.store(false, Ordering::Relaxed);
        let goes_on = std::mem::replace(&mut self.expected, Expected::Head) == Expected::Unknown;
        if !bytes.is_empty() {
            self.first = bytes;
            self.reading.head();
        }
        goes_on
    }

    /// Resolves when a resting connection has something to read. An error: the client's time is
    /// over.
    pub(super) fn poll_next_request(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match self.socket.poll_readable(cx) {
            Poll::Pending if self.reading.is_over(self.reading.due, cx) => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            readable => readable,
        }
    }

    /// Whether there are unread bytes, even if the reactor has not reported them.
    pub(super) fn has_unread_bytes(&self) -> bool {
        self.socket.has_unread_bytes()
    }

    fn after_write<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
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
    /// Returns what was read already, else what the socket has, within the limits.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let now = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first[..now]);
            self.first.advance(now);
            if self.first.is_empty() {
                // The buffer that it was part of may be large.
                self.first = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        let got = buf.filled().len() > before;
        if self.reading.is_late(got, self.flushed, cx) && !got {
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        } else {
            read
        }
    }

    /// Reads a head: its first line is returned once it is complete, with a target that hyper can
    /// parse.
    fn poll_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        // Joins a first line whose beginning has arrived with what follows.
        let mut line = BytesMut::from(std::mem::take(&mut self.first));
        let read = self.poll_bytes(cx, buf);
        let got = buf.filled().len() > before;
        if !line.is_empty() {
            line.extend_from_slice(&buf.filled()[before..]);
            buf.set_filled(before);
        }
        let head = if line.is_empty() {
            &buf.filled()[before..]
        } else {
            &line[..]
        };
        match first_line(head) {
            FirstLine::Partial if head.len() < LONGEST_LINE && (got || read.is_pending()) => {
                self.first = if line.is_empty() {
                    Bytes::copy_from_slice(head)
                } else {
                    line.freeze()
                };
                buf.set_filled(before);
                if got {
                    // There may be more to read, and only the socket would wake this task.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                return read;
            }
            FirstLine::Partial | FirstLine::Plain => self.first = line.freeze(),
            FirstLine::Escaped {
                line: escaped,
                replaces,
                raw,
            } => {
                self.reading.state.put_target(raw);
                self.first = [&escaped[..], &head[replaces..]].concat().into();
                buf.set_filled(before);
            }
        }
        if self.first.is_empty() && !got {
            return read;
        }
        self.expected = Expected::Request;
        if self.first.is_empty() {
            read
        } else {
            self.poll_bytes(cx, buf)
        }
    }

    /// Notes that a request has ended, because another head is awaited. The position is certain if
    /// the request was a head and nothing else.
    fn note_request_end(&mut self) {
        if self.expected == Expected::Request
            && self
                .reading
                .state
                .request_began
                .swap(false, Ordering::Relaxed)
        {
            self.expected = if self.at_end_of_head {
                Expected::Head
            } else {
                Expected::Unknown
            };
        }
    }
}

impl<S: ClientSocket> AsyncRead for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let busy = this.reading.state.is_busy();
        if !busy {
            this.note_request_end();
        }
        let before = buf.filled().len();
        let read = match this.expected {
            Expected::Head if !busy => this.poll_head(cx, buf),
            Expected::Unknown if !busy && this.flushed => {
                this.reading.state.rests.store(true, Ordering::Relaxed);
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
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.after_write(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match CoalesceBuffer::new().coalesce(bufs) {
            Some(one) => Pin::new(&mut self.socket).poll_write(cx, one),
            None => Pin::new(&mut self.socket).poll_write_vectored(cx, bufs),
        };
        self.after_write(written, cx)
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
