//! Idle connections. An HTTP/1 connection that has been idle for a while rests: everything that
//! serves its requests (hyper, its buffers, the future of a request) is dropped, and a small future
//! waits for the next byte. Most connections of most clients are idle, and a resting one takes a
//! thirtieth of the memory. Once many have come to rest, the memory they used is returned to the
//! host. `client_io` finds out when a connection may rest, because it enforces its time limits.
//!
//! HTTP/2 connections never rest: they have a state (windows, header tables) that cannot be
//! dismantled, and a browser uses one where it used six. Memory is not returned for a few
//! connections, nor more often than every few seconds.

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

/// How many connections must come to rest before their memory is returned to the host.
const MANY: usize = 64;
/// How long to wait for more of them.
const WAIT_FOR_MORE: Duration = Duration::from_secs(1);
/// Memory is returned at most this often.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(10);

/// The resting connections. Returns memory when many have come to rest.
#[derive(Default)]
pub(super) struct RestingConnections {
    now: AtomicUsize,
    /// Connections that came to rest since memory was last returned.
    rested: AtomicUsize,
    /// Notified when there are enough.
    due: Notify,
}

impl RestingConnections {
    /// How many connections rest.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    /// Waits for the next request of a resting connection; `false`: there will be none, because the
    /// server is `stopping`. Not an `async fn`: every idle connection keeps this future, and each
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
                // Poll the client first: a request that has arrived is served, even at the moment
                // of the shutdown. The reactor may not have reported it yet.
                Poll::Pending if stopping.is_raised() && client.has_unread_bytes() => Poll::Pending,
                Poll::Pending => stopped.as_mut().poll(cx).map(|()| Ok(false)),
                readable => readable.map_ok(|()| true),
            })
            .await;
            drop(resting);
            next
        }
    }

    /// Returns, whenever it is due, the memory that connections used before they rested. Never
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
