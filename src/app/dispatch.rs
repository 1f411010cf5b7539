//! Runs a verb in the server if it is up, else in this process, under the owner's lock. The code is
//! the same.

use std::time::Duration;

use super::drivers::Drivers;
use super::installation::open_store;
use super::lock;
use super::world::world;
use crate::config::Config;
use crate::control::{self, CallError, ControlReply};
use crate::domain::instance::DesiredState;
use crate::service::error::{ErrorKind, ServiceError, chain};
use crate::service::handler::{EntryPoint, RequestCaller};
use crate::service::outcome::Outcome;
use crate::service::reads::Reader;
use crate::service::request::Request;
use crate::service::{self, moved, places, recover};

const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(25);

/// Has a request answered.
pub async fn dispatch(config: &Config, request: Request) -> Result<Outcome, ServiceError> {
    if request.is_read() {
        return service::handle(&Reader::new(config), &own(), request).await;
    }
    // A socket or a lock in another user's folder is a trap, also for root, who has become the
    // owner of another user's folders by now.
    places::ours(config)?;
    let patience = tokio::time::sleep(PATIENCE);
    tokio::pin!(patience);
    loop {
        if let Some(answer) = ask_server(config, &request).await? {
            return answer;
        }
        lock::refuse_elsewhere(config)?;
        if let Some(owner) = lock::try_take(config)? {
            let answer = run_here(config, request).await;
            drop(owner);
            return answer;
        }
        // Another process holds the lock: a command, or a server that is starting.
        if matches!(request, Request::Monitor { .. }) {
            return Ok(Outcome::Busy);
        }
        tokio::select! {
            () = &mut patience => return Err(lock::held(config)),
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// The user of this command.
fn own() -> RequestCaller {
    RequestCaller::own(EntryPoint::CommandLine)
}

/// The server's answer; `None`: there is no server.
pub(super) async fn ask_server(
    config: &Config,
    request: &Request,
) -> Result<Option<Result<Outcome, ServiceError>>, ServiceError> {
    match control::call(&config.control_socket(), request).await {
        Ok(ControlReply::Answered(answer)) => Ok(Some(answer)),
        Ok(ControlReply::NoServer) => Ok(None),
        Err(e) => {
            let hint = match e {
                CallError::Unreachable { .. } => {
                    "run this command as root or as the user who booted acc"
                }
                _ => {
                    "the next server finishes or undoes what was begun; check with `acc list` and try again"
                }
            };
            Err(ServiceError::failed(chain(&e), hint))
        }
    }
}

/// Where the supervisor has a daemon, a start needs it: without it the start would fail, and be
/// recorded as the instance's own failure.
async fn refuse_while_halted(drivers: &Drivers, request: &Request) -> Result<(), ServiceError> {
    let starts = match request {
        Request::Create(new) => !new.asleep,
        Request::Start { .. } | Request::Restart { .. } => true,
        Request::SetDesired { desired, .. } => *desired == DesiredState::Up,
        _ => false,
    };
    if !starts || drivers.own_services.is_reachable().await {
        return Ok(());
    }
    Err(ServiceError::new(
        ErrorKind::Denied,
        "acc is not running on this host; nothing was changed",
        "start it with `acc boot`",
    ))
}

async fn run_here(config: &Config, request: Request) -> Result<Outcome, ServiceError> {
    let drivers = Drivers::new(config)?;
    refuse_while_halted(&drivers, &request).await?;
    let store = open_store(config)?;
    moved::refuse_other_places(config, &store)?;
    let world = world(config, &drivers, store);
    recover::recover(&world).await?;
    let answer = service::handle(&world, &own(), request).await;
    service::wait_settled::settle(&world).await;
    answer
}
