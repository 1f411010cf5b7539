//! The body that a client sends, with its limits, on its way to an instance.
//!
//! A frame is read when the instance can take one. Only the first part of a body that arrives
//! slowly is gathered before it is sent.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::held::HeldBody;
use super::patience::Patience;
use crate::host::spool::Spool;

/// Why a client's body was not forwarded completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// Longer than allowed.
    TooLarge,
    /// The client sent nothing for too long.
    Stalled,
    /// The client's connection broke, or sent invalid HTTP.
    Client,
}

impl BodyFault {
    const ALL: [Self; 3] = [Self::TooLarge, Self::Stalled, Self::Client];
}

/// Set at most once, by the body; read by the task that waits for the response.
#[derive(Debug, Clone, Default)]
pub struct FaultFlag(Option<Arc<AtomicU8>>);

impl FaultFlag {
    /// The fault of the body, if any.
    #[must_use]
    pub fn get(&self) -> Option<BodyFault> {
        let raised = self.0.as_ref()?.load(Ordering::Acquire);
        BodyFault::ALL
            .into_iter()
            .find(|fault| *fault as u8 + 1 == raised)
    }

    fn raise(&self, fault: BodyFault) -> io::Error {
        if let Some(flag) = &self.0 {
            flag.store(fault as u8 + 1, Ordering::Release);
        }
        io::Error::other("the client's body was cut")
    }
}

/// Takes over a body that was not read to its end.
pub type Leftover = Box<dyn FnOnce(Incoming) + Send + Sync>;

/// A client's body on its way to an instance: limited in length and in the time between two frames.
/// `None` if there is no body: a request is moved several times, and most have none.
pub struct SendBody(Option<Box<Sending>>);

/// Most bytes of one body that are kept on disk: the default of `edge.max_body`.
const MOST: u64 = 64 << 20;
/// A body that arrived with its head is complete after this many polls: one to request it, and one
/// for its end.
const TURNS: u8 = 2;

struct Sending {
    /// `None` only while it is dropped.
    incoming: Option<Incoming>,
    /// No more frames follow.
    ended: bool,
    /// The client was asked for it, or sends it without being asked.
    asked: bool,
    leftover: Option<Leftover>,
    left: u64,
    patience: Patience,
    flag: FaultFlag,
    held: HeldBody,
    /// The part that follows, on disk.
    spooled: Option<Spooled>,
}

impl fmt::Debug for SendBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendBody").field(&self.size_hint()).finish()
    }
}

impl SendBody {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self(None)
    }

    /// The body of a client: at most `max` bytes, and at most `patience` between two frames.
    #[must_use]
    pub fn new(incoming: Incoming, max: u64, patience: Duration) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        let flag = FaultFlag(Some(Arc::new(AtomicU8::new(0))));
        let patience = Patience::new(patience);
        let (incoming, held) = (Some(incoming), HeldBody::default());
        Self(Some(Box::new(Sending {
            incoming,
            ended: false,
            asked: true,
            leftover: None,
            left: max,
            patience,
            flag,
            held,
            spooled: None,
        })))
    }

    /// Passes the rest to `leftover` if the body is dropped before its end, because the instance
    /// responded without reading it. `expects`: the client waits for `100 Continue`; if that was
    /// never sent, there is no rest.
    #[must_use]
    pub fn leaving(mut self, expects: bool, leftover: impl FnOnce() -> Leftover) -> Self {
        if let Some(this) = self.0.as_mut() {
            (this.asked, this.leftover) = (!expects, Some(leftover()));
        }
        self
    }

    /// Reads what has arrived of the body: `true` if that is all of it, or about `bytes`. That is
    /// the usual case, and no clock is read.
    ///
    /// # Errors
    /// The fault of the body.
    pub async fn gather_at_once(&mut self, bytes: usize) -> Result<bool, BodyFault> {
        let mut turns = 0;
        poll_fn(|cx| match self.poll_gather(cx, bytes, false) {
            Poll::Pending if turns == TURNS => Poll::Ready(Ok(false)),
            Poll::Pending => {
                turns += 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(done) => Poll::Ready(done.map(|()| true)),
        })
        .await
    }

    /// Reads the body to its end, or about `bytes`: an application that serves one request at a
    /// time must not wait for a slow client. May be dropped and called again.
    ///
    /// # Errors
    /// The fault of the body.
    pub async fn gather(&mut self, bytes: usize) -> Result<(), BodyFault> {
        if let Some(this) = self.0.as_mut() {
            this.held.count();
        }
        poll_fn(|cx| self.poll_gather(cx, bytes, true)).await
    }

    /// Whether all of it was read.
    #[must_use]
    pub fn is_gathered(&self) -> bool {
        self.0.as_ref().is_none_or(|this| this.is_at_end())
    }

    /// Reads what follows the gathered part into a file below `folder`, as far as there is room.
    /// Call it once.
    ///
    /// # Errors
    /// The fault of the body.
    pub async fn spool(&mut self, folder: &Path) -> Result<(), BodyFault> {
        let Some(this) = self.0.as_mut().filter(|this| !this.is_at_end()) else {
            return Ok(());
        };
        let (mut spool, mut trailers) = (Spool::new(folder.to_owned(), MOST), None);
        while spool.has_room() && !this.is_at_end() {
            match poll_fn(|cx| this.poll_incoming(cx, true)).await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => spool.push(data).await,
                    Err(frame) => {
                        trailers = Some(frame);
                        break;
                    }
                },
                Some(Err(_)) => return Err(this.flag.get().unwrap_or(BodyFault::Client)),
                None => break,
            }
        }
        this.spooled = Some(Spooled {
            left: spool.len(),
            reading: SpoolRead::Idle(spool),
            trailers,
        });
        Ok(())
    }

    fn poll_gather(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
        timed: bool,
    ) -> Poll<Result<(), BodyFault>> {
        let Some(this) = self.0.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        while this.held.wants(bytes) && !this.is_at_end() {
            match ready!(this.poll_incoming(cx, timed)) {
                Some(Ok(frame)) => this.held.push(frame),
                Some(Err(_)) => {
                    return Poll::Ready(Err(this.flag.get().unwrap_or(BodyFault::Client)));
                }
                None => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reports later why the body was cut.
    #[must_use]
    pub fn fault(&self) -> FaultFlag {
        self.0
            .as_ref()
            .map(|sending| sending.flag.clone())
            .unwrap_or_default()
    }
}

impl Body for SendBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(this) = self.0.as_mut() else {
            return Poll::Ready(None);
        };
        if let Some(frame) = this.held.pop() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(spooled) = this.spooled.as_mut() {
            if let Some(frame) = ready!(spooled.poll_frame(cx)) {
                return Poll::Ready(Some(frame));
            }
            this.spooled = None;
        }
        this.poll_incoming(cx, true)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|sending| {
            sending.held.is_empty() && sending.spooled.is_none() && sending.is_at_end()
        })
    }

    fn size_hint(&self) -> SizeHint {
        let Some(this) = &self.0 else {
            return SizeHint::with_exact(0);
        };
        let rest = this
            .incoming
            .as_ref()
            .map(Incoming::size_hint)
            .unwrap_or_default();
        // A body with trailers is sent in chunks, so its length must not be announced.
        let (spooled, is_data) = this.spooled.as_ref().map_or((0, true), |spooled| {
            (spooled.left, spooled.trailers.is_none())
        });
        let exact = rest.exact().filter(|_| is_data && this.held.is_data());
        exact.map_or_else(SizeHint::default, |rest| {
            SizeHint::with_exact(rest + spooled + this.held.bytes() as u64)
        })
    }
}

