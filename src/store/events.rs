//! The ledger: who was woken by what, put to sleep, failed. Bounded by age and count.

use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError};
use crate::domain::name::InstanceId;
use crate::domain::time::WallTime;

/// At most this many lines go at once: nobody waits long for the database, and the rest goes with the next calls.
const AT_ONCE: i64 = 5_000;

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// When.
    pub at: WallTime,
    /// The instance's name at that time; empty for acc itself.
    pub name: String,
    /// What kind.
    pub kind: String,
    /// A sentence.
    pub detail: String,
}

impl Store {
    /// Adds a line.
    pub fn record(&self, at: WallTime, instance: Option<InstanceId>, name: &str, kind: &str, detail: &str) -> Result<(), StoreError> {
        let sql = "INSERT INTO events (at, instance, name, kind, detail) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.change(&*self.writer()?, sql, params![at.0, instance.map(|i| i.0), name, kind, detail]).map(drop)
    }

    /// The newest `lines` lines, oldest first, of one instance or of all.
    pub fn events(&self, instance: Option<InstanceId>, lines: usize) -> Result<Vec<EventRow>, StoreError> {
        let connection = self.connection();
        let limit = i64::try_from(lines).unwrap_or(i64::MAX);
        let row = |r: &rusqlite::Row<'_>| Ok(EventRow { at: WallTime(r.get(0)?), name: r.get(1)?, kind: r.get(2)?, detail: r.get(3)? });
        let read = || -> rusqlite::Result<Vec<EventRow>> {
            match instance {
                Some(id) => self
                    .prepared(&connection, "SELECT at, name, kind, detail FROM events WHERE instance = ?1 ORDER BY id DESC LIMIT ?2")?
                    .query_map(params![id.0, limit], row)?
                    .collect(),
                None => self
                    .prepared(&connection, "SELECT at, name, kind, detail FROM events ORDER BY id DESC LIMIT ?1")?
                    .query_map(params![limit], row)?
                    .collect(),
            }
        };
        let mut rows = read().map_err(|e| self.error(&e))?;
        rows.reverse();
        Ok(rows)
    }

    /// Drops the oldest lines that are from before `since` or more than `keep`; when there are very many, some of them.
    pub fn prune_events(&self, since: WallTime, keep: usize) -> Result<(), StoreError> {
        let connection = self.writer()?;
        let old = "(id <= (SELECT max(id) FROM events) - ?1 OR at < ?2)";
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        let values = params![keep, since.0];
        let oldest: Option<bool> = self
            .prepared(&connection, &format!("SELECT {old} FROM events ORDER BY id LIMIT 1"))
            .and_then(|mut s| s.query_row(values, |r| r.get(0)).optional())
            .map_err(|e| self.error(&e))?;
        // The ledger is in the order of time: with the oldest line kept, all are.
        if oldest != Some(true) {
            return Ok(());
        }
        let sql = format!("DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY id LIMIT {AT_ONCE}) AND {old}");
        self.change(&connection, &sql, values).map(drop)
    }
}
