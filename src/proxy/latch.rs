//! A flag that very many connections wait for and that almost never comes: asking it again costs one load from memory. A
//! cancellation token takes two locks, which all connections share, each time a connection is looked at.
//!
//! It never goes down again.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::sync::Notify;

/// Down, until it is raised.
#[derive(Default)]
pub(super) struct Latch {
    raised: AtomicBool,
    tell: Notify,
}

impl Latch {
    /// Raises it and tells all that wait.
    pub(super) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.tell.notify_waiters();
    }

    /// Is it up?
    pub(super) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Resolves when it is raised. To be polled by one task only: a task is always woken by the same waker, so that it is
    /// enough to leave it once.
    pub(super) async fn wait(&self) {
        let mut told = pin!(self.tell.notified());
        let mut listens = false;
        poll_fn(|cx| {
            if self.is_raised() {
                return Poll::Ready(());
            }
            if listens {
                return Poll::Pending;
            }
            listens = true;
            // Raised between the look above and now: this says so.
            told.as_mut().poll(cx)
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_waits_is_told_and_whoever_comes_late_sees_it() {
        for _ in 0..200 {
            let flag = Arc::new(Latch::default());
            let waiting: Vec<_> = (0..8)
                .map(|_| {
                    let flag = flag.clone();
                    tokio::spawn(async move { flag.wait().await })
                })
                .collect();
            assert!(!flag.is_raised());
            flag.raise();
            flag.wait().await;
            for task in waiting {
                task.await.unwrap();
            }
        }
    }
}
