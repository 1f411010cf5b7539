//! Idle connections. An HTTP/1 connection that has been idle for a while rests: everything that
//! serves requests on it (hyper, its buffers, the future of a request) is dropped, and a small
//! future waits for the next byte. Most connections of most clients are idle, and a resting one
//! takes a thirtieth of the memory. Once many have come to rest, what they leave is given back to
//! the host. `client_io` finds out when a connection may rest, because it keeps its time limits.
//!
//! HTTP/2 connections never rest: they have a state (windows, header tables) that cannot be taken
//! apart, and a browser has one where it had six. Memory is never given back for a few connections,
//! nor more often than every few seconds.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;

use super::client_io::{ClientIo, ClientSocket};
use super::latch::Latch;
use crate::host::reclaim;

/// When this many connections have come to rest, the memory they leave is worth giving back to the
/// host;
const MANY: usize = 64;
/// others are waited for this long,
const WAIT_FOR_MORE: Duration = Duration::from_secs(1);
/// and it is done at most this often.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(10);

/// The connections at rest. Gives memory back when many have come to it.
#[derive(Default)]
pub(super) struct RestingConnections {
    now: AtomicUsize,
    /// Connections that came to rest since memory was last given back.
    rested: AtomicUsize,
    /// Enough have.
    due: Notify,
}

impl RestingConnections {
    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    /// Waits for the next request of a resting connection; `false`: there will be none, because the
    /// server is `stopping`. No `async fn`: every idle connection keeps this future, and each
    /// argument would be in it twice.
    pub(super) fn wait_for_request<S: ClientSocket>(
        &self,
        client: &mut ClientIo<S>,
        stopping: &Latch,
    ) -> impl Future<Output = io::Result<bool>> {
        if self.rested.fetch_add(1, Ordering::Relaxed) == MANY {
            self.due.notify_one();
        }
        let resting = RestingCount::new(&self.now);
        async move {
            let mut stopped = pin!(stopping.wait());
            let next = poll_fn(|cx| match client.poll_next_request(cx) {
                // First the client: a request that has arrived is served, also in the moment of the
                // shutdown. The reactor may not have reported it yet.
                Poll::Pending if stopping.is_raised() && client.has_unread_bytes() => Poll::Pending,
                Poll::Pending => stopped.as_mut().poll(cx).map(|()| Ok(false)),
                readable => readable.map_ok(|()| true),
            })
            .await;
            drop(resting);
            next
        }
    }

    /// Gives back, each time it is due, the memory that connections needed before they rested. Never
    /// resolves.
    pub(super) async fn give_back<T>(&self) -> T {
        loop {
            self.due.notified().await;
            tokio::time::sleep(WAIT_FOR_MORE).await;
            self.rested.store(0, Ordering::Relaxed);
            let _ = tokio::task::spawn_blocking(reclaim::give_back).await;
            tokio::time::sleep(GIVE_BACK_EVERY).await;
        }
    }
}

/// Counts a resting connection.
struct RestingCount<'a>(&'a AtomicUsize);

impl<'a> RestingCount<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for RestingCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
