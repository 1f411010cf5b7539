//! The database as one file of SQLite: opens and migrates it.
//!
//! Every write survives the death of acc (WAL). What creates or removes an instance is also synced
//! to disk at once (`synchronous = FULL`). It decides nothing.
//!
//! No query reads more rows than it returns, however many instances sleep; a test checks the plan
//! of every query.

mod encode;
mod events;
mod instances;
mod operations;
mod private;
#[cfg(test)]
mod test_faults;
mod wal;
mod write_back;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, Params};
use rusqlite_migration::{M, Migrations};

use super::error::translate;
use super::{Store, StoreError};
pub use wal::WAL_TOO_LARGE;

/// All migrations, oldest first; their number is the database's version. Never change or remove
/// one; add new ones at the end.
const MIGRATIONS: &[M<'static>] = &[
    M::up(include_str!("migrations/0001_first.sql")),
    M::up(include_str!("migrations/0002_destroy.sql")),
    M::up(include_str!("migrations/0003_many.sql")),
    M::up(include_str!("migrations/0004_phases.sql")),
    M::up(include_str!("migrations/0005_clock.sql")),
    M::up(include_str!("migrations/0006_desired.sql")),
    M::up(include_str!("migrations/0007_names.sql")),
    M::up(include_str!("migrations/0008_operations.sql")),
    M::up(include_str!("migrations/0009_run_id.sql")),
    M::up(include_str!("migrations/0010_tries.sql")),
    M::up(include_str!("migrations/0011_compatibility.sql")),
];

/// How long to wait for another program's lock.
const BUSY: Duration = Duration::from_secs(5);

/// Cache size of the reading connection: KiB, negative (see `PRAGMA cache_size`).
const READER_CACHE: i64 = -512;

/// More than there are statements, so that none is prepared twice.
const STATEMENTS: usize = 64;

/// The open database. Calls are short and may be made from any thread.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    /// Dropped before the connections are closed.
    write_back: write_back::WriteBack,
    /// For reads while the other connection writes and syncs. It is slower: after a write by
    /// another connection SQLite discards its cached pages. Closed first: the last connection to
    /// close writes the log back and removes it.
    reader: Arc<Mutex<Connection>>,
    connection: Arc<Mutex<Connection>>,
    #[cfg(test)]
    faults: test_faults::WriteFaults,
    #[cfg(test)]
    statements: test_faults::Statements,
}

impl SqliteStore {
    /// Opens the database; makes and migrates it if necessary. One of a newer acc is used as it is
    /// if that allows it, and else refused unchanged.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let is_newer = path.exists() && usable_as_it_is(path)?;
        private::make(path)?;
        let say = |e| translate(path, &e);
        let mut connection = Connection::open(path).map_err(say)?;
        connection.busy_timeout(BUSY).map_err(say)?;
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(say)?;
        connection
            .pragma_update(None, "synchronous", "NORMAL")
            .map_err(say)?;
        connection
            .pragma_update(None, "foreign_keys", true)
            .map_err(say)?;
        connection
            .pragma_update(None, "journal_size_limit", write_back::KEPT)
            .map_err(say)?;
        if !is_newer {
            migrate(path, &mut connection)?;
        }
        let reader = read_only(path)?;
        reader
            .pragma_update(None, "cache_size", READER_CACHE)
            .map_err(say)?;
        Ok(Self::over(path, connection, Some(reader)))
    }

    fn over(path: &Path, connection: Connection, reader: Option<Connection>) -> Self {
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let connection = Arc::new(Mutex::new(connection));
        Self {
            path: path.to_owned(),
            write_back: write_back::WriteBack::default(),
            reader: reader
                .map_or_else(|| connection.clone(), |reader| Arc::new(Mutex::new(reader))),
            connection,
            #[cfg(test)]
            faults: test_faults::WriteFaults::default(),
            #[cfg(test)]
            statements: test_faults::Statements::default(),
        }
    }

    /// Opens it for reading only; makes and migrates nothing.
    pub fn open_readonly(path: &Path) -> Result<Self, StoreError> {
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => return Err(StoreError::Missing(path.to_owned())),
            // It could not be checked: that does not mean that it is missing.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(StoreError::Forbidden(path.to_owned()));
            }
            Err(e) => {
                return Err(StoreError::Unusable {
                    path: path.to_owned(),
                    why: e.to_string(),
                });
            }
        }
        usable_as_it_is(path)?;
        let connection = read_only(path)?;
        add_later_columns(&connection).map_err(|e| translate(path, &e))?;
        Ok(Self::over(path, connection, None))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic while it was held cannot leave an open transaction: SQLite rolls it back on drop.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection for reading that never waits for a writer: the writing one, if it is free.
    fn reader(&self) -> MutexGuard<'_, Connection> {
        match self.connection.try_lock() {
            Ok(connection) => connection,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.reader.lock().unwrap_or_else(PoisonError::into_inner)
            }
        }
    }

    /// The connection for writing.
    #[cfg_attr(
        not(test),
        expect(
            clippy::unnecessary_wraps,
            reason = "tests can make any write fail here"
        )
    )]
    fn writer(&self) -> Result<MutexGuard<'_, Connection>, StoreError> {
        #[cfg(test)]
        self.faults.ask(&self.path)?;
        self.write_back.used();
        Ok(self.connection())
    }

    fn error(&self, e: &rusqlite::Error) -> StoreError {
        translate(&self.path, e)
    }

    /// A statement, prepared once. Every statement comes through here, so that a test can check its
    /// plan.
    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, reason = "tests collect every statement here")
    )]
    fn prepared<'c>(
        &self,
        connection: &'c Connection,
        sql: &str,
    ) -> rusqlite::Result<CachedStatement<'c>> {
        #[cfg(test)]
        self.statements.note(sql);
        connection.prepare_cached(sql)
    }

    /// Runs a statement without a result; returns how many rows it changed.
    fn change(
        &self,
        connection: &Connection,
        sql: &str,
        values: impl Params,
    ) -> Result<usize, StoreError> {
        self.prepared(connection, sql)
            .and_then(|mut s| s.execute(values))
            .map_err(|e| self.error(&e))
    }

    /// Runs `work` in a transaction that is on the disk when this returns.
    fn durably<T, E: From<StoreError>>(
        &self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.writer()?;
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(|e| self.error(&e))?;
        let result = (|| -> Result<T, E> {
            let tx = connection
                .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
                .map_err(|e| self.error(&e))?;
            let value = work(&tx)?;
            tx.commit().map_err(|e| self.error(&e))?;
            Ok(value)
        })();
        let _ = connection.pragma_update(None, "synchronous", "NORMAL");
        result
    }
}

