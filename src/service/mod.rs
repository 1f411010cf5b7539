//! What acc can do: one verb a file, and behind them the actor, the registry and recovery.
//!
//! [`handle()`] is the only way in for every request, from any caller. It never
//! prints and knows no HTTP.

pub mod access_logs;
pub mod admission;
pub mod context;
pub mod error;
mod events;
pub mod handler;
pub mod handover;
pub mod instance;
pub(crate) mod launch_spec;
pub mod logs;
pub(crate) mod lookup;
pub mod monitor;
pub mod moved;
pub mod outcome;
pub mod places;
pub mod reads;
pub mod recover;
pub mod request;
mod routes;
mod run_notes;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod verbs;
pub(crate) mod view;
pub mod wait_settled;
pub mod world;

use std::sync::Arc;

use async_trait::async_trait;

use error::ServiceError;
pub use handler::handle;
use handler::{Handler, RequestCaller};
use outcome::Outcome;
use request::Request;
use verbs::{create, desired, destroy, purge, restart, start, stop, stop_all};
use world::World;

#[async_trait]
impl Handler for Arc<World> {
    async fn answer(
        &self,
        caller: &RequestCaller,
        request: Request,
    ) -> Result<Outcome, ServiceError> {
        let world = self;
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
                "no server is running to upgrade",
                "start it with `acc boot`",
            )),
            Request::Reload => Err(ServiceError::failed(
                "no server is running to reload",
                "start it with `acc boot`; it reads the current config",
            )),
            Request::Create(new) => create::run(world, caller.entry, &new).await,
            Request::Start { instance } => start::run(world, &instance).await,
            Request::Stop { instance, now } => stop::run(world, &instance, now).await,
            Request::Restart { instance } => restart::run(world, &instance).await,
            Request::SetDesired { instance, desired } => {
                desired::run(world, &instance, desired).await
            }
            Request::Reset { instance } => desired::reset(world, &instance).await,
            Request::Destroy { instance, force } => {
                destroy::run(world, caller.entry, &instance, force).await
            }
            Request::Purge { instance } => purge::run(world, caller.entry, &instance).await,
            Request::Monitor { dry_run, thorough } => monitor::run(world, dry_run, thorough).await,
            Request::Quiesce => stop_all::run(world).await,
            Request::List(_)
            | Request::Info { .. }
            | Request::Names
            | Request::Events { .. }
            | Request::Models
            | Request::Model { .. }
            | Request::Logs { .. } => {
                let here = world.clone();
                let read =
                    move || reads::answer(&here.config(), || Ok(here.store.clone()), &request);
                world.aside(read).await
            }
        }
    }
}
