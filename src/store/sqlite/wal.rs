//! The write-ahead log: keeps it from growing without limit while other processes read.
//!
//! SQLite writes it back after every thousand pages, and waits twice for the disk meanwhile. In a
//! server that would delay a wake, so a thread does it ([`SqliteStore::write_back_beside`]). The log can
//! start again from the beginning only when no process reads from it. acc's own readers use one
//! statement and then release it. Readers without a gap between them, or one with an open
//! transaction (a shell of `sqlite3`), would let the log grow: then a monitor run waits for a free
//! moment.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

use super::{BUSY, SqliteStore, StoreError, translate};

/// Above this many bytes a monitor run truncates it.
const LARGE: u64 = 16 * 1024 * 1024;

/// Above this many bytes, another process must hold a read transaction.
pub const WAL_TOO_LARGE: u64 = 4 * LARGE;

/// The longest wait for the database to truncate it.
const PATIENCE: Duration = Duration::from_millis(200);

/// With this many pages in the log the writer writes them back itself: the thread is too slow.
const MOST_PAGES: u32 = 4000;

impl SqliteStore {
    /// Makes a thread write the log back, for a server. Writers then do so only if the thread does
    /// not keep up. Commands are too short for a thread and keep SQLite's default.
    ///
    /// # Errors
    /// The database cannot be opened once more, or no thread can be started.
    pub fn write_back_beside(&mut self) -> Result<(), StoreError> {
        let connection = Connection::open(&self.path).map_err(|e| self.error(&e))?;
        let no_thread = |e: std::io::Error| StoreError::Unusable {
            path: self.path.clone(),
            why: e.to_string(),
        };
        self.write_back
            .start(self.path.clone(), connection)
            .map_err(no_thread)?;
        let connection = self.connection();
        connection
            .pragma_update(None, "wal_autocheckpoint", MOST_PAGES)
            .map_err(|e| translate(&self.path, &e))
    }

    /// Size of the log on disk; 0 if there is none.
    #[must_use]
    pub fn wal_size(&self) -> u64 {
        let mut path = self.path.clone().into_os_string();
        path.push("-wal");
        std::fs::metadata(PathBuf::from(path)).map_or(0, |m| m.len())
    }

    /// Writes the log back and truncates it if it is large. Open read transactions prevent this
    /// until a later call.
    pub(super) fn bound_wal(&self) -> Result<(), StoreError> {
        if self.wal_size() < LARGE {
            return Ok(());
        }
        let connection = self.writer()?;
        connection
            .busy_timeout(PATIENCE)
            .map_err(|e| self.error(&e))?;
        // It returns whether a reader prevented it; then the next run tries again.
        let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        connection.busy_timeout(BUSY).map_err(|e| self.error(&e))?;
        emptied.map_err(|e| self.error(&e))
    }
}
