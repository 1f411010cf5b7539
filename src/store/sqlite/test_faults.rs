//! For tests: a database in memory that outlives one acc, and writes that fail when the test says
//! so.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Connection, SqliteStore, Store, StoreError};

type Full = Arc<dyn Fn() -> bool + Send + Sync>;

/// Called before each write.
#[derive(Clone, Default)]
pub(super) struct WriteFaults(Arc<Mutex<Option<Full>>>);

impl std::fmt::Debug for WriteFaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WriteFaults")
    }
}

impl WriteFaults {
    pub(super) fn ask(&self, path: &Path) -> Result<(), StoreError> {
        let full = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match full {
            Some(full) if full() => Err(StoreError::Full(path.to_owned())),
            _ => Ok(()),
        }
    }
}

/// The text of every used statement.
#[derive(Debug, Clone, Default)]
pub(super) struct Statements(Arc<Mutex<BTreeSet<String>>>);

impl Statements {
    pub(super) fn note(&self, sql: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(sql) {
            all.insert(sql.to_owned());
        }
    }

    pub(super) fn all(&self) -> BTreeSet<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl SqliteStore {
    /// The implementation behind the trait.
    pub(crate) fn of(store: &dyn Store) -> &Self {
        store.as_any().downcast_ref().unwrap()
    }

    /// A database in memory only.
    pub(crate) fn in_memory() -> Result<Self, StoreError> {
        let path = Path::new(":memory:");
        let mut connection =
            Connection::open_in_memory().map_err(|e| super::translate(path, &e))?;
        connection
            .pragma_update(None, "foreign_keys", true)
            .map_err(|e| super::translate(path, &e))?;
        super::migrate(path, &mut connection)?;
        Ok(Self::over(path, connection, None))
    }

    /// The same database for another acc: what a file on disk is to the next process.
    pub(crate) fn twin(&self) -> Self {
        Self {
            write_back: super::write_back::WriteBack::default(),
            path: self.path.clone(),
            connection: self.connection.clone(),
            reader: self.reader.clone(),
            faults: self.faults.clone(),
            statements: self.statements.clone(),
        }
    }

    /// Names and phases of all instances, which tests read often.
    pub(crate) fn phases(&self) -> Vec<(String, String)> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT name, phase FROM instances")
            .unwrap();
        statement
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    /// Makes writes fail as on a full disk while `full` returns true.
    pub(crate) fn fail_writes_when(&self, full: impl Fn() -> bool + Send + Sync + 'static) {
        *self.faults.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(full));
    }
}
