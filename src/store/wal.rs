//! The write-ahead log: it must not grow without end, whoever reads meanwhile.
//!
//! SQLite writes it back after every thousand pages, and waits twice for the disk while it does; in a server, where that would
//! be in the midst of somebody's wake, a thread of its own does it ([`Store::write_back_beside`]). The log can begin anew only in
//! a moment in which nobody reads what is in it. acc's own readers take what they want in one statement and let go. Readers
//! without a gap between them, or one that holds on (a shell of `sqlite3` with an open transaction), would let it grow: then a
//! pass waits for its moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tracing::warn;

use super::{BUSY, Store, StoreError, translate};

/// It is cut to this many bytes whenever it begins anew.
pub(super) const KEPT: i64 = 4 * 1024 * 1024;

/// From this many bytes on a pass sees to it.
const LARGE: u64 = 16 * 1024 * 1024;

/// From this many bytes on somebody must be holding on to it.
pub const WAL_TOO_LARGE: u64 = 4 * LARGE;

/// Nobody waits longer for the database because of it.
const PATIENCE: Duration = Duration::from_millis(200);

/// After so many uses of the writing connection the log is written back beside: each adds two to four pages, so that it is done
/// about as often as SQLite would. By the size of the file it cannot be told: that stays when the log begins anew.
pub(super) const USES: u32 = 256;

/// With so many pages in the log whoever writes brings them back himself: the thread does not come to it.
const MOST_PAGES: u32 = 4000;

/// The thread that writes the log back; it ends, with what it is at, when this is dropped.
#[derive(Debug, Default)]
pub(super) struct WriteBack {
    thread: Option<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    uses: AtomicU32,
}

impl WriteBack {
    /// The writing connection is being used.
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

/// Writes back whenever it is woken. Those who write or read meanwhile are not in its way.
fn write_back(path: &Path, connection: &Connection, over: &AtomicBool) {
    loop {
        thread::park();
        if over.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            warn!(database = %path.display(), %error, "could not write the log of the database back; it is tried again");
        }
    }
}

impl Store {
    /// From now on nobody who writes does what SQLite would have him do after every thousand pages, unless there is so much to
    /// write that the thread never catches up: for a server. Commands, which have no time for a thread, leave it as it is.
    ///
    /// # Errors
    /// The database cannot be opened once more, or no thread can be made.
    pub fn write_back_beside(&mut self) -> Result<(), StoreError> {
        let connection = Connection::open(&self.path).map_err(|e| self.error(&e))?;
        let (path, over) = (self.path.clone(), self.write_back.over.clone());
        let thread = thread::Builder::new().name("write-back".to_owned());
        let thread = thread.spawn(move || write_back(&path, &connection, &over));
        let no_thread = |e: std::io::Error| StoreError::Unusable { path: self.path.clone(), why: e.to_string() };
        self.write_back.thread = Some(thread.map_err(no_thread)?);
        let connection = self.connection();
        connection.pragma_update(None, "wal_autocheckpoint", MOST_PAGES).map_err(|e| translate(&self.path, &e))
    }

    /// Bytes of the log on the disk; 0 when there is none.
    #[must_use]
    pub fn wal_size(&self) -> u64 {
        let mut path = self.path.clone().into_os_string();
        path.push("-wal");
        std::fs::metadata(PathBuf::from(path)).map_or(0, |m| m.len())
    }

    /// Writes the log back and empties it when it has become large. Readers that do not let go keep it as it is until a later call.
    pub fn bound_wal(&self) -> Result<(), StoreError> {
        if self.wal_size() < LARGE {
            return Ok(());
        }
        let connection = self.writer()?;
        connection.busy_timeout(PATIENCE).map_err(|e| self.error(&e))?;
        // It answers whether somebody was in the way; then there is a next time.
        let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        connection.busy_timeout(BUSY).map_err(|e| self.error(&e))?;
        emptied.map_err(|e| self.error(&e))
    }
}
