//! Answers on an HTTP/2 connection whose client does not take them. Its window is the client's to open: as long as it is closed, an
//! answer waits, and with it its connection to the instance. On HTTP/1 the socket has a limit for that (`client_io`).
//!
//! It never limits how long an instance may be silent: only an answer that has something to give and is not asked for it is given up.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::connection_state::ConnectionState;
use super::error::BoxError;
use super::timeouts::ConnectionTimeouts;

/// Looks at which an answer was not asked for, until it is given up.
const LOOKS: u32 = 8;

/// The answers of one connection, whose bodies are `B`.
pub(super) struct StallWatch<B> {
    open: Mutex<Vec<Weak<WatchedBody<B>>>>,
    /// Some were given up.
    gave_up: AtomicBool,
}

/// One answer, as long as its client takes it.
pub(super) struct WatchedBody<B> {
    body: Mutex<Option<B>>,
    /// What was asked for was given, or nothing was asked for yet: it is the client's turn.
    given: AtomicBool,
    looks: AtomicU32,
}

impl<B> Default for StallWatch<B> {
    fn default() -> Self {
        Self { open: Mutex::default(), gave_up: AtomicBool::new(false) }
    }
}

impl<B> StallWatch<B> {
    /// Watches over an answer from now on.
    pub(super) fn watch(&self, body: B) -> Arc<WatchedBody<B>> {
        let taken = Arc::new(WatchedBody { body: Mutex::new(Some(body)), given: AtomicBool::new(true), looks: AtomicU32::new(0) });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() == open.capacity() {
            open.retain(|one| one.strong_count() > 0);
        }
        open.push(Arc::downgrade(&taken));
        taken
    }

    /// Looks `LOOKS` times within the limit of a stall. Resolves when answers were given up and nothing else is under way: the
    /// connection is of no use any more. The same when it was told to end, having been idle for too long, and does not: the rest of an
    /// answer, which nothing waits for any more, is still not taken.
    pub(super) async fn look_after(&self, used: &ConnectionState, limits: ConnectionTimeouts) {
        let mut busy = Instant::now();
        loop {
            tokio::time::sleep(limits.stall / LOOKS).await;
            self.look();
            if used.is_busy() {
                busy = Instant::now();
            } else if self.gave_up.load(Ordering::Relaxed) || busy.elapsed() > limits.idle.saturating_add(limits.stall) {
                return;
            }
        }
    }

    fn look(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|one| {
            let Some(one) = one.upgrade() else { return false };
            if !one.is_left_alone() {
                return true;
            }
            // Its instance and its connection there are free; should it be asked for after all, it breaks off.
            drop(one.body().take());
            self.gave_up.store(true, Ordering::Relaxed);
            false
        });
    }
}

impl<B> WatchedBody<B> {
    fn body(&self) -> MutexGuard<'_, Option<B>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Was it the client's turn at so many looks?
    fn is_left_alone(&self) -> bool {
        self.given.load(Ordering::Relaxed) && self.looks.fetch_add(1, Ordering::Relaxed) + 1 > LOOKS
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> WatchedBody<B> {
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut body = self.body();
        let Some(body) = body.as_mut() else { return Poll::Ready(Some(Err("the client did not take the answer".into()))) };
        let frame = Pin::new(body).poll_frame(cx);
        self.given.store(frame.is_ready(), Ordering::Relaxed);
        self.looks.store(0, Ordering::Relaxed);
        frame
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body().as_ref().is_some_and(Body::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body().as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::sync::mpsc;

    use super::super::response_body::ResponseBody;
    use super::*;

    async fn poll_once(taken: &WatchedBody<ResponseBody>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        poll_fn(|cx| Poll::Ready(taken.poll_frame(cx))).await
    }

    #[tokio::test]
    async fn an_answer_that_is_not_asked_for_is_given_up_and_a_silent_one_is_not() {
        let takers = StallWatch::default();
        let (never, pieces) = mpsc::channel(4);
        let not_asked_for = takers.watch(ResponseBody::live(pieces));
        let (half, pieces) = mpsc::channel(4);
        let taken_in_part = takers.watch(ResponseBody::live(pieces));
        half.send(Bytes::from_static(b"one")).await.unwrap();
        assert!(matches!(poll_once(&taken_in_part).await, Poll::Ready(Some(Ok(_)))));
        let (silent, pieces) = mpsc::channel(4);
        let of_a_silent_instance = takers.watch(ResponseBody::live(pieces));
        assert!(poll_once(&of_a_silent_instance).await.is_pending());
        for _ in 0..LOOKS {
            takers.look();
        }
        assert!(!never.is_closed() && !half.is_closed());
        takers.look();
        assert!(never.is_closed() && half.is_closed() && takers.gave_up.load(Ordering::Relaxed));
        assert!(matches!(poll_once(&not_asked_for).await, Poll::Ready(Some(Err(_)))));
        takers.look();
        assert!(!silent.is_closed());
        silent.send(Bytes::from_static(b"at last")).await.unwrap();
        assert!(matches!(poll_once(&of_a_silent_instance).await, Poll::Ready(Some(Ok(_)))));
        for _ in 0..LOOKS {
            takers.look();
            assert!(poll_once(&of_a_silent_instance).await.is_pending());
        }
        assert!(!silent.is_closed());
        assert_eq!(takers.open.lock().unwrap().len(), 1);
    }
}
