//! Rows of instances: made, read, saved, removed.

use std::time::Duration;

use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, ToSql, Transaction, params};

use super::{SqliteStore, encode};
use crate::domain::instance::{DesiredState, Launch, Process, RunId};
use crate::domain::lifecycle::{Phase, Stored};
use crate::domain::name::{HostName, InstanceId, InstanceName};
use crate::domain::operation::OperationKind;
use crate::domain::time::{Timestamp, WallTime};
use crate::store::{
    Conflict, Filter, InstanceStore, LogCheck, NewOperation, NewRow, Row, Save, StoreError,
};

const COLUMNS: &str = "id, name, model, port, params, launch, launch_key, owner, idle_ms, created_at, last_wake_at, \
     last_active_at, wakes, phase, desired, run, pid, pid_start, boot, since, quiet_since, failures, failure, retry_at, log_mark, \
     checked_at, clock, run_id, (SELECT group_concat(host, ' ') FROM (SELECT host FROM hosts WHERE instance = instances.id ORDER BY place))";

const HAS_NAME: &str = "SELECT 1 FROM instances WHERE name = ?1";
const RELAUNCH: &str = "UPDATE instances SET launch = ?2, launch_key = ?3 WHERE id = ?1";

impl InstanceStore for SqliteStore {
    fn insert(&self, new: &NewRow<'_>) -> Result<InstanceId, StoreError> {
        self.durably(|tx| self.insert_row(tx, new))
    }

    fn by_id(&self, id: InstanceId) -> Result<Option<Row>, StoreError> {
        self.one(&self.reader(), "id = ?1", [id.0])
    }

    fn by_name(&self, name: &str) -> Result<Option<Row>, StoreError> {
        self.one(&self.reader(), "name = ?1", [name])
    }

    fn by_host(&self, host: &str, name: Option<&str>) -> Result<Option<Row>, StoreError> {
        let condition = "id = coalesce((SELECT instance FROM hosts WHERE host = ?1), (SELECT id FROM instances WHERE name = ?2))";
        self.one(&self.reader(), condition, params![host, name])
    }

    fn list(&self, filter: &Filter<'_>) -> Result<Vec<Row>, StoreError> {
        // A condition is included only if it is set, so that every combination has an index in the
        // order of names.
        let given = [
            (filter.phase.is_some(), "phase = ?1"),
            (filter.model.is_some(), "model = ?2"),
            (filter.after.is_some(), "name > ?3"),
        ];
        let conditions: Vec<&str> = given
            .into_iter()
            .filter(|(is_given, _)| *is_given)
            .map(|(_, text)| text)
            .collect();
        let all = if conditions.is_empty() {
            "1".to_owned()
        } else {
            conditions.join(" AND ")
        };
        let limit = filter.limit.map_or(-1, |l| i64::try_from(l).unwrap_or(-1));
        self.many(
            &format!("{all} ORDER BY name LIMIT ?4"),
            params![filter.phase, filter.model, filter.after, limit],
        )
    }

    fn busy(&self) -> Result<Vec<Row>, StoreError> {
        self.many(
            "phase IN ('creating', 'waking', 'awake', 'draining', 'stopping', 'failed')",
            [],
        )
    }

    fn desired_up(&self) -> Result<Vec<Row>, StoreError> {
        self.many(
            "desired = 'up' AND phase <> 'destroyed' AND phase <> 'creating'",
            [],
        )
    }

    fn routed(&self) -> Result<Vec<Row>, StoreError> {
        self.many(
            "id IN (SELECT id FROM instances WHERE port IS NOT NULL UNION SELECT instance FROM hosts) AND phase <> 'destroyed' ORDER BY id",
            [],
        )
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        self.column("SELECT name FROM instances ORDER BY name", [])
    }

