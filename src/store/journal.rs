//! The journal: work of several steps that was begun and has not ended. It is on the disk before
//! the first step is done.

use rusqlite::{Transaction, params};

use super::{Store, StoreError};
use crate::domain::name::InstanceId;
use crate::domain::time::WallTime;

/// Work of several steps that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// To be undone.
    Create,
    /// To be finished, if its phase was written.
    Destroy,
    /// To be finished.
    Purge,
}

impl Work {
    fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Destroy => "destroy",
            Self::Purge => "purge",
        }
    }

    /// The database allows no other words.
    fn parse(text: &str) -> Self {
        match text {
            "create" => Self::Create,
            "destroy" => Self::Destroy,
            _ => Self::Purge,
        }
    }
}

impl Store {
    /// Notes that work of several steps begins.
    pub fn begin(&self, id: InstanceId, work: Work, at: WallTime) -> Result<(), StoreError> {
        self.durably(|tx| self.note(tx, id, work, at))
    }

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

    /// A create that is being undone: from now on the instance is out of service and only waits to
    /// be removed.
    pub fn condemn(&self, id: InstanceId, at: WallTime) -> Result<(), StoreError> {
        self.durably(|tx| {
            self.change(tx, "UPDATE instances SET phase = 'destroyed', pid = NULL, pid_start = NULL WHERE id = ?1", [id.0])?;
            self.note(tx, id, Work::Purge, at)
        })
    }

    /// Notes that it ended.
    pub fn end(&self, id: InstanceId) -> Result<(), StoreError> {
        self.durably(|tx| {
            self.change(tx, "DELETE FROM journal WHERE instance = ?1", [id.0])
                .map(drop)
        })
    }

    /// Work that was begun and has not ended.
    pub fn unfinished(&self) -> Result<Vec<(InstanceId, Work)>, StoreError> {
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
