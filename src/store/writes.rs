//! Writes to the database, one after the other and in their order, on a thread of its own: a slow
//! disk, or a database that another program has locked, delays only those who wait for their write.
//!
//! A command, which has nothing else to do meanwhile, writes at once on its own thread. It decides
//! nothing about what is written.

use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

use tokio::sync::oneshot;

use super::{Store, StoreError};

type Job = Box<dyn FnOnce(&Store) + Send>;

/// A write that was asked for, and goes on whether it is waited for or not. Resolves to what came
/// of it.
pub type Written<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + Sync>>;

/// The way to write.
#[derive(Debug)]
pub struct Writes {
    store: Arc<Store>,
    /// Of the thread; not set: writes are done at once.
    queue: OnceLock<mpsc::Sender<Job>>,
    closed: Arc<AtomicBool>,
}

impl Writes {
    /// Writes are done at once, on the caller's thread.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            queue: OnceLock::new(),
            closed: Arc::default(),
        }
    }

    /// From now on they are done by a thread, which ends with this value.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(&self) -> io::Result<()> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let store = self.store.clone();
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || jobs.into_iter().for_each(|job| job(&store)))?;
        let _ = self.queue.set(sender);
        Ok(())
    }

    /// Asks for a write: it is in its place among the others when this returns.
    pub fn ask<T: Send + Sync + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Written<T> {
        let Some(queue) = self.queue.get() else {
            return Box::pin(ready(work(&self.store)));
        };
        let (reply, answer) = oneshot::channel();
        let closed = self.closed.clone();
        let job: Job = Box::new(move |store| {
            let done = if closed.load(Ordering::SeqCst) {
                Err(ended(store, "another acc process has taken over"))
            } else {
                work(store)
            };
            // It may not be waited for any more.
            let _ = reply.send(done);
        });
        let sent = queue.send(job).is_ok();
        let store = self.store.clone();
        Box::pin(async move {
            match (sent, answer.await) {
                (true, Ok(done)) => done,
                _ => Err(ended(&store, "the writer thread has ended")),
            }
        })
    }

    /// Resolves when all writes were done that were asked for before.
    pub async fn flush(&self) {
        let _ = self.ask(|_| Ok(())).await;
    }

    /// Writes that were not begun are not done any more: another acc has the database.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

fn ended(store: &Store, why: &str) -> StoreError {
    StoreError::Unusable {
        path: store.path.clone(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::WallTime;

    fn kinds(store: &Store) -> Vec<String> {
        store
            .events(None, 10)
            .unwrap()
            .into_iter()
            .map(|event| event.kind)
            .collect()
    }

    fn note(writes: &Writes, kind: &'static str) -> Written<()> {
        writes.ask(move |store| store.record(WallTime(0), None, "", kind, ""))
    }

    #[tokio::test]
    async fn writes_are_done_in_their_order_whether_they_are_waited_for_or_not() {
        let store = Arc::new(Store::in_memory().unwrap());
        let writes = Writes::new(store.clone());
        drop(note(&writes, "at once"));
        assert_eq!(kinds(&store), ["at once"]);
        writes.start().unwrap();
        drop(note(&writes, "first"));
        note(&writes, "second").await.unwrap();
        drop(note(&writes, "third"));
        writes.flush().await;
        let mut all = kinds(&store);
        all.sort();
        assert_eq!(all, ["at once", "first", "second", "third"]);
        writes.close();
        assert!(note(&writes, "late").await.is_err());
        assert_eq!(kinds(&store).len(), 4);
    }

    #[tokio::test]
    async fn a_database_that_is_locked_holds_up_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acc.db");
        let writes = Writes::new(Arc::new(Store::open(&path).unwrap()));
        writes.start().unwrap();
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut written = note(&writes, "waits");
        // This thread, the only one of the runtime, goes on.
        assert!(futures_util::poll!(&mut written).is_pending());
        assert!(kinds(&writes.store).is_empty(), "reading needs no lock");
        other.execute_batch("COMMIT").unwrap();
        written.await.unwrap();
        assert_eq!(kinds(&writes.store), ["waits"]);
    }
}