    fn made_elsewhere(&self, here: &str) -> Result<Option<String>, StoreError> {
        let made = "phase NOT IN ('creating', 'destroyed') AND launch_key <> ''";
        let length = i64::try_from(here.chars().count()).unwrap_or(i64::MAX);
        let of_here = format!(
            "SELECT launch_key FROM instances WHERE {made} AND substr(launch_key, 1, ?1) = ?2 LIMIT 1"
        );
        if self
            .column::<String>(&of_here, params![length, here])?
            .is_empty()
        {
            return Ok(self
                .column(
                    &format!("SELECT launch_key FROM instances WHERE {made} LIMIT 1"),
                    [],
                )?
                .pop());
        }
        Ok(None)
    }

    fn names_after(
        &self,
        id: InstanceId,
        limit: u32,
    ) -> Result<Vec<(InstanceId, String)>, StoreError> {
        let connection = self.reader();
        let read = || -> rusqlite::Result<Vec<_>> {
            self.prepared(
                &connection,
                "SELECT id, name FROM instances WHERE id > ?1 ORDER BY id LIMIT ?2",
            )?
            .query_map(params![id.0, limit], |r| {
                Ok((InstanceId(r.get(0)?), r.get(1)?))
            })?
            .collect()
        };
        read().map_err(|e| self.error(&e))
    }

    fn newest(&self) -> Result<Option<InstanceId>, StoreError> {
        Ok(self
            .column("SELECT id FROM instances ORDER BY id DESC LIMIT 1", [])?
            .pop()
            .map(InstanceId))
    }

    fn has_name(&self, name: &str) -> Result<bool, StoreError> {
        self.is_there(&self.reader(), HAS_NAME, name)
    }

    fn has_port(&self, port: u16) -> Result<bool, StoreError> {
        self.is_there(
            &self.reader(),
            "SELECT 1 FROM instances WHERE port = ?1",
            port,
        )
    }

    fn newest_port(&self) -> Result<Option<u16>, StoreError> {
        Ok(self
            .column(
                "SELECT port FROM instances WHERE port IS NOT NULL ORDER BY id DESC LIMIT 1",
                [],
            )?
            .pop())
    }

    fn save(&self, id: InstanceId, save: &Save<'_>) -> Result<(), StoreError> {
        let s = save.stored;
        let process = s.run_id.as_ref().and_then(RunId::process);
        let connection = self.writer()?;
        self.prepared(
            &connection,
            "UPDATE instances SET phase = ?2, desired = ?3, run = ?4, pid = ?5, pid_start = ?6, run_id = ?16, boot = ?7, since = ?8, quiet_since = ?9, \
                 failures = ?10, failure = ?11, retry_at = ?12, last_wake_at = coalesce(?13, last_wake_at), \
                 wakes = wakes + (?13 IS NOT NULL), last_active_at = coalesce(?14, last_active_at), clock = ?15 \
                 WHERE id = ?1",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                id.0,
                s.phase.as_str(),
                s.desired.as_str(),
                i64::try_from(s.run).unwrap_or(i64::MAX),
                process.map(|p| p.pid),
                process.map(|p| i64::try_from(p.start_time).unwrap_or(0)),
                save.boot,
                stamp(s.since),
                stamp(s.quiet_since),
                s.failures,
                s.failure.as_ref().map(encode::failure),
                stamp(s.retry_at),
                save.woke_at.map(|t| t.0),
                save.active_at.map(|t| t.0),
                save.clock,
                s.run_id.as_ref().and_then(RunId::text),
            ])
        })
        .map(|_| ())
        .map_err(|e| self.error(&e))
    }

    fn log_checked(&self, id: InstanceId, check: &LogCheck) -> Result<(), StoreError> {
        let log_mark = format!(
            "{} {} {}",
            check.log_mark.0, check.log_mark.1, check.log_mark.2
        );
        let sql = "UPDATE instances SET log_mark = ?2, checked_at = ?3, quiet_since = ?4, last_active_at = coalesce(?5, last_active_at), \
             clock = coalesce(?6, clock) WHERE id = ?1";
        let values = params![
            id.0,
            log_mark,
            stamp(check.at),
            stamp(check.quiet_since),
            check.active_at.map(|t| t.0),
            check.clock
        ];
        self.change(&*self.writer()?, sql, values).map(drop)
    }

    fn relaunch(&self, id: InstanceId, launch: &Launch, key: &str) -> Result<(), StoreError> {
        self.change(
            &*self.writer()?,
            RELAUNCH,
            params![id.0, encode::launch(launch), key],
        )
        .map(drop)
    }

    fn relocate(
        &self,
        id: InstanceId,
        port: u16,
        launch: &Launch,
        key: &str,
    ) -> Result<(), StoreError> {
        let connection = self.writer()?;
        self.prepared(&connection, "UPDATE instances SET port = ?2, launch = ?3, launch_key = ?4 WHERE id = ?1 AND port IS NOT NULL")
            .and_then(|mut s| s.execute(params![id.0, port, encode::launch(launch), key]))
            .map(drop)
            .map_err(|e| self.taken_port(&e, Some(port)))
    }

    fn forget_other_boots(&self, boot: &str) -> Result<usize, StoreError> {
        self.durably(|tx| {
            self.change(
                tx,
                "UPDATE instances SET phase = 'asleep', pid = NULL, pid_start = NULL, run_id = NULL WHERE boot <> ?1 AND \
                 phase IN ('waking', 'awake', 'draining', 'stopping')",
                [boot],
            )
        })
    }
}

