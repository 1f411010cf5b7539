//! The thread that writes the write-ahead log back into the database, so that no writer waits for
//! the disk.
//!
//! It does not decide how large the log may become (`wal.rs` does) and never truncates it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tracing::warn;

/// It is cut to this many bytes when it starts again from the beginning.
pub(super) const KEPT: i64 = 4 * 1024 * 1024;

/// After this many uses of the writing connection the log is written back. Each use adds two to
/// four pages, so this happens about as often as in SQLite. The size of the file is no measure: it
/// stays when the log starts again from the beginning.
pub(super) const USES: u32 = 256;

/// The thread that writes the log back. When this is dropped it finishes its current work and ends.
#[derive(Debug, Default)]
pub(super) struct WriteBack {
    thread: Option<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    uses: AtomicU32,
}

impl WriteBack {
    /// Starts the thread, which uses this connection.
    pub(super) fn start(&mut self, path: PathBuf, connection: Connection) -> io::Result<()> {
        let over = self.over.clone();
        let thread = thread::Builder::new().name("write-back".to_owned());
        self.thread = Some(thread.spawn(move || write_back(&path, &connection, &over))?);
        Ok(())
    }

    /// Notes a use of the writing connection.
    pub(super) fn used(&self) {
        let Some(thread) = &self.thread else { return };
        if self.uses.fetch_add(1, Ordering::Relaxed) % USES == USES - 1 {
            thread.thread().unpark();
        }
    }
}

impl Drop for WriteBack {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Writes back whenever it is woken, without blocking readers and writers.
fn write_back(path: &Path, connection: &Connection, over: &AtomicBool) {
    loop {
        thread::park();
        if over.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            warn!(database = %path.display(), %error, "could not write back the write-ahead log; acc will try again");
        }
    }
}
