//! An upgraded connection (usually a WebSocket): copies bytes both ways until both sides have
//! ended. It holds the ticket all the while, or, with `idle.silent_connections`, as long as there
//! is traffic.
//!
//! Once one side has ended, the other has a few seconds: otherwise a client or an application that
//! never closes would count as use for ever.
//!
//! When the instance is stopped, the connection is ended between two messages, and both sides get a
//! close frame.
//!
//! It never reads messages, and never ends a connection because it is silent.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional_with_sizes,
};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::access_log::AccessLine;
use super::websocket_frames::{CLIENT_GOES_AWAY, Frames, GOING_AWAY};
use crate::domain::name::HostName;
use crate::domain::rule::Verdict;
use crate::driver::upstream::{Io, ReceiveBody, Upstreams};
use crate::service::admission::{Admission, Admitted, Ticket};

/// Bytes buffered per direction.
const BUFFER: usize = 16 * 1024;
/// How long one side may continue after the other has ended. nginx ends both at once.
const LINGER: Duration = Duration::from_secs(3);
/// Time limit to finish a frame, and for a client to answer the close frame.
const CLOSING: Duration = Duration::from_secs(1);

/// When a connection stops counting as use, and what it takes to count again.
pub(super) struct SilenceLimit {
    pub(super) limit: Duration,
    pub(super) admission: Arc<dyn Admission>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) host: HostName,
    pub(super) verdict: Verdict,
}

/// How a connection counts as use of its instance.
pub(super) struct InstanceUse {
    ticket: Box<dyn Ticket>,
    silence: Option<SilenceLimit>,
    traffic: Arc<Traffic>,
}

/// Counts reads and writes, and reports them.
struct Traffic {
    began: Instant,
    moves: AtomicU64,
    /// When bytes were last copied: ms since the start.
    last: AtomicU64,
    moved: Notify,
    /// One side has ended, and the other was shut down.
    ended: Notify,
}

impl Traffic {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            moves: AtomicU64::new(0),
            last: AtomicU64::new(0),
            moved: Notify::new(),
            ended: Notify::new(),
        }
    }

    fn note(&self) {
        self.last.store(
            u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            Ordering::Release,
        );
        self.moves.fetch_add(1, Ordering::AcqRel);
        self.moved.notify_one();
    }

    /// For how long no bytes were copied.
    fn silent_for(&self) -> Duration {
        self.began
            .elapsed()
            .saturating_sub(Duration::from_millis(self.last.load(Ordering::Acquire)))
    }
}

impl InstanceUse {
    pub(super) fn new(ticket: Box<dyn Ticket>, silence: Option<SilenceLimit>) -> Self {
        Self {
            ticket,
            silence,
            traffic: Arc::new(Traffic::new()),
        }
    }

    /// Holds the ticket, and releases it while the connection is silent. Never resolves.
    async fn hold(ticket: Box<dyn Ticket>, silence: Option<SilenceLimit>, traffic: Arc<Traffic>) {
        let Some(silence) = silence else {
            return std::future::pending().await;
        };
        let mut ticket = Some(ticket);
        loop {
            match ticket {
                Some(held) => {
                    let before = silence.until_silent(&traffic).await;
                    // Counted as silent before the ticket is dropped: for a moment it is both,
                    // which counts too much and never too little.
                    let counted_as_silent = silence.upstreams.silent(held.gate());
                    drop(held);
                    while traffic.moves.load(Ordering::Acquire) == before {
                        traffic.moved.notified().await;
                    }
                    drop(counted_as_silent);
                }
                // The instance is being stopped; the kernel's count includes this connection
                // anyway.
                None => traffic.moved.notified().await,
            }
            ticket = silence.admit_again().await;
        }
    }
}

