//! What acc can do: one verb a file, and behind them the actor, the registry and the journal.
//!
//! [`handle()`] is the only way in for anything that changes something, whoever asks. It never
//! prints and knows no HTTP.

pub mod access_logs;
mod actor;
pub mod admission;
mod begin;
pub mod clients;
pub mod context;
mod create;
mod daemons;
mod desired;
mod destroy;
pub mod error;
mod events;
mod failed_logs;
mod free_port;
mod ground;
mod handle;
pub mod handover;
mod housekeeping;
mod kinds;
pub(crate) mod launch_spec;
pub mod log_bound;
pub(crate) mod lookup;
pub mod monitor;
pub mod moved;
pub mod outcome;
pub mod places;
pub mod ports;
mod purge;
pub mod recover;
mod registry;
pub mod request;
mod restart;
mod revive;
mod routes;
mod run_folder;
mod run_notes;
pub mod run_watch;
#[cfg(test)]
mod simulation;
mod start;
mod start_queue;
mod step;
mod stop;
mod stop_all;
#[cfg(test)]
mod tests;
mod transition;
pub mod view;
pub mod wait_settled;
mod wake;
pub mod wake_timing;
pub mod world;

use std::sync::Arc;

use error::ServiceError;
use outcome::Outcome;
use request::Request;
use world::World;

/// Does what is asked for.
pub async fn handle(world: &Arc<World>, request: Request) -> Result<Outcome, ServiceError> {
    match request {
        // Whether its binary was replaced only the server itself can tell.
        Request::Ping => Ok(Outcome::Pong {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            outdated: false,
        }),
        Request::Settings => Ok(Outcome::Settings {
            toml: world.config().to_toml(),
        }),
        Request::Upgrade => Err(ServiceError::failed(
            "no server runs that could be upgraded",
            "`acc boot` starts it",
        )),
        Request::Reload => Err(ServiceError::failed(
            "no server runs that could read its config again",
            "`acc boot` starts it, with the config as it is",
        )),
        Request::Create(new) => create::run(world, &new).await,
        Request::Start { instance } => start::run(world, &instance).await,
        Request::Stop { instance, now } => stop::run(world, &instance, now).await,
        Request::Restart { instance } => restart::run(world, &instance).await,
        Request::Want { instance, wanted } => desired::run(world, &instance, &wanted).await,
        Request::Reset { instance } => desired::reset(world, &instance).await,
        Request::Destroy { instance, force } => destroy::run(world, &instance, force).await,
        Request::Purge { instance } => purge::run(world, &instance).await,
        Request::Monitor { dry_run, thorough } => monitor::run(world, dry_run, thorough).await,
        Request::Quiesce => stop_all::run(world).await,
    }
}
