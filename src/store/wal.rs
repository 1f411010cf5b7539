//! The write-ahead log: it must not grow without end, whoever reads meanwhile.
//!
//! SQLite writes it back after every thousand pages, and waits twice for the disk while it does; in
//! a server, where that would be in the midst of somebody's wake, a thread of its own does it
//! ([`Store::write_back_beside`]). The log can begin anew only in a moment in which nobody reads
//! what is in it. acc's own readers take what they want in one statement and let go. Readers
//! without a gap between them, or one that holds on (a shell of `sqlite3` with an open
//! transaction), would let it grow: then a pass waits for its moment.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

use super::{BUSY, Store, StoreError, translate};

/// From this many bytes on a pass sees to it.
const LARGE: u64 = 16 * 1024 * 1024;

/// From this many bytes on somebody must be holding on to it.
pub const WAL_TOO_LARGE: u64 = 4 * LARGE;

/// Nobody waits longer for the database because of it.
const PATIENCE: Duration = Duration::from_millis(200);

/// With so many pages in the log whoever writes brings them back himself: the thread does not come
/// to it.
const MOST_PAGES: u32 = 4000;

impl Store {
    /// From now on nobody who writes does what SQLite would have him do after every thousand pages,
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

    /// Writes the log back and empties it when it has become large. Readers that do not let go keep
    /// it as it is until a later call.
    pub fn bound_wal(&self) -> Result<(), StoreError> {
        if self.wal_size() < LARGE {
            return Ok(());
        }
        let connection = self.writer()?;
        connection
            .busy_timeout(PATIENCE)
            .map_err(|e| self.error(&e))?;
        // It answers whether somebody was in the way; then there is a next time.
        let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        connection.busy_timeout(BUSY).map_err(|e| self.error(&e))?;
        emptied.map_err(|e| self.error(&e))
    }
}
