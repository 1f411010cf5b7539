//! What a client's connection and those who serve its requests know of each other: is a request under way, does it rest, may it be
//! closed for another.
//!
//! It decides nothing by itself, and does no I/O.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::driver::upstream::RawTarget;

/// How many connections one client has, and requests on HTTP/2.
pub(super) type ClientLoad = AtomicU32;

/// What a client's connection and those who serve its requests know of each other.
#[derive(Debug, Default)]
// One cache line each, here and in `client_io`: connections of two I/O threads are allocated side by side.
#[repr(align(64))]
pub(super) struct ConnectionState {
    /// Requests under way.
    open: AtomicU32,
    /// Nothing is under way, nothing is left to write, and nothing has come for a while.
    pub(super) rests: AtomicBool,
    /// A request has come.
    served: AtomicBool,
    /// It rests, and its last answer has left.
    idle: AtomicBool,
    /// Its place is needed.
    unwanted: AtomicBool,
    /// When it came, or came to rest last, as the crowd counts.
    since: AtomicU64,
    task: AtomicWaker,
    /// What its client has, if it is limited.
    share: OnceLock<Arc<ClientLoad>>,
    /// Its requests are part of that, each.
    http2: AtomicBool,
    /// A request has come since a head was last waited for.
    pub(super) came: AtomicBool,
    has_target: AtomicBool,
    /// What the first line of the head that has come names, where hyper got it escaped.
    target: Mutex<Option<RawTarget>>,
}

impl ConnectionState {
    /// Is a request under way?
    pub(super) fn is_busy(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    /// Its client has this share.
    pub(super) fn belongs_to(&self, share: &Arc<ClientLoad>) {
        let _ = self.share.set(share.clone());
    }

    /// It carries many requests at once, and each counts.
    pub(super) fn speaks_http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
    }

    /// What the request that has just come asks for, if that is not what hyper says.
    pub(super) fn take_target(&self) -> Option<RawTarget> {
        if !self.has_target.swap(false, Ordering::Relaxed) {
            return None;
        }
        self.target.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn put_target(&self, target: RawTarget) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
        self.has_target.store(true, Ordering::Relaxed);
    }

    fn counted(&self) -> Option<&ClientLoad> {
        if self.http2.load(Ordering::Relaxed) { self.share.get().map(|share| &**share) } else { None }
    }

    /// Has its client more requests and connections than one may have?
    pub(super) fn has_too_many(&self, per_client: Option<u32>) -> bool {
        self.counted().zip(per_client).is_some_and(|(share, most)| share.load(Ordering::Relaxed) > most)
    }

    /// It waits for its next request from now on.
    pub(super) fn comes_to_rest(&self, now: u64) {
        self.note_since(now);
        self.idle.store(true, Ordering::Release);
    }

    /// When it came.
    pub(super) fn note_since(&self, now: u64) {
        self.since.store(now, Ordering::Relaxed);
    }

    /// The moment noted last.
    pub(super) fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// Would nothing be lost with it? It has not said a word, or has its last answer; and is not on its way out already.
    pub(super) fn may_be_closed(&self) -> bool {
        self.is_idle() && !self.unwanted.load(Ordering::Acquire)
    }

    fn is_idle(&self) -> bool {
        !self.is_busy() && (self.idle.load(Ordering::Acquire) || !self.served.load(Ordering::Acquire))
    }

    /// Its place is needed.
    pub(super) fn close(&self) {
        self.unwanted.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Resolves when its place is needed and it is idle. To be polled by one task only, which is always woken by the same waker: so it
    /// is left once, `left`.
    pub(super) fn poll_unwanted(&self, left: &mut bool, cx: &Context<'_>) -> Poll<()> {
        if !*left {
            *left = true;
            self.task.register(cx.waker());
        }
        if !self.unwanted.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        if self.is_idle() {
            return Poll::Ready(());
        }
        // A request has come in between.
        self.unwanted.store(false, Ordering::Release);
        Poll::Pending
    }

    /// Resolves when no request was under way for the whole of the limit: HTTP/2 has none of its own between two requests.
    pub(super) async fn unused(&self, limit: Duration) {
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

    /// As the socket last saw it.
    pub(super) fn rests(&self) -> bool {
        self.rests.load(Ordering::Relaxed)
    }
}

/// A request that its client's connection is busy with.
pub(super) struct BusyGuard(Arc<ConnectionState>);

impl BusyGuard {
    pub(super) fn new(connection: &Arc<ConnectionState>) -> Self {
        connection.open.fetch_add(1, Ordering::AcqRel);
        connection.served.store(true, Ordering::Relaxed);
        connection.came.store(true, Ordering::Relaxed);
        connection.idle.store(false, Ordering::Relaxed);
        connection.counted().inspect(|share| _ = share.fetch_add(1, Ordering::Relaxed));
        Self(connection.clone())
    }

    /// It became something else than a request, and lasts as long as the connection.
    pub(super) fn for_good(self) {
        self.0.open.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.counted().inspect(|share| _ = share.fetch_sub(1, Ordering::Relaxed));
    }
}
