//! The write-ahead log: it must not grow without end while other processes read.
//!
//! SQLite writes it back after every thousand pages, and waits twice for the disk while it does; in
//! a server, where that would delay a wake, a thread of its own does it
//! ([`Store::write_back_beside`]). The log can begin anew only in a moment in which no process
//! reads what is in it. acc's own readers read in one statement and then release it. Readers
//! without a gap between them, or one that holds on (a shell of `sqlite3` with an open
//! transaction), would let it grow: then a monitor run waits for its moment.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

use super::{BUSY, Store, StoreError, translate};

/// From this many bytes on a monitor run truncates it.
const LARGE: u64 = 16 * 1024 * 1024;

/// From this many bytes on another process must hold a read transaction.
pub const WAL_TOO_LARGE: u64 = 4 * LARGE;

/// The longest wait for the database because of it.
const PATIENCE: Duration = Duration::from_millis(200);

/// With so many pages in the log the writer writes them back itself: the thread cannot
/// keep up.
const MOST_PAGES: u32 = 4000;

impl Store {
    /// From now on writers skip what SQLite would do after every thousand pages,
    /// unless there is so much to write that the thread never catches up: for a server. Commands,
    /// which have no time for a thread, leave it as it is.
    ///
    /// # Errors
    /// The database cannot be opened once more, or no thread can be made.
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

    /// Bytes of the log on the disk; 0 when there is none.
    #[must_use]
    pub fn wal_size(&self) -> u64 {
        let mut path = self.path.clone().into_os_string();
        path.push("-wal");
        std::fs::metadata(PathBuf::from(path)).map_or(0, |m| m.len())
    }

    /// Writes the log back and empties it when it has become large. Open read transactions keep
    /// it as it is until a later call.
    pub fn bound_wal(&self) -> Result<(), StoreError> {
        if self.wal_size() < LARGE {
            return Ok(());
        }
        let connection = self.writer()?;
        connection
            .busy_timeout(PATIENCE)
            .map_err(|e| self.error(&e))?;
        // It returns whether a reader was in the way; then the next run tries again.
        let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        connection.busy_timeout(BUSY).map_err(|e| self.error(&e))?;
        emptied.map_err(|e| self.error(&e))
    }
}