impl SilenceLimit {
    /// Resolves after the limit without traffic; returns the count of traffic until then.
    async fn until_silent(&self, traffic: &Traffic) -> u64 {
        loop {
            let moves = traffic.moves.load(Ordering::Acquire);
            match self.limit.checked_sub(traffic.silent_for()) {
                Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
                _ => return moves,
            }
        }
    }

    /// Gets another ticket to the same instance.
    async fn admit_again(&self) -> Option<Box<dyn Ticket>> {
        match self.admission.admit(&self.host, self.verdict).await {
            Ok(Admitted::Open(ticket)) => Some(ticket),
            Ok(Admitted::Wait(mut waiting)) => {
                timeout(self.limit, waiting.admitted()).await.ok()?.ok()
            }
            Err(_) => None,
        }
    }
}

/// Copies until the connection ends, its instance is stopped, or `cut`.
pub(super) async fn run(
    client: OnUpgrade,
    instance: ReceiveBody,
    instance_use: InstanceUse,
    line: Option<Box<AccessLine>>,
    cut: CancellationToken,
) {
    let InstanceUse {
        ticket,
        silence,
        traffic,
    } = instance_use;
    let (counts, ends, stops) = (silence.is_some(), traffic.clone(), ticket.streams_end());
    let must_end = async {
        tokio::select! {
            () = stops.cancelled() => {}
            () = cut.cancelled() => {}
        }
    };
    let copied = tokio::select! {
        copied = copy_both_ways(client, instance, &ends, counts, must_end) => copied,
        () = until_lingered(&ends) => return,
        () = InstanceUse::hold(ticket, silence, traffic) => return,
    };
    // The ticket was dropped: the rest concerns only the client.
    match copied {
        Ok(copied) => {
            if let Some(mut line) = line {
                line.sent = copied.sent;
            }
            if let Some(client) = copied.to_close {
                let _ = timeout(CLOSING, client.close()).await;
            }
        }
        Err(error) => tracing::debug!(%error, "an upgraded connection broke"),
    }
}

/// Resolves when one side ended long enough ago.
async fn until_lingered(traffic: &Traffic) {
    traffic.ended.notified().await;
    tokio::time::sleep(LINGER).await;
}

/// How copying ended.
struct CopyResult {
    /// Bytes to the client.
    sent: u64,
    /// The client, if acc ends the connection and must send it a close frame.
    to_close: Option<TrackedIo<TokioIo<Upgraded>>>,
}

async fn copy_both_ways(
    client: OnUpgrade,
    instance: ReceiveBody,
    traffic: &Arc<Traffic>,
    counts: bool,
    must_end: impl Future<Output = ()>,
) -> io::Result<CopyResult> {
    let (instance, early): (Io, Bytes) = instance.upgrade().await?;
    let (up, down) = (
        Arc::new(Direction::default()),
        Arc::new(Direction::default()),
    );
    let mut instance = TrackedIo {
        io: instance,
        traffic: traffic.clone(),
        counts,
        from: down.clone(),
        to: up.clone(),
    };
    let client = TokioIo::new(client.await.map_err(io::Error::other)?);
    let mut client = TrackedIo {
        io: client,
        traffic: traffic.clone(),
        counts: false,
        from: up.clone(),
        to: down.clone(),
    };
    // What the instance sent right after its response was read together with it.
    down.read(&early);
    client.write_all(&early).await?;
    let mut copying = Box::pin(copy_bidirectional_with_sizes(
        &mut client,
        &mut instance,
        BUFFER,
        BUFFER,
    ));
    tokio::select! {
        copied = copying.as_mut() => {
            let (_, sent) = copied?;
            return Ok(CopyResult { sent: sent + early.len() as u64, to_close: None });
        }
        () = must_end => {}
    }
    let ended = timeout(CLOSING, until_between(copying.as_mut(), &up, &down)).await;
    drop(copying);
    if let Ok(ended) = ended {
        ended?;
        // No frame is incomplete any more. The instance may have ended already.
        if !up.is_closed() {
            let _ = timeout(CLOSING, instance.io.write_all(&CLIENT_GOES_AWAY)).await;
        }
    }
    let to_close = (down.is_between() && !down.is_closed()).then_some(client);
    Ok(CopyResult {
        sent: down.written(),
        to_close,
    })
}