impl Store for SqliteStore {
    fn check(&self) -> Result<(), StoreError> {
        let found: String = self
            .connection()
            .query_row("PRAGMA quick_check(1)", [], |r| r.get(0))
            .map_err(|e| self.error(&e))?;
        if found == "ok" {
            Ok(())
        } else {
            Err(StoreError::Corrupt {
                path: self.path.clone(),
                why: found,
            })
        }
    }

    fn tidy(&self) -> Result<(), StoreError> {
        self.bound_wal()
    }

    #[cfg(test)]
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Whether a newer acc has migrated the database, and only in ways that this one need not know. So
/// this one can take the place of a newer one that does not start. `false`: it is not newer.
///
/// # Errors
/// It is newer, and this acc cannot use it.
fn usable_as_it_is(path: &Path) -> Result<bool, StoreError> {
    let connection = read_only(path)?;
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |r| r.get(0))
        .map_err(|e| translate(path, &e))?;
    let is_known = |version| usize::try_from(version).is_ok_and(|v| v <= MIGRATIONS.len());
    if is_known(found) {
        return Ok(false);
    }
    let oldest = connection.query_row("SELECT oldest FROM compatibility", [], |r| r.get(0));
    match oldest {
        Ok(oldest) if is_known(oldest) => Ok(true),
        // It could not be read; with any other error there is no such table.
        Err(e) if e.sqlite_error_code() != Some(ErrorCode::Unknown) => Err(translate(path, &e)),
        _ => Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: MIGRATIONS.len(),
        }),
    }
}

/// Gives the tables of an older database, for this connection alone, the columns that migrations
/// have added since: a command may read the database before the server that it belongs to has been
/// started and has migrated it. Databases before version 7 have other names for what is read.
fn add_later_columns(connection: &Connection) -> rusqlite::Result<()> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0))?;
    if (7..9).contains(&found) {
        connection.execute_batch(
            "CREATE TEMP VIEW instances AS SELECT *, NULL AS run_id FROM main.instances",
        )?;
    }
    if (8..10).contains(&found) {
        connection.execute_batch(
            "CREATE TEMP VIEW operations AS SELECT *, NULL AS last_try_at, NULL AS last_error \
             FROM main.operations",
        )?;
    }
    Ok(())
}

fn migrate(path: &Path, connection: &mut Connection) -> Result<(), StoreError> {
    Migrations::from_slice(MIGRATIONS)
        .to_latest(connection)
        .map_err(|e| match e {
            rusqlite_migration::Error::RusqliteError { err, .. } => translate(path, &err),
            other => StoreError::Unusable {
                path: path.to_owned(),
                why: other.to_string(),
            },
        })
}

fn read_only(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|e| translate(path, &e))?;
    connection
        .busy_timeout(BUSY)
        .map_err(|e| translate(path, &e))?;
    Ok(connection)
}

#[cfg(test)]
mod tests;
