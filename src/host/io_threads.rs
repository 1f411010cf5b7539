//! Threads that each carry their own connections from beginning to end: client, instance and everything between them.
//!
//! A runtime that moves tasks between its threads wakes another thread for nearly every request, which costs as much as the
//! request itself; here nothing moves. It never decides what is carried, and it moves nothing that has begun. What blocks must
//! not run here: it would hold up everybody else on that thread.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use futures_util::FutureExt;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most lanes there are.
pub const MAX: usize = 32;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The lane of this thread, from 1; 0 on every other thread.
#[must_use]
pub fn current() -> usize {
    CURRENT.get()
}

struct Lane {
    runtime: Handle,
    carried: Arc<AtomicUsize>,
}

/// Some lanes, or none. They end, with what they still carry, when this is dropped.
#[derive(Default)]
pub struct Lanes {
    lanes: Vec<Lane>,
    next: AtomicUsize,
    end: CancellationToken,
}

impl Lanes {
    /// No lanes: everything is carried by the runtime of whoever brings it.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// A lane for each processor that acc may use.
    ///
    /// # Errors
    /// A thread or its runtime cannot be made.
    pub fn start() -> io::Result<Self> {
        let mut made = Self::none();
        for index in 1..=thread::available_parallelism().map_or(1, usize::from).min(MAX) {
            let (told, made_there) = mpsc::channel();
            let end = made.end.clone();
            // The runtime is made where it is used and dropped: elsewhere that could block a task.
            thread::Builder::new().name(format!("lane-{index}")).spawn(move || {
                CURRENT.set(index);
                match Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => {
                        let _ = told.send(Ok(runtime.handle().clone()));
                        runtime.block_on(end.cancelled());
                        // A name lookup may still be under way on a thread of its own; nobody waits for it any more.
                        runtime.shutdown_background();
                    }
                    Err(e) => drop(told.send(Err(e))),
                }
            })?;
            let runtime = made_there.recv().map_err(io::Error::other)??;
            made.lanes.push(Lane { runtime, carried: Arc::default() });
        }
        Ok(made)
    }

    /// Has the first lane do what brings all of them their work, as one of `tasks`: a client that comes alone, as the one who wakes
    /// a sleeper does, is then served by the thread that its connection has woken, and no other need be woken.
    pub fn bring(&self, tasks: &TaskTracker, bringing: impl Future<Output = ()> + Send + 'static) {
        match self.lanes.first() {
            Some(lane) => drop(tasks.spawn_on(bringing, &lane.runtime)),
            None => drop(tasks.spawn(bringing)),
        }
    }

    /// Has the lane that carries least carry this too, to its end; of several this one, if it is one of them. `begin` is called at once, on this thread and in the runtime of
    /// the lane: sockets and timers that it makes are the lane's.
    pub fn carry<F: Future<Output = ()> + Send + 'static>(&self, begin: impl FnOnce() -> F) {
        let own = current().checked_sub(1).filter(|own| *own < self.lanes.len());
        let first = own.unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed));
        let all = (0..self.lanes.len()).map(|n| &self.lanes[(first + n) % self.lanes.len()]);
        let Some(lane) = all.min_by_key(|lane| lane.carried.load(Ordering::Relaxed)) else {
            return drop(tokio::spawn(begin()));
        };
        let load = Load(lane.carried.clone());
        load.0.fetch_add(1, Ordering::Relaxed);
        let work = {
            let _there = lane.runtime.enter();
            begin()
        };
        // Not an `async` block: it would hold `work` twice, as what it was given and as what it waits for.
        lane.runtime.spawn(work.map(move |()| drop(load)));
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_carried_is_spread_and_stays_where_it_began() {
        let lanes = Lanes::start().unwrap();
        let count = lanes.lanes.len();
        let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let go = CancellationToken::new();
        for _ in 0..count * 3 {
            let (told, go) = (told.clone(), go.clone());
            lanes.carry(|| async move {
                let began = current();
                go.cancelled().await;
                tokio::task::yield_now().await;
                assert_eq!(current(), began);
                told.send(began).unwrap();
            });
        }
        drop(told);
        go.cancel();
        let mut shares = vec![0; count + 1];
        while let Some(lane) = seen.recv().await {
            shares[lane] += 1;
        }
        assert_eq!(shares[0], 0);
        assert!(shares[1..].iter().all(|share| *share == 3), "{shares:?}");
        assert_eq!(current(), 0);
    }

    #[tokio::test]
    async fn without_lanes_it_is_carried_here() {
        let (told, seen) = tokio::sync::oneshot::channel();
        Lanes::none().carry(|| async move { told.send(current()).unwrap() });
        assert_eq!(seen.await, Ok(0));
    }
}