/// Continues until no frame is incomplete in either direction, and begins no other one.
async fn until_between<C>(
    mut copying: Pin<&mut C>,
    up: &Direction,
    down: &Direction,
) -> io::Result<()>
where
    C: Future<Output = io::Result<(u64, u64)>>,
{
    up.hold();
    down.hold();
    poll_fn(|cx| match copying.as_mut().poll(cx) {
        Poll::Ready(copied) => Poll::Ready(copied.map(|_| ())),
        Poll::Pending if up.is_between() && down.is_between() => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// One direction: what was read on one side, and written on the other.
#[derive(Debug, Default)]
struct Direction(Mutex<Passed>);

#[derive(Debug, Default)]
struct Passed {
    frames: Frames,
    read: u64,
    written: u64,
    /// No frame is read after the current one.
    held: bool,
}

impl Direction {
    fn passed(&self) -> MutexGuard<'_, Passed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, bytes: &[u8]) {
        let mut passed = self.passed();
        passed.frames.take(bytes);
        passed.read += bytes.len() as u64;
    }

    fn wrote(&self, bytes: usize) {
        self.passed().written += bytes as u64;
    }

    fn hold(&self) {
        self.passed().held = true;
    }

    /// How much may be read now: once `held` is set, not into the next frame.
    fn may_read(&self) -> usize {
        let passed = self.passed();
        match (passed.held, passed.frames.is_between()) {
            (false, _) => usize::MAX,
            (true, true) => 0,
            (true, false) => {
                usize::try_from(passed.frames.belongs_to_frame()).unwrap_or(usize::MAX)
            }
        }
    }

    /// Whether only whole frames have been copied.
    fn is_between(&self) -> bool {
        let passed = self.passed();
        passed.frames.is_between() && passed.read == passed.written
    }

    fn is_closed(&self) -> bool {
        self.passed().frames.is_closed()
    }

    fn written(&self) -> u64 {
        self.passed().written
    }
}

/// One side of a connection. Notes when it is shut down; the instance's side also notes all traffic
/// in either direction.
struct TrackedIo<T> {
    io: T,
    traffic: Arc<Traffic>,
    counts: bool,
    /// What it sends.
    from: Arc<Direction>,
    /// What is sent to it.
    to: Arc<Direction>,
}

impl<T> TrackedIo<T> {
    fn note_traffic(&self, moved: bool) {
        if self.counts && moved {
            self.traffic.note();
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> TrackedIo<T> {
    /// Sends a client the close frame and waits for its answer.
    async fn close(mut self) -> io::Result<()> {
        self.io.write_all(&GOING_AWAY).await?;
        let mut rest = [0; 1024];
        while !self.from.is_closed() {
            match self.io.read(&mut rest).await? {
                0 => break,
                count => self.from.read(&rest[..count]),
            }
        }
        self.io.shutdown().await
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for TrackedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = self.from.may_read();
        if room == 0 {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = if room >= buf.remaining() {
            Pin::new(&mut self.io).poll_read(cx, buf)
        } else {
            let mut part = [0; 1024];
            let mut part = ReadBuf::new(&mut part[..room.min(1024)]);
            let read = Pin::new(&mut self.io).poll_read(cx, &mut part);
            buf.put_slice(part.filled());
            read
        };
        self.from.read(&buf.filled()[before..]);
        self.note_traffic(buf.filled().len() > before);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for TrackedIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Noted before it is written: an instance must not be stopped while bytes are on their way
        // to it.
        self.note_traffic(!buf.is_empty());
        let wrote = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = wrote {
            self.to.wrote(count);
        }
        wrote
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.traffic.ended.notify_one();
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
