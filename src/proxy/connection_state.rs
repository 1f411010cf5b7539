//! The state that a client's connection shares with the code that serves its requests: whether a
//! request is being served, whether the connection rests, and whether it may be closed in favour of
//! another.
//!
//! It decides nothing by itself and does no I/O.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::driver::upstream::RawTarget;

/// How many connections one client has, and requests on HTTP/2.
pub(super) type ClientLoad = AtomicU32;

/// The shared state of a client's connection.
#[derive(Debug, Default)]
// One cache line each, here and in `client_io`: connections of two I/O threads are allocated side
// by side.
#[repr(align(64))]
pub(super) struct ConnectionState {
    /// How many requests are being served.
    open: AtomicU32,
    /// No request is being served, nothing is left to write, and nothing has arrived for a while.
    pub(super) rests: AtomicBool,
    /// A request has arrived.
    served: AtomicBool,
    /// It rests, and its last response was sent.
    idle: AtomicBool,
    /// It is to be closed in favour of another one.
    evict: AtomicBool,
    /// When it was opened or last became idle, in ticks of `ConnectionLimits`.
    last_used: AtomicU64,
    waker: AtomicWaker,
    /// The count of its client, if that is limited.
    client_load: OnceLock<Arc<ClientLoad>>,
    /// Each of its requests is counted there too.
    http2: AtomicBool,
    /// A request has begun since the last wait for a head.
    pub(super) request_began: AtomicBool,
    has_target: AtomicBool,
    /// The original target of the current head, if hyper got it escaped.
    target: Mutex<Option<RawTarget>>,
}

impl ConnectionState {
    /// Whether a request is being served.
    pub(super) fn is_busy(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    /// Counts this connection for its client, which is limited.
    pub(super) fn count_towards(&self, client_load: &Arc<ClientLoad>) {
        let _ = self.client_load.set(client_load.clone());
    }

    /// Counts each request, because it may have many at once.
    pub(super) fn use_http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
    }

    /// The original target of the request that has just begun, if hyper got another.
    pub(super) fn take_target(&self) -> Option<RawTarget> {
        if !self.has_target.swap(false, Ordering::Relaxed) {
            return None;
        }
        self.target
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    pub(super) fn put_target(&self, target: RawTarget) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
        self.has_target.store(true, Ordering::Relaxed);
    }

    fn request_load(&self) -> Option<&ClientLoad> {
        if self.http2.load(Ordering::Relaxed) {
            self.client_load.get().map(|client_load| &**client_load)
        } else {
            None
        }
    }

    /// Whether its client has more requests and connections than this.
    pub(super) fn exceeds(&self, per_client: Option<u32>) -> bool {
        self.request_load()
            .zip(per_client)
            .is_some_and(|(client_load, max)| client_load.load(Ordering::Relaxed) > max)
    }

    /// Notes that it rests: it waits for its next request.
    pub(super) fn note_rest(&self, now: u64) {
        self.note_last_used(now);
        self.idle.store(true, Ordering::Release);
    }

    /// Notes that it was opened or became idle at this tick.
    pub(super) fn note_last_used(&self, now: u64) {
        self.last_used.store(now, Ordering::Relaxed);
    }

    /// The last noted tick.
    pub(super) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    /// Whether closing it loses nothing: it has sent nothing yet, or its last response was sent,
    /// and it is not being closed already.
    pub(super) fn may_be_evicted(&self) -> bool {
        self.is_idle() && !self.evict.load(Ordering::Acquire)
    }

    fn is_idle(&self) -> bool {
        !self.is_busy()
            && (self.idle.load(Ordering::Acquire) || !self.served.load(Ordering::Acquire))
    }

    /// Makes it close once it is idle.
    pub(super) fn evict(&self) {
        self.evict.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Resolves when it is to be closed and is idle. Poll it from one task only, always with the
    /// same waker: that is registered once, see `waker_set`.
    pub(super) fn poll_evicted(&self, waker_set: &mut bool, cx: &Context<'_>) -> Poll<()> {
        if !*waker_set {
            *waker_set = true;
            self.waker.register(cx.waker());
        }
        if !self.evict.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        if self.is_idle() {
            return Poll::Ready(());
        }
        // A request has arrived meanwhile.
        self.evict.store(false, Ordering::Release);
        Poll::Pending
    }

    /// Resolves when no request was served for the whole limit: HTTP/2 in hyper has no limit
    /// between two requests.
    pub(super) async fn until_unused(&self, limit: Duration) {
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

    /// Whether it rests, as `client_io` last observed.
    pub(super) fn rests(&self) -> bool {
        self.rests.load(Ordering::Relaxed)
    }
}

/// Marks the connection as busy with a request until it is dropped.
pub(super) struct BusyGuard(Arc<ConnectionState>);

impl BusyGuard {
    pub(super) fn new(connection: &Arc<ConnectionState>) -> Self {
        connection.open.fetch_add(1, Ordering::AcqRel);
        connection.served.store(true, Ordering::Relaxed);
        connection.request_began.store(true, Ordering::Relaxed);
        connection.idle.store(false, Ordering::Relaxed);
        connection
            .request_load()
            .inspect(|client_load| _ = client_load.fetch_add(1, Ordering::Relaxed));
        Self(connection.clone())
    }

    /// Keeps the connection busy to its end, because the request was upgraded.
    pub(super) fn keep_busy(self) {
        self.0.open.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0
            .request_load()
            .inspect(|client_load| _ = client_load.fetch_sub(1, Ordering::Relaxed));
    }
}
