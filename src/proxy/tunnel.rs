//! An upgraded connection (WebSocket above all): bytes both ways until both sides are done, the pass held all the while, or,
//! where `idle.silent_connections` says so, for as long as there is traffic.
//!
//! Once one side has ended, the other has a few seconds: else a client or an application that never closes would be use for ever.
//!
//! It never looks at the bytes, and it never ends a connection because it is silent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional_with_sizes};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::access_log::Line;
use crate::domain::name::HostName;
use crate::domain::rule::Verdict;
use crate::driver::upstream::{Io, ReceiveBody, Upstreams};
use crate::service::door::{Door, Knock, Pass};

/// Bytes buffered per direction.
const BUFFER: usize = 16 * 1024;
/// When one side has ended, the other may finish within this. nginx ends both at once.
const LINGER: Duration = Duration::from_secs(3);

/// When a connection stops being use, and what it takes to become use again.
pub(super) struct Silence {
    pub(super) limit: Duration,
    pub(super) door: Arc<dyn Door>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) host: HostName,
    pub(super) verdict: Verdict,
}

/// The use that a connection is of its instance.
pub(super) struct Use {
    pass: Box<dyn Pass>,
    silence: Option<Silence>,
    traffic: Arc<Traffic>,
}

/// Counts what goes through, and tells of it.
struct Traffic {
    began: Instant,
    moves: AtomicU64,
    /// When something went through last: ms since the beginning.
    last: AtomicU64,
    moved: Notify,
    /// One side has ended, and the other knows.
    ended: Notify,
}

impl Traffic {
    fn new() -> Self {
        Self { began: Instant::now(), moves: AtomicU64::new(0), last: AtomicU64::new(0), moved: Notify::new(), ended: Notify::new() }
    }

    fn note(&self) {
        self.last.store(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Release);
        self.moves.fetch_add(1, Ordering::AcqRel);
        self.moved.notify_one();
    }

    /// How long nothing has gone through.
    fn silent_for(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Acquire)))
    }
}

impl Use {
    pub(super) fn new(pass: Box<dyn Pass>, silence: Option<Silence>) -> Self {
        Self { pass, silence, traffic: Arc::new(Traffic::new()) }
    }

    /// Holds the pass; gives it back while the connection is silent. Never resolves.
    async fn hold(pass: Box<dyn Pass>, silence: Option<Silence>, traffic: Arc<Traffic>) {
        let Some(silence) = silence else { return std::future::pending().await };
        let mut pass = Some(pass);
        loop {
            match pass {
                Some(held) => {
                    let before = silence.until_silent(&traffic).await;
                    // Counted as silent before the pass is given back: then it is both for a moment, which tells too much and
                    // never too little.
                    let silent = silence.upstreams.silent(held.gate());
                    drop(held);
                    while traffic.moves.load(Ordering::Acquire) == before {
                        traffic.moved.notified().await;
                    }
                    drop(silent);
                }
                // The instance is on its way down; in the kernel's count this connection is use again all the same.
                None => traffic.moved.notified().await,
            }
            pass = silence.again().await;
        }
    }
}

impl Silence {
    /// Resolves after the limit without traffic, with what was counted until then.
    async fn until_silent(&self, traffic: &Traffic) -> u64 {
        loop {
            let moves = traffic.moves.load(Ordering::Acquire);
            match self.limit.checked_sub(traffic.silent_for()) {
                Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
                _ => return moves,
            }
        }
    }

    /// Another pass to the same instance.
    async fn again(&self) -> Option<Box<dyn Pass>> {
        match self.door.knock(&self.host, self.verdict).await {
            Ok(Knock::Open(pass)) => Some(pass),
            Ok(Knock::Wait(mut waiting)) => timeout(self.limit, waiting.pass()).await.ok()?.ok(),
            Err(_) => None,
        }
    }
}

/// Carries the connection; ends with it, or when `cut` is called.
pub(super) async fn carry(client: OnUpgrade, instance: ReceiveBody, own: Use, line: Option<Box<Line>>, cut: CancellationToken) {
    let Use { pass, silence, traffic } = own;
    let (counts, ends) = (silence.is_some(), traffic.clone());
    let carried = tokio::select! {
        carried = both_ways(client, instance, &ends, counts) => carried,
        () = lingered(&ends) => Ok((0, 0)),
        () = Use::hold(pass, silence, traffic) => Ok((0, 0)),
        () = cut.cancelled() => Ok((0, 0)),
    };
    match carried {
        Ok((_, sent)) => {
            if let Some(mut line) = line {
                line.sent = sent;
            }
        }
        Err(error) => tracing::debug!(%error, "an upgraded connection broke"),
    }
}

/// Resolves when one side has ended for long enough.
async fn lingered(traffic: &Traffic) {
    traffic.ended.notified().await;
    tokio::time::sleep(LINGER).await;
}

async fn both_ways(client: OnUpgrade, instance: ReceiveBody, traffic: &Arc<Traffic>, counts: bool) -> io::Result<(u64, u64)> {
    let (instance, early): (Io, Bytes) = instance.upgrade().await?;
    let mut instance = Watched { io: instance, traffic: traffic.clone(), counts };
    let client = TokioIo::new(client.await.map_err(io::Error::other)?);
    let mut client = Watched { io: client, traffic: traffic.clone(), counts: false };
    // What the instance said right behind its answer was read together with it.
    client.write_all(&early).await?;
    let (received, sent) = copy_bidirectional_with_sizes(&mut client, &mut instance, BUFFER, BUFFER).await?;
    Ok((received, sent + early.len() as u64))
}

/// One side of a connection; tells when the other has ended and, the instance's, of every byte in either direction.
struct Watched<T> {
    io: T,
    traffic: Arc<Traffic>,
    counts: bool,
}

impl<T> Watched<T> {
    fn told(&self, moved: bool) {
        if self.counts && moved {
            self.traffic.note();
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.told(buf.filled().len() > before);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // Told before it is written: an instance must not be stopped over bytes that are on their way to it.
        self.told(!buf.is_empty());
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.traffic.ended.notify_one();
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
