//! Writes to the database in their order, on a separate thread: a slow disk, or a lock of another
//! program, delays only the tasks that wait for their write.
//!
//! A command, which has nothing else to do meanwhile, writes at once on its own thread. This module
//! decides nothing about what is written.

use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

use tokio::sync::oneshot;

use super::{Store, StoreError};

type Job = Box<dyn FnOnce(&dyn Store) + Send>;

/// A requested write, which continues even if this is dropped. Resolves to its result.
pub type Written<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + Sync>>;

/// The queue of writes.
#[derive(Debug)]
pub struct StoreThreads {
    store: Arc<dyn Store>,
    /// Of the threads that write and read; not set: the caller's thread does both at once.
    queues: OnceLock<[mpsc::Sender<Job>; 2]>,
    /// No more writes.
    closed: Arc<AtomicBool>,
}

impl StoreThreads {
    /// All is done at once, on the caller's thread.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            queues: OnceLock::new(),
            closed: Arc::default(),
        }
    }

    /// Starts a thread for the writes, which ends with this value.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(&self) -> io::Result<()> {
        let queues = [self.thread("store-write")?, self.thread("store-read")?];
        let _ = self.queues.set(queues);
        Ok(())
    }

    fn thread(&self, name: &str) -> io::Result<mpsc::Sender<Job>> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let store = self.store.clone();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || jobs.into_iter().for_each(|job| job(&*store)))?;
        Ok(sender)
    }

    /// Asks for a write: it is in its place among the others when this returns.
    pub fn write<T: Send + Sync + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Written<T> {
        let Some([queue, _]) = self.queues.get() else {
            return Box::pin(ready(work(&*self.store)));
        };
        let closed = self.closed.clone();
        self.ask(queue, move |store| {
            if closed.load(Ordering::SeqCst) {
                return Err(StoreError::Ended("another acc process has taken over"));
            }
            work(store)
        })
    }

    /// Asks for a read. It sees the writes that have been waited for.
    pub fn read<T: Send + Sync + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Written<T> {
        let Some([_, queue]) = self.queues.get() else {
            return Box::pin(ready(work(&*self.store)));
        };
        self.ask(queue, work)
    }

    fn ask<T: Send + Sync + 'static>(
        &self,
        queue: &mpsc::Sender<Job>,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Written<T> {
        let (reply, answer) = oneshot::channel();
        // It may not be waited for any more.
        let job: Job = Box::new(move |store| drop(reply.send(work(store))));
        let sent = queue.send(job).is_ok();
        Box::pin(async move {
            match (sent, answer.await) {
                (true, Ok(done)) => done,
                _ => Err(StoreError::Ended("its thread has ended")),
            }
        })
    }

    /// Resolves when all earlier writes are done.
    pub async fn flush(&self) {
        let _ = self.write(|_| Ok(())).await;
    }

    /// Drops writes that have not begun: another acc has the database.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::domain::time::WallTime;
    use crate::store::sqlite::SqliteStore;

    fn kinds(store: &dyn Store) -> Vec<String> {
        store
            .events(None, 10)
            .unwrap()
            .into_iter()
            .map(|event| event.kind.into())
            .collect()
    }

    fn note(writes: &StoreThreads, kind: &'static str) -> Written<()> {
        writes.write(move |store| store.record(WallTime(0), None, "", kind.to_owned().into(), ""))
    }

    #[tokio::test]
    async fn writes_are_done_in_their_order_whether_they_are_waited_for_or_not() {
        let store = Arc::new(SqliteStore::in_memory().unwrap());
        let writes = StoreThreads::new(store.clone());
        drop(note(&writes, "at once"));
        assert_eq!(kinds(&*store), ["at once"]);
        writes.start().unwrap();
        drop(note(&writes, "first"));
        note(&writes, "second").await.unwrap();
        drop(note(&writes, "third"));
        writes.flush().await;
        let mut all = kinds(&*store);
        all.sort();
        assert_eq!(all, ["at once", "first", "second", "third"]);
        writes.close();
        assert!(note(&writes, "late").await.is_err());
        assert_eq!(kinds(&*store).len(), 4);
    }

    #[tokio::test]
    async fn a_database_that_is_locked_holds_up_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acc.db");
        let writes = StoreThreads::new(Arc::new(SqliteStore::open(&path).unwrap()));
        writes.start().unwrap();
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut written = note(&writes, "waits");
        // This thread, the only one of the runtime, is not blocked.
        assert!(futures_util::poll!(&mut written).is_pending());
        let seen = writes.read(|store| store.events(None, 10)).await.unwrap();
        assert!(seen.is_empty(), "reading needs no lock");
        other.execute_batch("COMMIT").unwrap();
        written.await.unwrap();
        assert_eq!(kinds(&*writes.store), ["waits"]);
    }

    #[tokio::test]
    async fn after_the_end_only_the_write_under_way_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acc.db");
        let writes = StoreThreads::new(Arc::new(SqliteStore::open(&path).unwrap()));
        writes.start().unwrap();
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (begins, begun) = oneshot::channel();
        let under_way = writes.write(move |store| {
            let _ = begins.send(());
            store.record(WallTime(0), None, "", "under way".to_owned().into(), "")
        });
        let queued = note(&writes, "queued");
        begun.await.unwrap();
        writes.close();
        let mut flushed = pin!(writes.flush());
        assert!(futures_util::poll!(&mut flushed).is_pending());
        drop(other);
        flushed.await;
        assert!(futures_util::poll!(under_way).is_ready());
        assert!(queued.await.is_err());
        assert_eq!(kinds(&*writes.store), ["under way"]);
    }
}
