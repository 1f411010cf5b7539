//! `destroy`: out of service for good, at once. Files and data stay until `purge`. Journalled: once its phase is written the
//! rest is done, also after a crash.

use std::sync::Arc;

use super::error::ServiceError;
use super::outcome::Outcome;
use super::registry::{Handle, Refused};
use super::world::World;
use super::{done, find, routes, wake};
use crate::domain::lifecycle::{Answer, Denied, Event, Phase};
use crate::domain::name::InstanceId;
use crate::store::{Row, Work};

/// How often it is stopped again before somebody who keeps waking it is told.
const TRIES: u32 = 10;

pub(super) async fn run(world: &Arc<World>, given: &str, force: bool) -> Result<Outcome, ServiceError> {
    let since = world.now();
    let handle = find(world, given)?;
    let name = handle.instance.name.clone();
    let _alone = world.building(name.as_str()).await;
    if force && handle.snapshot().phase.is_live() {
        wake::stop(world, &handle, true).await?;
        world.reached("destroy.stopped")?;
    }
    // One that is half made keeps its entry in the journal: it is undone by it.
    let journalled = handle.snapshot().phase != Phase::Creating;
    if journalled {
        world.store.begin(handle.instance.id, Work::Destroy, world.clock.wall()).map_err(super::error::store)?;
        world.reached("destroy.begun")?;
    }
    let asked = match force {
        true => out_of_service(world, &handle, "destroy").await,
        false => handle.ask(Event::Destroy).await.map(|(answer, _)| answer).map_err(|r| wake::refused("destroy", &name, r)),
    };
    let answer = match asked {
        Ok(answer) => answer,
        Err(e) => {
            if journalled {
                world.store.end(handle.instance.id).map_err(super::error::store)?;
            }
            return Err(e);
        }
    };
    world.reached("destroy.phase")?;
    let row = world.store.by_id(handle.instance.id).map_err(super::error::store)?;
    if let Some(row) = row {
        finish(world, &row).await?;
    }
    let _ = world.reached("destroy.done");
    done(world, &name, "destroyed", answer == Answer::Already, since)
}

/// Stops it and takes it out of service, again when somebody has woken it in between.
pub(super) async fn out_of_service(world: &World, handle: &Arc<Handle>, deed: &str) -> Result<Answer, ServiceError> {
    let mut tries = 0;
    loop {
        if handle.snapshot().phase.is_live() {
            wake::stop(world, handle, true).await?;
        }
        match handle.ask(Event::Destroy).await {
            Ok((answer, _)) => return Ok(answer),
            Err(Refused::Denied(Denied::NotAsleep(_))) if tries < TRIES => tries += 1,
            Err(refused) => return Err(wake::refused(deed, &handle.instance.name, refused)),
        }
    }
}

/// What is left to do once the phase is written; every step may be repeated. One whose phase was not written was not destroyed.
pub(super) async fn finish(world: &Arc<World>, row: &Row) -> Result<(), ServiceError> {
    if row.stored.phase == Phase::Destroyed {
        let name = &row.name;
        world.supervisor.forget(name).await.map_err(|e| {
            let deed = format!("`{name}` is destroyed, but its supervisor still knows it");
            ServiceError::because(deed, &e, format!("run `acc destroy {name}` again; `acc monitor` also tries"))
        })?;
        world.reached("destroy.supervisor")?;
        routes::apply(world).await?;
        world.reached("destroy.edge")?;
    }
    end(world, row.id)
}

fn end(world: &World, id: InstanceId) -> Result<(), ServiceError> {
    world.store.end(id).map_err(super::error::store)
}
