//! `enable`, `disable`, `pin`: the operator's wish, and what follows from it. `reset`: forget a
//! failure.

use std::sync::Arc;

use crate::domain::instance::DesiredState;
use crate::domain::lifecycle::{Answer, Cause, Event, Phase};
use crate::service::error::ServiceError;
use crate::service::instance::transition::{self, Settled};
use crate::service::lookup::find;
use crate::service::outcome::{InstanceChange, Outcome};
use crate::service::request::InstanceRef;
use crate::service::view::done;
use crate::service::world::World;

pub(in crate::service) async fn run(
    world: &Arc<World>,
    given: &InstanceRef,
    desired: DesiredState,
) -> Result<Outcome, ServiceError> {
    let since = world.now();
    let handle = find(world, given).await?;
    let name = handle.instance.name.clone();
    let (answer, _) = handle
        .ask(Event::SetDesired(desired))
        .await
        .map_err(|r| transition::refused("change", &name, r))?;
    let phase = handle.snapshot().phase;
    match desired {
        DesiredState::Down if phase.is_live() => {
            transition::stop(world, &handle, false).await?;
        }
        DesiredState::Up if phase != Phase::Awake && !world.halting() => {
            match transition::start(world, &handle, Cause::Operator).await?.1 {
                Settled::There => {}
                Settled::Failed(failure) => {
                    return Err(transition::failed("start", &name, &failure));
                }
                Settled::Stopped => return Err(transition::stopped("start", &name)),
            }
        }
        DesiredState::Auto | DesiredState::Up | DesiredState::Down => {}
    }
    handle.caught_up(world).await;
    done(
        world,
        &name,
        InstanceChange::Changed,
        answer == Answer::Already,
        since,
    )
}

/// Forgets a failure: the next request starts it at once.
pub(in crate::service) async fn reset(
    world: &Arc<World>,
    given: &InstanceRef,
) -> Result<Outcome, ServiceError> {
    let since = world.now();
    let handle = find(world, given).await?;
    let name = &handle.instance.name;
    let (answer, _) = handle
        .ask(Event::Reset)
        .await
        .map_err(|r| transition::refused("reset", name, r))?;
    handle.caught_up(world).await;
    done(
        world,
        name,
        InstanceChange::Reset,
        answer == Answer::Already,
        since,
    )
}
