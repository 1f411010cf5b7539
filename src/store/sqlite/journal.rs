//! The journal: operations of several steps that have begun and not ended. An entry is on disk
//! before the first step.

use rusqlite::{Transaction, params};

use super::SqliteStore;
use crate::domain::name::InstanceId;
use crate::domain::time::WallTime;
use crate::store::{OperationStore, StoreError, Work};

impl OperationStore for SqliteStore {
    fn begin(&self, id: InstanceId, work: Work, at: WallTime) -> Result<(), StoreError> {
        self.durably(|tx| self.note(tx, id, work, at))
    }

    fn condemn(&self, id: InstanceId, at: WallTime) -> Result<(), StoreError> {
        self.durably(|tx| {
            self.change(tx, "UPDATE instances SET phase = 'destroyed', pid = NULL, pid_start = NULL WHERE id = ?1", [id.0])?;
            self.note(tx, id, Work::Purge, at)
        })
    }

    fn end(&self, id: InstanceId) -> Result<(), StoreError> {
        self.durably(|tx| {
            self.change(tx, "DELETE FROM journal WHERE instance = ?1", [id.0])
                .map(drop)
        })
    }

    fn unfinished(&self) -> Result<Vec<(InstanceId, Work)>, StoreError> {
        let connection = self.reader();
        let read = || -> rusqlite::Result<Vec<(InstanceId, Work)>> {
            self.prepared(
                &connection,
                "SELECT instance, work FROM journal ORDER BY instance",
            )?
            .query_map([], |r| {
                let work: String = r.get(1)?;
                Ok((InstanceId(r.get(0)?), Work::parse(&work)))
            })?
            .collect()
        };
        read().map_err(|e| self.error(&e))
    }
}

impl SqliteStore {
    pub(super) fn note(
        &self,
        tx: &Transaction<'_>,
        id: InstanceId,
        work: Work,
        at: WallTime,
    ) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO journal (instance, work, at) VALUES (?1, ?2, ?3)";
        self.change(tx, sql, params![id.0, work.as_str(), at.0])
            .map(drop)
    }
}
