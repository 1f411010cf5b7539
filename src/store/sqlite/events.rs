//! The lines of the events.

use rusqlite::params;

use super::SqliteStore;
use crate::domain::name::InstanceId;
use crate::domain::time::WallTime;
use crate::store::{EventRow, EventStore, StoreError};

/// At most this many lines are deleted at once, so that no caller waits long for the database;
/// later calls delete the rest.
const AT_ONCE: i64 = 5_000;

impl EventStore for SqliteStore {
    fn record_row(&self, instance: Option<InstanceId>, row: &EventRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO events (at, instance, name, kind, detail, phases) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let values = params![
            row.at.0,
            instance.map(|i| i.0),
            row.name,
            row.kind.as_str(),
            row.detail,
            row.phases
        ];
        self.change(&*self.writer()?, sql, values).map(drop)
    }

    fn events(
        &self,
        instance: Option<InstanceId>,
        lines: usize,
    ) -> Result<Vec<EventRow>, StoreError> {
        let connection = self.reader();
        let limit = i64::try_from(lines).unwrap_or(i64::MAX);
        let row = |r: &rusqlite::Row<'_>| {
            Ok(EventRow {
                at: WallTime(r.get(0)?),
                name: r.get(1)?,
                kind: r.get::<_, String>(2)?.into(),
                detail: r.get(3)?,
                phases: r.get(4)?,
            })
        };
        let read = || -> rusqlite::Result<Vec<EventRow>> {
            match instance {
                Some(id) => self
                    .prepared(
                        &connection,
                        "SELECT at, name, kind, detail, phases FROM events WHERE instance = ?1 ORDER BY id DESC LIMIT ?2",
                    )?
                    .query_map(params![id.0, limit], row)?
                    .collect(),
                None => self
                    .prepared(&connection, "SELECT at, name, kind, detail, phases FROM events ORDER BY id DESC LIMIT ?1")?
                    .query_map(params![limit], row)?
                    .collect(),
            }
        };
        let mut rows = read().map_err(|e| self.error(&e))?;
        rows.reverse();
        Ok(rows)
    }

    fn prune_events(&self, since: WallTime, keep: usize) -> Result<(), StoreError> {
        let connection = self.writer()?;
        let sql = "SELECT (SELECT min(id) FROM events), (SELECT max(id) FROM events), \
                   (SELECT id FROM events WHERE at >= ?1 ORDER BY id LIMIT 1)";
        let row = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get(1)?, r.get(2)?));
        let found: (Option<i64>, Option<i64>, Option<i64>) = self
            .prepared(&connection, sql)
            .and_then(|mut s| s.query_row([since.0], row))
            .map_err(|e| self.error(&e))?;
        let (Some(oldest), Some(newest), young) = found else {
            return Ok(());
        };
        let too_many = newest.saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX));
        // The events are in the order of time, even if the wall clock was set: what follows a young
        // line is young.
        let too_old = young.map_or(newest, |young| young - 1);
        let last = too_many.max(too_old).min(oldest + AT_ONCE - 1);
        if last < oldest {
            return Ok(());
        }
        self.change(&connection, "DELETE FROM events WHERE id <= ?1", [last])
            .map(drop)
    }
}
