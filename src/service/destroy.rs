//! `destroy`: out of service for good, at once. Files and data stay until `purge`.

use std::sync::Arc;

use super::error::ServiceError;
use super::outcome::Outcome;
use super::registry::Handle;
use super::world::World;
use super::{done, find, routes, wake};
use crate::domain::lifecycle::{Answer, Event};

pub(super) async fn run(world: &Arc<World>, given: &str, force: bool) -> Result<Outcome, ServiceError> {
    let since = world.now();
    let handle = find(world, given)?;
    let name = handle.instance.name.clone();
    let _alone = world.building(name.as_str()).await;
    let answer = match force && handle.snapshot().phase.is_live() {
        true => stop_and_destroy(world, &handle, true).await?,
        false => handle.ask(Event::Destroy).await.map_err(|r| wake::refused("destroy", &name, r))?.0,
    };
    world.supervisor.forget(&name).await.map_err(|e| {
        ServiceError::because(
            format!("`{name}` is destroyed, but its supervisor still knows it"),
            &e,
            format!("run `acc destroy {name}` again"),
        )
    })?;
    routes::apply(world).await?;
    done(world, &name, "destroyed", answer == Answer::Already, since)
}

/// Ends it and takes it out of service. Whoever waits for it is turned away: else they would wake it again on its way out.
pub(super) async fn stop_and_destroy(world: &Arc<World>, handle: &Arc<Handle>, now: bool) -> Result<Answer, ServiceError> {
    let ask = async |event| handle.ask(event).await.map_err(|r| wake::refused("destroy", &handle.instance.name, r));
    ask(Event::Retire(true)).await?;
    let done = match wake::stop(world, handle, now).await {
        Ok(_) => ask(Event::Destroy).await.map(|(answer, _)| answer),
        Err(e) => Err(e),
    };
    if done.is_err() {
        // It is still there, and serves on.
        let _ = ask(Event::Retire(false)).await;
    }
    done
}
