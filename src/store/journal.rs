//! The journal: operations of several steps that have begun and not ended. An entry is on disk
//! before the first step.

use rusqlite::{Transaction, params};

use super::{Store, StoreError};
use crate::domain::name::InstanceId;
use crate::domain::time::WallTime;

/// An operation of several steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Must be undone.
    Create,
    /// Must be finished if its phase was saved.
    Destroy,
    /// Must be finished.
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

    /// The database allows no other values.
    fn parse(text: &str) -> Self {
        match text {
            "create" => Self::Create,
            "destroy" => Self::Destroy,
            _ => Self::Purge,
        }
    }
}

impl Store {
    /// Records that an operation begins.
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

    /// Marks a create that is being undone: from now on the instance is out of service and only
    /// waits for its removal.
    pub fn condemn(&self, id: InstanceId, at: WallTime) -> Result<(), StoreError> {
        self.durably(|tx| {
            self.change(tx, "UPDATE instances SET phase = 'destroyed', pid = NULL, pid_start = NULL WHERE id = ?1", [id.0])?;
            self.note(tx, id, Work::Purge, at)
        })
    }

    /// Records that it ended.
    pub fn end(&self, id: InstanceId) -> Result<(), StoreError> {
        self.durably(|tx| {
            self.change(tx, "DELETE FROM journal WHERE instance = ?1", [id.0])
                .map(drop)
        })
    }

    /// Operations that have begun and not ended.
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
