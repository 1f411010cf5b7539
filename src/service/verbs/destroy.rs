//! `destroy`: out of service for good, at once. Files and data stay until `purge`. An operation:
//! once its phase is written the rest is done, also after a crash.

use std::sync::Arc;

use crate::domain::account::Account;
use crate::domain::instance::{Listen, RunnerKind};
use crate::domain::lifecycle::{Answer, Event, Phase};
use crate::domain::name::InstanceName;
use crate::domain::operation::{OperationKind, OperationStep};
use crate::service::error::ServiceError;
use crate::service::handler::EntryPoint;
use crate::service::instance::handle::Handle;
use crate::service::instance::transition;
use crate::service::lookup::find;
use crate::service::outcome::{InstanceChange, Outcome};
use crate::service::request::InstanceRef;
use crate::service::verbs::{self, begin, fail, reached_step, tried};
use crate::service::view::done;
use crate::service::world::World;
use crate::service::{launch_spec, routes};
use crate::store::Row;

/// What came of it.
const RESULT: &str = "out of service";

pub(in crate::service) async fn run(
    world: &Arc<World>,
    entry: EntryPoint,
    given: &InstanceRef,
    force: bool,
) -> Result<Outcome, ServiceError> {
    let since = world.now();
    let handle = find(world, given).await?;
    let (id, name) = (handle.instance.id, handle.instance.name.clone());
    let _alone = world.building(name.as_str()).await;
    // One that is half made, or half purged, keeps its operation: it is undone, or finished, by it.
    let begins = !matches!(handle.snapshot().phase, Phase::Creating | Phase::Destroyed);
    if begins {
        begin(world, entry, OperationKind::Destroy, (id, &name)).await?;
        world.reached("destroy.begun")?;
    }
    let asked = match force && handle.snapshot().phase.is_live() {
        true => stop_and_destroy(world, &handle, true).await,
        false => handle
            .ask(Event::Destroy)
            .await
            .map(|(answer, _)| answer)
            .map_err(|r| transition::refused("destroy", &name, r)),
    };
    let answer = match asked {
        Ok(answer) => answer,
        Err(e) => {
            if begins {
                fail(world, id, e.message.clone()).await?;
            }
            return Err(e);
        }
    };
    world.reached("destroy.phase")?;
    if begins {
        reached_step(world, id, OperationStep::Unregister);
    }
    let launched = handle.launched();
    let (kind, account) = (&launched.launch.runner, &launched.account);
    let left = leave(world, kind, &name, account, is_routed(&handle)).await;
    tried(world, id, left).await?;
    if begins {
        verbs::finish(world, id, RESULT).await?;
    }
    let _ = world.reached("destroy.done");
    handle.caught_up(world).await;
    done(
        world,
        &name,
        InstanceChange::Destroyed,
        answer == Answer::Already,
        since,
    )
}

/// Ends it and takes it out of service. Waiting requests are refused: else they would wake
/// it again on its way out.
pub(in crate::service) async fn stop_and_destroy(
    world: &Arc<World>,
    handle: &Arc<Handle>,
    now: bool,
) -> Result<Answer, ServiceError> {
    let ask = async |event| {
        handle
            .ask(event)
            .await
            .map_err(|r| transition::refused("destroy", &handle.instance.name, r))
    };
    ask(Event::Retire(true)).await?;
    let stopped = match transition::stop(world, handle, now).await {
        Ok(_) => world.reached("destroy.stopped"),
        Err(e) => Err(e),
    };
    let done = match stopped {
        Ok(()) => ask(Event::Destroy).await.map(|(answer, _)| answer),
        Err(e) => Err(e),
    };
    if done.is_err() {
        // It is still there, and serves on.
        let _ = ask(Event::Retire(false)).await;
    }
    done
}

/// What an acc has left to do that wrote the phase. One whose phase was not written was not
/// destroyed.
pub(in crate::service) async fn finish(world: &Arc<World>, row: &Row) -> Result<(), ServiceError> {
    if row.stored.phase == Phase::Destroyed {
        leave(
            world,
            &launch_spec::runner_kind(row),
            &row.name,
            &launch_spec::account(world),
            row.port.is_some() || !row.hosts.is_empty(),
        )
        .await?;
        return verbs::finish(world, row.id, RESULT).await;
    }
    let error = "acc ended before it was out of service".to_owned();
    fail(world, row.id, error).await
}

/// Does the edge know more of it than its name?
fn is_routed(handle: &Handle) -> bool {
    matches!(handle.launched().listen, Listen::Tcp(_)) || handle.instance.hosts.len() > 1
}

/// Supervisor and edge know it no longer; every step may be repeated.
async fn leave(
    world: &Arc<World>,
    kind: &RunnerKind,
    name: &InstanceName,
    account: &Account,
    routed: bool,
) -> Result<(), ServiceError> {
    let forgotten = async { world.runners.of(kind)?.forget(name, account).await };
    forgotten.await.map_err(|e| {
        let message =
            format!("`{name}` is destroyed, but could not be removed from the supervisor");
        ServiceError::because(
            message,
            &e,
            format!("run `acc destroy {name}` again; `acc monitor` also tries"),
        )
    })?;
    world.reached("destroy.supervisor")?;
    if routed {
        routes::apply(world).await?;
    }
    world.reached("destroy.edge")
}
