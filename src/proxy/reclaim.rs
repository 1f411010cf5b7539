//! Gives memory back to the host once many connections have come to rest.
//!
//! It never does so for a few connections, nor more often than every few seconds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::host::reclaim;

/// When this many connections have come to rest, the memory they leave is worth giving back to the
/// host;
const MANY: usize = 64;
/// others are waited for this long,
const WAIT_FOR_MORE: Duration = Duration::from_secs(1);
/// and it is done at most this often.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(10);

/// Counts connections that come to rest, and waits for many of them.
#[derive(Default)]
pub(super) struct MemoryReclaim {
    /// Connections that came to rest since memory was last given back.
    rested: AtomicUsize,
    /// Enough have.
    due: Notify,
}

impl MemoryReclaim {
    /// A connection has come to rest.
    pub(super) fn note_rest(&self) {
        if self.rested.fetch_add(1, Ordering::Relaxed) == MANY {
            self.due.notify_one();
        }
    }

    /// Gives back, each time it is due, the memory that connections needed before they rested, and
    /// the pages of the program that no resting connection needs. Never resolves.
    pub(super) async fn run<T>(&self) -> T {
        loop {
            self.due.notified().await;
            tokio::time::sleep(WAIT_FOR_MORE).await;
            self.rested.store(0, Ordering::Relaxed);
            let give_back = || {
                reclaim::give_back();
                reclaim::let_go_of_program();
            };
            let _ = tokio::task::spawn_blocking(give_back).await;
            tokio::time::sleep(GIVE_BACK_EVERY).await;
        }
    }
}
