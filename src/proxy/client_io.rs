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
    /// Requests under way on this connection.
    open: Arc<AtomicU32>,
    head: Duration,
    head_due: Option<Pin<Box<Sleep>>>,
    writing: Stall,
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
        let head_due = (speaks == Speaks::Http1).then(|| Box::pin(tokio::time::sleep(limits.head)));
        let writing = Stall::new(limits.stall);
        Ok(Some((Self { socket, first, first_len: len, first_at: 0, open, head: limits.head, head_due, writing }, speaks)))
    }

    /// Between requests the first byte starts the clock of a head; a request under way stops it.
    fn watch_head(&mut self, got: bool, cx: &mut Context<'_>) -> io::Result<()> {
        if self.head == Duration::MAX {
            return Ok(());
        }
        if self.open.load(Ordering::Acquire) > 0 {
            self.head_due = None;
        } else if got {
            self.head_due.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + self.head)));
        }
        match self.head_due.as_mut().map(|due| due.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Err(io::ErrorKind::TimedOut.into()),
            Some(Poll::Pending) | None => Ok(()),
        }
    }

    /// On HTTP/2 heads are frames among others; its own limits hold.
    pub(super) fn without_head_limit(mut self) -> Self {
        self.head = Duration::MAX;
        self.head_due = None;
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
        match this.watch_head(got, cx) {
            Err(late) if !got => Poll::Ready(Err(late)),
            _ => read,
        }
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
