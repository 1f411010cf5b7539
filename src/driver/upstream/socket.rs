//! The socket to an instance, as hyper uses it. It writes the target of a request as the client
//! sent it, and reads a response even if the instance has stopped reading the request.
//!
//! It decides nothing about requests or connections.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::local::Local;
use super::target::RawTarget;
use crate::host::coalesce::CoalesceBuffer;

/// The socket.
pub struct Io {
    stream: InstanceStream,
    shared: Arc<SocketState>,
    /// The rewritten first line of a request, as far as it is not written yet.
    line: Option<LineRewrite>,
    /// The instance has closed its side: further writes are dropped.
    closed: bool,
}

pub(super) enum InstanceStream {
    Unix(Local),
    Tcp(TcpStream),
}

/// State shared by a connection's owner and its socket.
#[derive(Default)]
pub(super) struct SocketState {
    /// A read only asks the kernel whether the peer has closed.
    ask: AtomicBool,
    /// Something was read.
    heard: AtomicBool,
    has_target: AtomicBool,
    target: Mutex<Option<RawTarget>>,
}

struct LineRewrite {
    left: Bytes,
    /// How many of hyper's bytes it replaces.
    replaces: usize,
}

impl SocketState {
    /// Begins a request; `target`: the target in its first line, if hyper cannot write it.
    pub(super) fn begin(&self, target: Option<&RawTarget>) {
        self.heard.store(false, Ordering::Relaxed);
        if let Some(target) = target {
            *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target.clone());
            self.has_target.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a response has begun.
    pub(super) fn was_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// While `asks` is set, a read only asks the kernel whether the peer has closed.
    pub(super) fn asks(&self, asks: bool) {
        self.ask.store(asks, Ordering::Relaxed);
    }
}

impl Io {
    pub(super) fn new(stream: InstanceStream, shared: Arc<SocketState>) -> Self {
        Self {
            stream,
            shared,
            line: None,
            closed: false,
        }
    }

    /// Whether the kernel knows now that the peer has closed.
    fn is_closed(&self) -> bool {
        let mut byte = [0u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let got = match &self.stream {
            InstanceStream::Unix(s) => rustix::net::recv(s, &mut byte, flags),
            InstanceStream::Tcp(s) => rustix::net::recv(s, &mut byte, flags),
        };
        // Unrequested bytes make a parked connection as useless as its end.
        !matches!(got, Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            InstanceStream::Unix(s) => Pin::new(s).poll_write(cx, buf),
            InstanceStream::Tcp(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    /// An instance may respond before it has read the whole request, and close (401, 413). The
    /// response waits in the socket: so a failed write is no error, and the next read reports the
    /// result.
    fn sent(&mut self, sent: Poll<io::Result<usize>>, all: usize) -> Poll<io::Result<usize>> {
        match sent {
            Poll::Ready(Err(e)) if is_closing(&e) => {
                self.closed = true;
                Poll::Ready(Ok(all))
            }
            other => other,
        }
    }

    /// Writes the first line of a request with the target as the client sent it.
    fn poll_line(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.line.is_none() {
            let target = self
                .shared
                .target
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let Some((left, replaces)) = target.and_then(|target| target.in_line(buf)) else {
                return Poll::Ready(Err(io::Error::other(
                    "the first line of a request is not whole",
                )));
            };
            self.line = Some(LineRewrite { left, replaces });
        }
        while let Some(mut line) = self.line.take() {
            if line.left.is_empty() {
                self.shared.has_target.store(false, Ordering::Relaxed);
                return Poll::Ready(Ok(line.replaces));
            }
            let sent = self.poll_send(cx, &line.left);
            let sent = self.sent(sent, line.left.len());
            if let Poll::Ready(Ok(count)) = sent {
                line.left.advance(count);
            }
            self.line = Some(line);
            ready!(sent)?;
        }
        Poll::Ready(Ok(0))
    }
}

fn is_closing(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // tokio notices an end only at its next poll of epoll; a parked connection is checked in
        // between.
        if self.shared.ask.load(Ordering::Relaxed) {
            return if self.is_closed() {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
        }
        let before = buf.filled().len();
        let read = match &mut self.stream {
            InstanceStream::Unix(s) => Pin::new(s).poll_read(cx, buf),
            InstanceStream::Tcp(s) => Pin::new(s).poll_read(cx, buf),
        };
        if buf.filled().len() > before {
            self.shared.heard.store(true, Ordering::Relaxed);
        }
        match read {
            // After a response, the kernel reports "closed without reading all of the request" in
            // this way.
            Poll::Ready(Err(e)) if is_closing(&e) && self.shared.was_heard() => Poll::Ready(Ok(())),
            read => read,
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.shared.has_target.load(Ordering::Relaxed) {
            return self.poll_line(cx, buf);
        }
        if self.closed {
            return Poll::Ready(Ok(buf.len()));
        }
        let sent = self.poll_send(cx, buf);
        self.sent(sent, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.shared.has_target.load(Ordering::Relaxed)
            && let Some(first) = bufs.iter().find(|buf| !buf.is_empty())
        {
            return self.poll_line(cx, first);
        }
        let all = bufs.iter().map(|buf| buf.len()).sum();
        if self.closed {
            return Poll::Ready(Ok(all));
        }
        let sent = match CoalesceBuffer::new().coalesce(bufs) {
            Some(one) => self.poll_send(cx, one),
            None => match &mut self.stream {
                InstanceStream::Unix(s) => Pin::new(s).poll_write_vectored(cx, bufs),
                InstanceStream::Tcp(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            },
        };
        self.sent(sent, all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // sockets have no buffer of their own to flush
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            InstanceStream::Unix(s) => Pin::new(s).poll_shutdown(cx),
            InstanceStream::Tcp(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
