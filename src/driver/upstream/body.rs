//! The two bodies of a forwarded request: what the client sends (with its limits) and what the instance answers.
//!
//! Neither is ever collected in memory: a frame is read when the other side can take one.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::link::{Io, Link};

/// Why a client's body was not sent to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// Longer than allowed.
    TooLarge,
    /// The client sent nothing for too long.
    Stalled,
    /// The client's connection broke, or what it sent is not HTTP.
    Client,
}

impl BodyFault {
    const ALL: [Self; 3] = [Self::TooLarge, Self::Stalled, Self::Client];
}

/// Set at most once by the body, read by whoever waits for the answer.
#[derive(Debug, Clone, Default)]
pub struct FaultFlag(Option<Arc<AtomicU8>>);

impl FaultFlag {
    /// What went wrong with the body, if anything.
    #[must_use]
    pub fn get(&self) -> Option<BodyFault> {
        let raised = self.0.as_ref()?.load(Ordering::Acquire);
        BodyFault::ALL.into_iter().find(|fault| *fault as u8 + 1 == raised)
    }

    fn raise(&self, fault: BodyFault) -> io::Error {
        if let Some(flag) = &self.0 {
            flag.store(fault as u8 + 1, Ordering::Release);
        }
        io::Error::other("the client's body was cut")
    }
}

/// A client's body on its way to an instance: bounded in length, and in the time between two pieces. `None` when there is no
/// body: a request is moved about several times on its way, and most have none.
#[derive(Debug)]
pub struct SendBody(Option<Box<Sending>>);

#[derive(Debug)]
struct Sending {
    incoming: Incoming,
    left: u64,
    stall: Stall,
    flag: FaultFlag,
}

impl SendBody {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self(None)
    }

    /// The body of a client: at most `max` bytes, at most `patience` between two pieces.
    #[must_use]
    pub fn new(incoming: Incoming, max: u64, patience: Duration) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        let flag = FaultFlag(Some(Arc::new(AtomicU8::new(0))));
        Self(Some(Box::new(Sending { incoming, left: max, stall: Stall::new(patience), flag })))
    }

    /// Tells later why the body was cut.
    #[must_use]
    pub fn fault(&self) -> FaultFlag {
        self.0.as_ref().map(|sending| sending.flag.clone()).unwrap_or_default()
    }
}

impl Body for SendBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(this) = self.0.as_mut() else { return Poll::Ready(None) };
        let frame = match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(this.stall.poll_waited(cx));
                return Poll::Ready(Some(Err(this.flag.raise(BodyFault::Stalled))));
            }
        };
        this.stall.moved();
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let size = frame.data_ref().map_or(0, |data| data.len() as u64);
                match this.left.checked_sub(size) {
                    Some(left) => {
                        this.left = left;
                        Some(Ok(frame))
                    }
                    None => Some(Err(this.flag.raise(BodyFault::TooLarge))),
                }
            }
            Some(Err(_)) => Some(Err(this.flag.raise(BodyFault::Client))),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|sending| sending.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |sending| sending.incoming.size_hint())
    }
}

/// The body of an answer. Reading it drives the connection; at its end the connection goes back to its pool. Dropped before
/// its end, the connection is closed and the instance notices.
pub struct ReceiveBody {
    body: Incoming,
    link: Option<Box<Link>>,
}

impl ReceiveBody {
    pub(super) fn new(body: Incoming, link: Option<Box<Link>>) -> Self {
        Self { body, link }
    }

    /// After a 101: the socket to the instance and what was read from it already.
    ///
    /// # Errors
    /// The connection ended meanwhile.
    pub async fn upgrade(self) -> io::Result<(Io, Bytes)> {
        match self.link {
            Some(link) => link.into_io().await,
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn end(&mut self, cx: &mut Context<'_>) {
        if let Some(mut link) = self.link.take() {
            link.drive(cx);
            link.settle();
        }
    }
}

impl Body for ReceiveBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut frame = Pin::new(&mut this.body).poll_frame(cx);
        if frame.is_pending()
            && let Some(link) = this.link.as_mut()
        {
            link.drive(cx);
            frame = Pin::new(&mut this.body).poll_frame(cx);
        }
        match &frame {
            Poll::Ready(Some(Ok(_))) if !this.body.is_end_stream() => {}
            Poll::Ready(Some(Ok(_)) | None) => this.end(cx),
            Poll::Ready(Some(Err(_))) => this.link = None,
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Notices that nothing moved for too long. The timer is made only when something has to be waited for, and set again only
/// when it fires: a busy transfer does not touch it.
#[derive(Debug)]
pub struct Stall {
    patience: Duration,
    waits: Option<Waits>,
}

#[derive(Debug)]
struct Waits {
    /// When something moved last.
    last: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Stall {
    /// Nothing may stand still for longer than `patience`.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self { patience, waits: None }
    }

    /// Something moved.
    pub fn moved(&mut self) {
        if let Some(waits) = &mut self.waits {
            waits.last = Instant::now();
        }
    }

    /// There is nothing to wait for any more.
    pub fn rest(&mut self) {
        self.waits = None;
    }

    /// Ready once nothing has moved for too long.
    pub fn poll_waited(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.patience == Duration::MAX {
            return Poll::Pending;
        }
        let waits = self.waits.get_or_insert_with(|| {
            let last = Instant::now();
            Waits { last, timer: Box::pin(tokio::time::sleep_until(last + self.patience)) }
        });
        loop {
            ready!(waits.timer.as_mut().poll(cx));
            let due = waits.last + self.patience;
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            waits.timer.as_mut().reset(due);
        }
    }
}
