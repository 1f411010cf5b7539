//! What acc can do: one verb a file, and behind them the actor, the registry and the journal.
//!
//! [`handle`] is the only way in for anything that changes something, whoever asks. It never prints and knows no HTTP.

pub mod access_logs;
mod actor;
mod begin;
pub mod clients;
mod create;
mod daemons;
mod destroy;
pub mod door;
pub mod error;
mod failed_logs;
mod ground;
mod housekeeping;
mod kinds;
pub(crate) mod launch;
mod ledger;
pub mod log_bound;
mod monitor;
pub mod moved;
pub mod outcome;
pub mod phases;
pub mod places;
pub mod ports;
mod purge;
mod quiesce;
pub mod recover;
mod registry;
pub mod request;
mod restart;
pub mod retire;
mod routes;
pub mod run_folder;
pub mod settle;
#[cfg(test)]
mod simulation;
mod start;
mod step;
mod stop;
#[cfg(test)]
mod tests;
mod turns;
pub mod view;
mod wake;
mod want;
pub mod world;

use std::sync::Arc;
use std::time::Duration;

use error::ServiceError;
use outcome::Outcome;
use registry::Handle;
use request::Request;
use world::World;

use crate::config::suggest::closest;
use crate::domain::lifecycle::Limits;
use crate::domain::name::{HostName, InstanceName};
use crate::domain::time::Timestamp;
use crate::store::Row;

/// Logs what a pass of the server's own has done.
pub fn report_pass(outcome: Result<Outcome, ServiceError>) {
    match outcome {
        Ok(Outcome::Monitor(pass)) => {
            for line in pass.lines {
                match line.action.as_str() {
                    "error" => tracing::warn!(instance = %line.instance, "{}", line.why),
                    action => tracing::info!(instance = %line.instance, action, "{}", line.why),
                }
            }
        }
        Ok(_) => {}
        Err(e) => tracing::warn!("a monitor pass failed: {e}"),
    }
}

/// Does what is asked for.
pub async fn handle(world: &Arc<World>, request: Request) -> Result<Outcome, ServiceError> {
    match request {
        // Whether its binary was replaced only the server itself can tell.
        Request::Ping => Ok(Outcome::Pong { pid: std::process::id(), version: env!("CARGO_PKG_VERSION").to_owned(), outdated: false }),
        Request::Settings => Ok(Outcome::Settings { toml: world.config().to_toml() }),
        Request::Upgrade => Err(ServiceError::failed("no server runs that could be upgraded", "`acc boot` starts it")),
        Request::Reload => {
            Err(ServiceError::failed("no server runs that could read its config again", "`acc boot` starts it, with the config as it is"))
        }
        Request::Create(new) => create::run(world, &new).await,
        Request::Start { instance } => start::run(world, &instance).await,
        Request::Stop { instance, now } => stop::run(world, &instance, now).await,
        Request::Restart { instance } => restart::run(world, &instance).await,
        Request::Want { instance, wanted } => want::run(world, &instance, &wanted).await,
        Request::Reset { instance } => want::reset(world, &instance).await,
        Request::Destroy { instance, force } => destroy::run(world, &instance, force).await,
        Request::Purge { instance } => purge::run(world, &instance).await,
        Request::Monitor { dry_run, thorough } => monitor::run(world, dry_run, thorough).await,
        Request::Quiesce => quiesce::run(world).await,
    }
}

/// The row of an instance given by name or number.
pub(crate) fn find_row(store: &crate::store::Store, given: &str) -> Result<Row, ServiceError> {
    let row = match given.parse::<i64>() {
        Ok(number) => store.by_id(crate::domain::name::InstanceId(number)),
        Err(_) => store.by_name(given),
    };
    if let Some(row) = row.map_err(error::store)? {
        return Ok(row);
    }
    let mut missing = error::no_instance(given);
    if let Some(near) = meant(store, given)? {
        missing.hint = format!("did you mean `{near}`? `acc list` shows what there is");
    }
    Err(missing)
}

/// The instance that was most likely meant: one that answers to this host, else the one with the nearest name.
fn meant(store: &crate::store::Store, given: &str) -> Result<Option<String>, ServiceError> {
    if let Ok(host) = HostName::parse(given) {
        let label = host.as_str().split('.').next();
        let row = store.by_host(host.as_str(), label.filter(|label| *label != given)).map_err(error::store)?;
        if let Some(row) = row {
            return Ok(Some(row.name.to_string()));
        }
    }
    let names = store.names().map_err(error::store)?;
    Ok(closest(given, names.iter().map(String::as_str)).map(str::to_owned))
}

/// The handle of an instance given by name or number.
fn find(world: &Arc<World>, given: &str) -> Result<Arc<Handle>, ServiceError> {
    let row = find_row(&world.store, given)?;
    world.registry.get(world, &row)
}

/// The outcome of a verb on one instance.
fn done(world: &World, name: &InstanceName, did: &str, already: bool, since: Timestamp) -> Result<Outcome, ServiceError> {
    let took = world.now().since(since);
    let instance = view::of_row(&world.config(), &find_row(&world.store, name.as_str())?);
    Ok(Outcome::Instance { did: did.to_owned(), already, took_ms: millis(took), instance: Box::new(instance) })
}

/// A stop that has begun is over after this long: what is in flight ends, then the process does or is killed, and is looked for again.
fn longest_stop(limits: &Limits) -> Duration {
    limits.drain + limits.stop * 3
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
