//! A client's socket with the limits that HTTP libraries leave out: the first bytes already read are given out first, a
//! head that trickles in is cut, and so is a client that has stopped reading.
//!
//! It never limits how long a request may take.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::driver::upstream::Stall;

/// What every HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The time limits of a client's connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From the first byte of a head to its last.
    pub(super) head: Duration,
    /// Between two requests on one connection.
    pub(super) idle: Duration,
    /// A client may stop reading for this long.
    pub(super) stall: Duration,
}

/// A socket of a client.
pub(super) struct ClientIo<S> {
    socket: S,
    first: [u8; PREFACE.len()],
    first_len: usize,
    first_at: usize,
    reading: Reading,
    writing: Stall,
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
    /// Requests under way on this connection.
    open: Arc<AtomicU32>,
    limits: Limits,
    phase: Phase,
    due: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Reading {
    fn new(open: Arc<AtomicU32>, limits: Limits) -> Self {
        let due = Instant::now() + limits.head;
        Self { open, limits, phase: Phase::Head, due, timer: Box::pin(tokio::time::sleep_until(due)) }
    }

    /// After a look at the socket: `got` something or nothing. Says whether the client's time is up.
    fn is_late(&mut self, got: bool, cx: &mut Context<'_>) -> bool {
        let phase = match (self.open.load(Ordering::Acquire) > 0, self.phase) {
            (true, _) => Phase::Busy,
            (false, Phase::Head) => Phase::Head,
            (false, _) if got => Phase::Head,
            (false, _) => Phase::Idle,
        };
        if phase != self.phase {
            self.phase = phase;
            match phase {
                Phase::Busy => {}
                Phase::Idle => self.due = Instant::now() + self.limits.idle,
                Phase::Head => self.due = Instant::now() + self.limits.head,
            }
        }
        if phase == Phase::Busy {
            return false;
        }
        if self.timer.deadline() > self.due {
            self.timer.as_mut().reset(self.due);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= self.due {
                return true;
            }
            self.timer.as_mut().reset(self.due);
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

impl<S: AsyncRead + AsyncWrite + Unpin> ClientIo<S> {
    /// Reads the first bytes, as many as it takes to tell HTTP/2 from HTTP/1. `Ok(None)`: it closed without a word.
    pub(super) async fn begin(mut socket: S, limits: Limits, open: Arc<AtomicU32>) -> io::Result<Option<(Self, Speaks)>> {
        let mut first = [0; PREFACE.len()];
        let mut len = 0;
        let speaks = loop {
            let got = socket.read(&mut first[len..]).await?;
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
        let reading = Reading::new(open, limits);
        let writing = Stall::new(limits.stall);
        Ok(Some((Self { socket, first, first_len: len, first_at: 0, reading, writing }, speaks)))
    }

    /// On HTTP/2 heads are frames among others, and its own limits hold.
    pub(super) fn without_read_limits(mut self) -> Self {
        let far = Duration::from_secs(u32::MAX.into());
        self.reading = Reading::new(self.reading.open, Limits { head: far, idle: far, ..self.reading.limits });
        self
    }

    fn wrote<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.first_at < this.first_len {
            let rest = &this.first[this.first_at..this.first_len];
            let now = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..now]);
            this.first_at += now;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buf);
        let got = buf.filled().len() > before;
        if this.reading.is_late(got, cx) && !got { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { read }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.wrote(written, cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.wrote(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
