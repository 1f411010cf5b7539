//! Looking: instances and the ledger as everybody sees them, read from the database without a lock.

use super::error::ServiceError;
use super::find_row;
use super::launch;
use super::outcome::{EventView, InstanceView, ListenView};
use crate::config::Config;
use crate::domain::instance::Listen;
use crate::domain::time::WallTime;
use crate::store::{Filter, Row, Store};

/// Reads the database of an installation; changes nothing.
pub struct Reader {
    config: Config,
    store: Store,
}

impl Reader {
    /// Opens it. Not booted yet is an error that says so.
    pub fn open(config: &Config) -> Result<Self, ServiceError> {
        let store = Store::open_readonly(&config.database()).map_err(super::error::store)?;
        Ok(Self { config: config.clone(), store })
    }

    /// Instances by name.
    pub fn list(&self, phase: Option<&str>, model: Option<&str>, limit: Option<usize>) -> Result<Vec<InstanceView>, ServiceError> {
        let rows = self.store.list(&Filter { phase, model, limit }).map_err(super::error::store)?;
        Ok(rows.iter().map(|row| of_row(&self.config, row)).collect())
    }

    /// One instance by name or number.
    pub fn find(&self, given: &str) -> Result<InstanceView, ServiceError> {
        Ok(of_row(&self.config, &find_row(&self.store, given)?))
    }

    /// The newest `lines` lines of the ledger, oldest first.
    pub fn events(&self, given: Option<&str>, lines: usize) -> Result<Vec<EventView>, ServiceError> {
        let id = given.map(|g| find_row(&self.store, g)).transpose()?.map(|row| row.id);
        let rows = self.store.events(id, lines).map_err(super::error::store)?;
        Ok(rows.into_iter().map(|e| EventView { at: rfc3339(e.at), instance: e.name, kind: e.kind, detail: e.detail }).collect())
    }
}

/// A row as a view.
pub(super) fn of_row(config: &Config, row: &Row) -> InstanceView {
    let hosts = launch::hosts(config, &row.name, &row.hosts);
    let name = row.name.as_str();
    InstanceView {
        id: row.id.0,
        name: row.name.to_string(),
        model: row.model.clone(),
        phase: row.stored.phase.as_str().to_owned(),
        wanted: row.stored.wanted.as_str().to_owned(),
        url: hosts.first().map(|h| launch::url(config, h)).unwrap_or_default(),
        hosts: hosts.iter().map(ToString::to_string).collect(),
        listen: match launch::listen(config, &row.name, row.port) {
            Listen::Unix(path) => ListenView::Unix(path.display().to_string()),
            Listen::Tcp(address) => ListenView::Tcp(address.to_string()),
        },
        pid: row.stored.phase.is_live().then_some(row.stored.process).flatten().map(|p| p.pid),
        owner: row.owner.clone(),
        idle_timeout_s: row.idle.unwrap_or(config.idle.timeout).as_secs_f64(),
        created_at: rfc3339(row.created_at),
        last_wake_at: row.last_wake_at.map(rfc3339),
        last_active_at: row.last_active_at.map(rfc3339),
        wakes: row.wakes,
        failure: row.stored.failure.as_ref().map(ToString::to_string),
        dir: config.instance_dir(name).display().to_string(),
    }
}

/// RFC 3339 in UTC, to the millisecond.
fn rfc3339(at: WallTime) -> String {
    jiff::Timestamp::from_millisecond(at.0).map(|t| format!("{t:.3}")).unwrap_or_default()
}