/// The part of a body that is in a file.
struct Spooled {
    left: u64,
    reading: SpoolRead,
    trailers: Option<Frame<Bytes>>,
}

enum SpoolRead {
    Idle(Spool),
    Busy(Pin<Box<dyn Future<Output = (Spool, io::Result<Bytes>)> + Send + Sync>>),
    Over,
}

impl Spooled {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            self.reading = match std::mem::replace(&mut self.reading, SpoolRead::Over) {
                SpoolRead::Idle(spool) if spool.is_empty() => SpoolRead::Over,
                SpoolRead::Idle(mut spool) => SpoolRead::Busy(Box::pin(async move {
                    let bytes = spool.pop().await;
                    (spool, bytes)
                })),
                SpoolRead::Busy(mut reading) => match reading.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.reading = SpoolRead::Busy(reading);
                        return Poll::Pending;
                    }
                    Poll::Ready((spool, bytes)) => {
                        self.reading = SpoolRead::Idle(spool);
                        self.left -= bytes.as_ref().map_or(0, Bytes::len) as u64;
                        return Poll::Ready(Some(bytes.map(Frame::data)));
                    }
                },
                SpoolRead::Over => return Poll::Ready(self.trailers.take().map(Ok)),
            };
        }
    }
}

impl Sending {
    fn is_at_end(&self) -> bool {
        self.ended || self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    /// `timed`: the client's time limit runs during this wait.
    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
        timed: bool,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(incoming) = self.incoming.as_mut() else {
            return Poll::Ready(None);
        };
        self.asked = true;
        let frame = match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending if !timed => return Poll::Pending,
            Poll::Pending => {
                ready!(self.patience.poll_over(cx));
                return Poll::Ready(Some(Err(self.flag.raise(BodyFault::Stalled))));
            }
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let size = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.patience.moved(size);
                match self.left.checked_sub(size) {
                    Some(left) => {
                        self.left = left;
                        Some(Ok(frame))
                    }
                    None => Some(Err(self.flag.raise(BodyFault::TooLarge))),
                }
            }
            Some(Err(_)) => {
                self.ended = true;
                Some(Err(self.flag.raise(BodyFault::Client)))
            }
            None => {
                self.ended = true;
                None
            }
        })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.asked
            && !self.is_at_end()
            && let (Some(incoming), Some(leftover)) = (self.incoming.take(), self.leftover.take())
        {
            leftover(incoming);
        }
    }
}

/// Detects that nothing was transferred for too long. The timer is made at the first wait, and
/// reset only when it fires: a busy transfer does not touch it.
#[derive(Debug)]
pub struct Stall {
    patience: Duration,
    waits: Option<Waits>,
}

#[derive(Debug)]
struct Waits {
    /// When something was last transferred.
    last: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Stall {
    /// The limit for a pause.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            waits: None,
        }
    }

    /// Stops the clock: nothing is awaited any more.
    pub fn rest(&mut self) {
        self.waits = None;
    }

    /// Ready once nothing was transferred for too long.
    pub fn poll_waited(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.patience == Duration::MAX {
            return Poll::Pending;
        }
        let waits = self.waits.get_or_insert_with(|| {
            let last = Instant::now();
            Waits {
                last,
                timer: Box::pin(tokio::time::sleep_until(last + self.patience)),
            }
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