impl SqliteStore {
    fn insert_row(&self, tx: &Transaction<'_>, new: &NewRow<'_>) -> Result<InstanceId, StoreError> {
        if self.is_there(tx, HAS_NAME, new.name.as_str())? {
            return Err(StoreError::Taken(Conflict::Name(new.name.clone())));
        }
        for host in new.hosts {
            if self.is_there(tx, "SELECT 1 FROM hosts WHERE host = ?1", host.as_str())? {
                return Err(StoreError::Taken(Conflict::Host(host.clone())));
            }
        }
        self.prepared(
            tx,
            "INSERT INTO instances (name, model, port, params, owner, idle_ms, created_at, phase, desired, boot, since, quiet_since) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )
        .and_then(|mut s| {
            s.execute(params![
                new.name.as_str(),
                new.model,
                new.port,
                encode::params(new.params),
                new.owner,
                new.idle.map(millis),
                new.created_at.0,
                new.stored.phase.as_str(),
                new.stored.desired.as_str(),
                new.boot,
                stamp(new.stored.since),
                stamp(new.stored.quiet_since),
            ])
        })
        .map_err(|e| self.taken_port(&e, new.port))?;
        let id = InstanceId(tx.last_insert_rowid());
        for (place, host) in (0_i64..).zip(new.hosts) {
            self.change(
                tx,
                "INSERT INTO hosts (host, instance, place) VALUES (?1, ?2, ?3)",
                params![host.as_str(), id.0, place],
            )?;
        }
        let create = NewOperation {
            instance: id,
            name: new.name.clone(),
            kind: OperationKind::Create,
            at: new.created_at,
            asked_by: new.asked_by,
        };
        self.note(tx, &create)?;
        Ok(id)
    }

    /// The port is the only unique column that was not checked before.
    fn taken_port(&self, e: &rusqlite::Error, port: Option<u16>) -> StoreError {
        match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::ConstraintViolation) => {
                StoreError::Taken(Conflict::Port(port.unwrap_or(0)))
            }
            _ => self.error(e),
        }
    }

    fn one(
        &self,
        connection: &Connection,
        condition: &str,
        values: impl rusqlite::Params,
    ) -> Result<Option<Row>, StoreError> {
        let row = self
            .prepared(
                connection,
                &format!("SELECT {COLUMNS} FROM instances WHERE {condition}"),
            )
            .and_then(|mut s| s.query_row(values, |r| Ok(read_row(r))).optional());
        row.map_err(|e| self.error(&e))?
            .transpose()
            .map_err(|e| self.error(&e))
    }

    fn many(&self, condition: &str, values: impl rusqlite::Params) -> Result<Vec<Row>, StoreError> {
        let connection = self.reader();
        let read = || -> rusqlite::Result<Vec<Row>> {
            let mut statement = self.prepared(
                &connection,
                &format!("SELECT {COLUMNS} FROM instances WHERE {condition}"),
            )?;
            statement.query_map(values, read_row)?.collect()
        };
        read().map_err(|e| self.error(&e))
    }

    /// The first column of all rows.
    fn column<T: FromSql>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
    ) -> Result<Vec<T>, StoreError> {
        let connection = self.reader();
        let read = || -> rusqlite::Result<Vec<T>> {
            self.prepared(&connection, sql)?
                .query_map(values, |r| r.get(0))?
                .collect()
        };
        read().map_err(|e| self.error(&e))
    }

    /// Whether this query returns a row.
    fn is_there(
        &self,
        connection: &Connection,
        sql: &str,
        value: impl ToSql,
    ) -> Result<bool, StoreError> {
        self.prepared(connection, sql)
            .and_then(|mut s| s.exists([value]))
            .map_err(|e| self.error(&e))
    }
}

fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

fn stamp(t: Timestamp) -> i64 {
    i64::try_from(t.0).unwrap_or(i64::MAX)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// Of a process from its two columns, else from the one of its text.
fn read_run_id(r: &rusqlite::Row<'_>) -> rusqlite::Result<Option<RunId>> {
    let run_id = match (r.get::<_, Option<i32>>(16)?, r.get::<_, Option<i64>>(17)?) {
        (Some(pid), Some(start)) => Some(RunId::from(Process {
            pid,
            start_time: unsigned(start),
        })),
        _ => r
            .get::<_, Option<String>>(27)?
            .map(|text| RunId::new(&text)),
    };
    Ok(run_id)
}

fn read_row(r: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let bad = |what: &str| {
        rusqlite::Error::FromSqlConversionFailure(
            0,
            rusqlite::types::Type::Text,
            format!("a row of `instances` has no valid {what}").into(),
        )
    };
    let name: String = r.get(1)?;
    let phase: String = r.get(13)?;
    let desired: String = r.get(14)?;
    let hosts: Option<String> = r.get(28)?;
    Ok(Row {
        id: InstanceId(r.get(0)?),
        name: InstanceName::parse(&name).map_err(|_| bad("name"))?,
        model: r.get(2)?,
        port: r.get(3)?,
        params: encode::params_back(&r.get::<_, String>(4)?),
        launch: encode::launch_back(&r.get::<_, String>(5)?),
        launch_key: r.get(6)?,
        owner: r.get(7)?,
        idle: r
            .get::<_, Option<i64>>(8)?
            .map(|ms| Duration::from_millis(unsigned(ms))),
        hosts: hosts
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|h| HostName::parse(h).ok())
            .collect(),
        created_at: WallTime(r.get(9)?),
        last_wake_at: r.get::<_, Option<i64>>(10)?.map(WallTime),
        last_active_at: r.get::<_, Option<i64>>(11)?.map(WallTime),
        wakes: unsigned(r.get(12)?),
        stored: Stored {
            phase: Phase::parse(&phase).ok_or_else(|| bad("phase"))?,
            desired: DesiredState::parse(&desired).ok_or_else(|| bad("desired"))?,
            run: unsigned(r.get(15)?),
            run_id: read_run_id(r)?,
            since: Timestamp(unsigned(r.get(19)?)),
            quiet_since: Timestamp(unsigned(r.get(20)?)),
            failures: r.get(21)?,
            failure: r
                .get::<_, Option<String>>(22)?
                .and_then(|t| encode::failure_back(&t)),
            retry_at: Timestamp(unsigned(r.get(23)?)),
        },
        boot: r.get(18)?,
        log_mark: read_log_mark(&r.get::<_, String>(24)?),
        checked_at: Timestamp(unsigned(r.get(25)?)),
        clock: r.get(26)?,
    })
}

fn read_log_mark(text: &str) -> (u64, u64, i64) {
    let mut parts = text.split(' ');
    let mut next = || parts.next().unwrap_or("0");
    (
        next().parse().unwrap_or(0),
        next().parse().unwrap_or(0),
        next().parse().unwrap_or(0),
    )
}
