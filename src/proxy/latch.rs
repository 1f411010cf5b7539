//! A flag that very many connections wait for and that is almost never raised: reading it is one
//! load from memory. A cancellation token would take two locks, shared by all connections, at each
//! poll of a connection.
//!
//! It is never lowered again.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::sync::Notify;

/// Not raised at first.
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

    /// Whether it is raised.
    pub(super) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Resolves when it is raised. Poll it from one task only: a task always uses the same waker,
    /// so it is registered only once.
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
            // Ready if it was raised since the check above.
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
