//! A flag that very many connections wait for and that is almost never raised: reading it costs one
//! load from memory. A cancellation token takes two locks, which all connections share, each time a
//! connection is polled.
//!
//! It is never lowered again.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::sync::Notify;

/// Down, until it is raised.
#[derive(Default)]
pub(super) struct Latch {
    raised: AtomicBool,
    notify: Notify,
}

impl Latch {
    /// Raises it and wakes all that wait.
    pub(super) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    /// Is it raised?
    pub(super) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Resolves when it is raised. To be polled by one task only: a task is always woken by the
    /// same waker, so that it is enough to register it once.
    pub(super) async fn wait(&self) {
        let mut notified = pin!(self.notify.notified());
        let mut registered = false;
        poll_fn(|cx| {
            if self.is_raised() {
                return Poll::Ready(());
            }
            if registered {
                return Poll::Pending;
            }
            registered = true;
            // If it was raised since it was read above, this is ready.
            notified.as_mut().poll(cx)
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn waiting_tasks_are_woken_and_late_ones_see_it() {
        for _ in 0..200 {
            let latch = Arc::new(Latch::default());
            let waiting: Vec<_> = (0..8)
                .map(|_| {
                    let latch = latch.clone();
                    tokio::spawn(async move { latch.wait().await })
                })
                .collect();
            assert!(!latch.is_raised());
            latch.raise();
            latch.wait().await;
            for task in waiting {
                task.await.unwrap();
            }
        }
    }
}
