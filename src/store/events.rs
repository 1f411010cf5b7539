//! The ledger: who was woken by what, put to sleep, failed. Bounded by age and count.

use rusqlite::params;

use super::{Store, StoreError};
use crate::domain::name::InstanceId;
use crate::domain::time::WallTime;

/// Oldest entries beyond this many are dropped.
const KEEP: i64 = 100_000;
/// Entries older than this are dropped: 90 days.
const KEEP_MS: i64 = 90 * 24 * 3600 * 1000;

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
    /// Of a wake: where its time went, as JSON.
    pub phases: Option<String>,
}

impl Store {
    /// Adds a line.
    pub fn record(&self, at: WallTime, instance: Option<InstanceId>, name: &str, kind: &str, detail: &str) -> Result<(), StoreError> {
        let (name, kind, detail) = (name.to_owned(), kind.to_owned(), detail.to_owned());
        self.record_row(instance, &EventRow { at, name, kind, detail, phases: None })
    }

    /// The same for one that has more to say.
    pub fn record_row(&self, instance: Option<InstanceId>, row: &EventRow) -> Result<(), StoreError> {
        let values = params![row.at.0, instance.map(|i| i.0), row.name, row.kind, row.detail, row.phases];
        self.writer()?
            .prepare_cached("INSERT INTO events (at, instance, name, kind, detail, phases) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
            .and_then(|mut s| s.execute(values))
            .map(|_| ())
            .map_err(|e| self.error(&e))
    }

    /// The newest `lines` lines, oldest first, of one instance or of all.
    pub fn events(&self, instance: Option<InstanceId>, lines: usize) -> Result<Vec<EventRow>, StoreError> {
        let connection = self.connection();
        let read = || -> rusqlite::Result<Vec<EventRow>> {
            let mut statement = connection.prepare_cached(match instance {
                Some(_) => "SELECT at, name, kind, detail, phases FROM events WHERE instance = ?1 ORDER BY id DESC LIMIT ?2",
                None => "SELECT at, name, kind, detail, phases FROM events WHERE ?1 IS NULL ORDER BY id DESC LIMIT ?2",
            })?;
            let limit = i64::try_from(lines).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![instance.map(|i| i.0), limit], |r| {
                Ok(EventRow { at: WallTime(r.get(0)?), name: r.get(1)?, kind: r.get(2)?, detail: r.get(3)?, phases: r.get(4)? })
            })?;
            rows.collect()
        };
        let mut rows = read().map_err(|e| self.error(&e))?;
        rows.reverse();
        Ok(rows)
    }

    /// Drops what is too old or too much.
    pub fn prune_events(&self, now: WallTime) -> Result<(), StoreError> {
        self.writer()?
            .prepare_cached(
                "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?1 OR id <= (SELECT max(id) FROM \
                 (SELECT id, at FROM events ORDER BY id LIMIT 1000) WHERE at < ?2)",
            )
            .and_then(|mut s| s.execute(params![KEEP, now.0 - KEEP_MS]))
            .map(|_| ())
            .map_err(|e| self.error(&e))
    }
}
