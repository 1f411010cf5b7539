//! Ends responses on an HTTP/2 connection that its client does not read. The client opens the
//! window of a stream: while it is closed, the response waits, and with it its connection to the
//! instance. On HTTP/1 the socket has a limit for that (`client_io`).
//!
//! It never limits how long an instance may be silent: only a response with bytes to send, and
//! without permission to send them, is ended.

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

/// A response is ended after this many checks in which hyper had not asked for more of it.
const CHECKS: u32 = 8;

/// The responses of one connection, whose bodies are `B`.
pub(super) struct StallWatch<B> {
    watched_bodies: Mutex<Vec<Weak<WatchedBody<B>>>>,
    /// Some responses were ended.
    gave_up: AtomicBool,
}

/// The body of one response, until it is ended.
pub(super) struct WatchedBody<B> {
    body: Mutex<Option<B>>,
    /// hyper has got what it asked for, or has not asked yet: the client has to open its window.
    clients_turn: AtomicBool,
    checks: AtomicU32,
}

impl<B> Default for StallWatch<B> {
    fn default() -> Self {
        Self {
            watched_bodies: Mutex::default(),
            gave_up: AtomicBool::new(false),
        }
    }
}

impl<B> StallWatch<B> {
    /// Watches a response from now on.
    pub(super) fn watch(&self, body: B) -> Arc<WatchedBody<B>> {
        let watched = Arc::new(WatchedBody {
            body: Mutex::new(Some(body)),
            clients_turn: AtomicBool::new(true),
            checks: AtomicU32::new(0),
        });
        let mut watched_bodies = self
            .watched_bodies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if watched_bodies.len() == watched_bodies.capacity() {
            watched_bodies.retain(|one| one.strong_count() > 0);
        }
        watched_bodies.push(Arc::downgrade(&watched));
        watched
    }

    /// Checks `CHECKS` times within the limit of a stall. Resolves when responses were ended and no
    /// request is being served: the connection is to be closed. Also resolves for a connection that
    /// was shut down after too long an idle time and does not end, because its client still does
    /// not read the rest of a response.
    pub(super) async fn run(&self, connection: &ConnectionState, timeouts: ConnectionTimeouts) {
        let mut last_busy = Instant::now();
        loop {
            tokio::time::sleep(timeouts.stall / CHECKS).await;
            self.check();
            if connection.is_busy() {
                last_busy = Instant::now();
            } else if self.gave_up.load(Ordering::Relaxed)
                || last_busy.elapsed() > timeouts.idle.saturating_add(timeouts.stall)
            {
                return;
            }
        }
    }

    fn check(&self) {
        let mut watched_bodies = self
            .watched_bodies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        watched_bodies.retain(|one| {
            let Some(one) = one.upgrade() else {
                return false;
            };
            if !one.is_stalled() {
                return true;
            }
            // Frees the instance and the connection to it; if the client reads on after all, the
            // response breaks off.
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

    /// Whether it was the client's turn at more checks than allowed.
    fn is_stalled(&self) -> bool {
        self.clients_turn.load(Ordering::Relaxed)
            && self.checks.fetch_add(1, Ordering::Relaxed) + 1 > CHECKS
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> WatchedBody<B> {
    pub(super) fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut body = self.body();
        let Some(body) = body.as_mut() else {
            return Poll::Ready(Some(Err("the client did not read the answer".into())));
        };
        let frame = Pin::new(body).poll_frame(cx);
        self.clients_turn.store(frame.is_ready(), Ordering::Relaxed);
        self.checks.store(0, Ordering::Relaxed);
        frame
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body().as_ref().is_some_and(Body::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body()
            .as_ref()
            .map(Body::size_hint)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::sync::mpsc;

    use super::super::response_body::ResponseBody;
    use super::*;

    async fn poll_once(
        watched: &WatchedBody<ResponseBody>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        poll_fn(|cx| Poll::Ready(watched.poll_frame(cx))).await
    }

    #[tokio::test]
    async fn an_answer_that_is_not_asked_for_is_given_up_and_a_silent_one_is_not() {
        let watch = StallWatch::default();
        let (never, pieces) = mpsc::channel(4);
        let not_asked_for = watch.watch(ResponseBody::stream(pieces));
        let (half, pieces) = mpsc::channel(4);
        let taken_in_part = watch.watch(ResponseBody::stream(pieces));
        half.send(Bytes::from_static(b"one")).await.unwrap();
        assert!(matches!(
            poll_once(&taken_in_part).await,
            Poll::Ready(Some(Ok(_)))
        ));
        let (silent, pieces) = mpsc::channel(4);
        let of_a_silent_instance = watch.watch(ResponseBody::stream(pieces));
        assert!(poll_once(&of_a_silent_instance).await.is_pending());
        for _ in 0..CHECKS {
            watch.check();
        }
        assert!(!never.is_closed() && !half.is_closed());
        watch.check();
        assert!(never.is_closed() && half.is_closed() && watch.gave_up.load(Ordering::Relaxed));
        assert!(matches!(
            poll_once(&not_asked_for).await,
            Poll::Ready(Some(Err(_)))
        ));
        watch.check();
        assert!(!silent.is_closed());
        silent.send(Bytes::from_static(b"at last")).await.unwrap();
        assert!(matches!(
            poll_once(&of_a_silent_instance).await,
            Poll::Ready(Some(Ok(_)))
        ));
        for _ in 0..CHECKS {
            watch.check();
            assert!(poll_once(&of_a_silent_instance).await.is_pending());
        }
        assert!(!silent.is_closed());
        assert_eq!(watch.watched_bodies.lock().unwrap().len(), 1);
    }
}
