//! I/O threads, each with its own runtime, that serve connections from beginning to end: client,
//! instance and everything between.
//!
//! A runtime that moves tasks between its threads wakes another thread for nearly every request,
//! which costs as much as the request itself; here tasks stay on their thread. It never decides
//! what is served, and never moves a task that has begun. Blocking work must not run here: it would
//! delay every other connection of that thread.

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

/// Most I/O threads.
pub const MAX: usize = 32;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The number of this I/O thread, from 1; 0 on every other thread.
#[must_use]
pub fn current() -> usize {
    CURRENT.get()
}

struct IoThread {
    runtime: Handle,
    /// How many tasks it has.
    load: Arc<AtomicUsize>,
}

/// A set of I/O threads, possibly empty. When it is dropped they end and drop their tasks.
#[derive(Default)]
pub struct IoThreads {
    threads: Vec<IoThread>,
    next: AtomicUsize,
    end: CancellationToken,
}

impl IoThreads {
    /// No I/O threads: every task runs on the runtime that spawns it.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// One I/O thread for each CPU that acc may use.
    ///
    /// # Errors
    /// A thread or its runtime cannot be made.
    pub fn start() -> io::Result<Self> {
        let mut made = Self::none();
        for index in 1..=thread::available_parallelism()
            .map_or(1, usize::from)
            .min(MAX)
        {
            let (report, reported) = mpsc::channel();
            let end = made.end.clone();
            // The runtime is made and dropped on its own thread: elsewhere that could block a task.
            thread::Builder::new()
                .name(format!("io-{index}"))
                .spawn(move || {
                    CURRENT.set(index);
                    match Builder::new_current_thread().enable_all().build() {
                        Ok(runtime) => {
                            let _ = report.send(Ok(runtime.handle().clone()));
                            runtime.block_on(end.cancelled());
                            // A name lookup may still be running on another thread; no task waits
                            // for it any more.
                            runtime.shutdown_background();
                        }
                        Err(e) => drop(report.send(Err(e))),
                    }
                })?;
            let runtime = reported.recv().map_err(io::Error::other)??;
            made.threads.push(IoThread {
                runtime,
                load: Arc::default(),
            });
        }
        Ok(made)
    }

    /// Runs a task that accepts for all threads on the first one, as one of `tasks`. A single
    /// client, such as the one that wakes an instance, is then served by the thread that its
    /// connection has woken, and no other is woken.
    pub fn spawn_on_first(
        &self,
        tasks: &TaskTracker,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        match self.threads.first() {
            Some(thread) => drop(tasks.spawn_on(task, &thread.runtime)),
            None => drop(tasks.spawn(task)),
        }
    }

    /// Runs a task to its end on the thread with the fewest tasks; if this thread is one of them,
    /// on this one. `begin` is called at once, on this thread and in the runtime of the other: the
    /// sockets and timers that it makes belong to that runtime.
    pub fn spawn_on_least_loaded<F: Future<Output = ()> + Send + 'static>(
        &self,
        begin: impl FnOnce() -> F,
    ) {
        let own = current()
            .checked_sub(1)
            .filter(|own| *own < self.threads.len());
        let first = own.unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed));
        let all = (0..self.threads.len()).map(|n| &self.threads[(first + n) % self.threads.len()]);
        let Some(thread) = all.min_by_key(|thread| thread.load.load(Ordering::Relaxed)) else {
            return drop(tokio::spawn(begin()));
        };
        let load = Load(thread.load.clone());
        load.0.fetch_add(1, Ordering::Relaxed);
        let work = {
            let _there = thread.runtime.enter();
            begin()
        };
        // Not an `async` block, which would hold `work` twice: as its argument and as the future it
        // awaits.
        thread.runtime.spawn(work.map(move |()| drop(load)));
    }
}

impl Drop for IoThreads {
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
    async fn tasks_are_spread_and_stay_where_they_began() {
        let threads = IoThreads::start().unwrap();
        let count = threads.threads.len();
        let (reported, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let go = CancellationToken::new();
        for _ in 0..count * 3 {
            let (reported, go) = (reported.clone(), go.clone());
            threads.spawn_on_least_loaded(|| async move {
                let began = current();
                go.cancelled().await;
                tokio::task::yield_now().await;
                assert_eq!(current(), began);
                reported.send(began).unwrap();
            });
        }
        drop(reported);
        go.cancel();
        let mut shares = vec![0; count + 1];
        while let Some(thread) = seen.recv().await {
            shares[thread] += 1;
        }
        assert_eq!(shares[0], 0);
        assert!(shares[1..].iter().all(|share| *share == 3), "{shares:?}");
        assert_eq!(current(), 0);
    }

    #[tokio::test]
    async fn without_io_threads_a_task_runs_here() {
        let (reported, seen) = tokio::sync::oneshot::channel();
        IoThreads::none()
            .spawn_on_least_loaded(|| async move { reported.send(current()).unwrap() });
        assert_eq!(seen.await, Ok(0));
    }
}
