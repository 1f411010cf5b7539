//! Operations: long work on an instance, recorded from its first step to its end and kept as
//! history.
//!
//! Begin and end are on disk before acc acts on them or reports them; a step is not, because only
//! people read it. It never decides what becomes of one that was left unfinished
//! (`service::recover` does).

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::SqliteStore;
use crate::domain::name::InstanceId;
use crate::domain::operation::{OperationKind, OperationState, OperationStep};
use crate::domain::time::WallTime;
use crate::store::{NewOperation, OperationRow, OperationStore, StoreError};

/// The first version of the database that has operations.
const SINCE: i64 = 8;

/// At most this many are deleted at once; later calls delete the rest.
const AT_ONCE: i64 = 5_000;

impl OperationStore for SqliteStore {
    fn begin(&self, new: &NewOperation) -> Result<(), StoreError> {
        self.durably(|tx| {
            let why = format!("was left unfinished; `{}` followed", new.kind.as_str());
            self.end(tx, new.instance, OperationState::Failed, new.at, &why)?;
            self.note(tx, new)
        })
    }

    fn step(&self, id: InstanceId, step: OperationStep) -> Result<(), StoreError> {
        let sql = "UPDATE operations SET step = ?2 WHERE instance = ?1 AND state = 'running' AND step <> 'undo'";
        self.change(&*self.writer()?, sql, params![id.0, step.as_str()])
            .map(drop)
    }

    fn condemn(&self, id: InstanceId, why: &str) -> Result<(), StoreError> {
        self.durably(|tx| {
            self.change(tx, "UPDATE instances SET phase = 'destroyed', pid = NULL, pid_start = NULL, run_id = NULL WHERE id = ?1", [id.0])?;
            let sql = "UPDATE operations SET step = 'undo', result = coalesce(result, ?2) WHERE instance = ?1 AND state = 'running'";
            self.change(tx, sql, params![id.0, why]).map(drop)
        })
    }

    fn not_ended(&self, id: InstanceId, at: WallTime, error: &str) -> Result<(), StoreError> {
        let sql = "UPDATE operations SET last_try_at = ?2, last_error = ?3 WHERE instance = ?1 AND state = 'running'";
        self.change(&*self.writer()?, sql, params![id.0, at.0, error])
            .map(drop)
    }

    fn finish(&self, id: InstanceId, at: WallTime, result: &str) -> Result<(), StoreError> {
        self.durably(|tx| self.end(tx, id, OperationState::Done, at, result))
    }

    fn fail(&self, id: InstanceId, at: WallTime, error: &str) -> Result<(), StoreError> {
        self.durably(|tx| self.end(tx, id, OperationState::Failed, at, error))
    }

    fn delete(&self, id: InstanceId, at: WallTime) -> Result<(), StoreError> {
        self.durably(|tx| {
            self.change(tx, "DELETE FROM instances WHERE id = ?1", [id.0])?;
            let sql = "UPDATE operations SET state = CASE step WHEN 'undo' THEN 'failed' ELSE 'done' END, ended_at = ?2, \
                       result = coalesce(result, 'files removed') WHERE instance = ?1 AND state = 'running'";
            self.change(tx, sql, params![id.0, at.0]).map(drop)
        })
    }

    fn unfinished(&self) -> Result<Vec<(InstanceId, OperationKind)>, StoreError> {
        let connection = self.reader();
        let sql = "SELECT kind, instance FROM operations WHERE state = 'running' ORDER BY instance";
        let read = || -> rusqlite::Result<Vec<(InstanceId, OperationKind)>> {
            self.prepared(&connection, sql)?
                .query_map([], |r| {
                    Ok((InstanceId(r.get(1)?), word(r, 0, OperationKind::parse)?))
                })?
                .collect()
        };
        read().map_err(|e| self.error(&e))
    }

    fn last_operation(&self, id: InstanceId) -> Result<Option<OperationRow>, StoreError> {
        let connection = self.reader();
        let read = || -> rusqlite::Result<Option<OperationRow>> {
            if version(&connection)? < SINCE {
                return Ok(None);
            }
            let sql = "SELECT kind, state, step, started_at, ended_at, result, asked_by, last_try_at, last_error \
                 FROM operations WHERE instance = ?1 ORDER BY id DESC LIMIT 1";
            let mut statement = self.prepared(&connection, sql)?;
            statement.query_row([id.0], read_row).optional()
        };
        read().map_err(|e| self.error(&e))
    }

    fn prune_operations(&self, since: WallTime, keep: usize) -> Result<(), StoreError> {
        // Numbers are in the order of time, even if the wall clock was set.
        let sql = "DELETE FROM operations WHERE id IN (SELECT id FROM operations WHERE state <> 'running' AND id <= max(\
                   (SELECT max(id) FROM operations) - ?2, \
                   coalesce((SELECT id FROM operations WHERE started_at >= ?1 ORDER BY id LIMIT 1) - 1, (SELECT max(id) FROM operations))) \
                   ORDER BY id LIMIT ?3)";
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        self.change(&*self.writer()?, sql, params![since.0, keep, AT_ONCE])
            .map(drop)
    }
}

impl SqliteStore {
    pub(super) fn note(&self, tx: &Transaction<'_>, new: &NewOperation) -> Result<(), StoreError> {
        let sql = "INSERT INTO operations (instance, name, kind, state, step, started_at, asked_by) VALUES (?1, ?2, ?3, 'running', ?4, ?5, ?6)";
        let (kind, step) = (new.kind.as_str(), new.kind.first_step().as_str());
        let (name, at) = (new.name.as_str(), new.at.0);
        let values = params![new.instance.0, name, kind, step, at, new.asked_by];
        self.change(tx, sql, values).map(drop)
    }

    /// A result that is known already is the first cause, and stays.
    fn end(
        &self,
        tx: &Transaction<'_>,
        id: InstanceId,
        state: OperationState,
        at: WallTime,
        result: &str,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE operations SET state = ?2, ended_at = ?3, result = coalesce(result, ?4) WHERE instance = ?1 AND state = 'running'";
        self.change(tx, sql, params![id.0, state.as_str(), at.0, result])
            .map(drop)
    }
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |r| r.get(0))
}

/// A word of `domain::operation`.
fn word<T>(
    r: &rusqlite::Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let text: String = r.get(column)?;
    parse(&text).ok_or_else(|| {
        let what = format!("`{text}` in a row of `operations` is not known");
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, what.into())
    })
}

fn read_row(r: &rusqlite::Row<'_>) -> rusqlite::Result<OperationRow> {
    Ok(OperationRow {
        kind: word(r, 0, OperationKind::parse)?,
        state: word(r, 1, OperationState::parse)?,
        step: word(r, 2, OperationStep::parse)?,
        started_at: WallTime(r.get(3)?),
        ended_at: r.get::<_, Option<i64>>(4)?.map(WallTime),
        result: r.get(5)?,
        asked_by: r.get(6)?,
        last_try_at: r.get::<_, Option<i64>>(7)?.map(WallTime),
        last_error: r.get(8)?,
    })
}
