//! `destroy`: out of service for good, at once. Files and data stay until `purge`.

use std::sync::Arc;

use super::error::ServiceError;
use super::outcome::Outcome;
use super::world::World;
use super::{done, find, routes, wake};
use crate::domain::lifecycle::{Answer, Event};

pub(super) async fn run(world: &Arc<World>, given: &str, force: bool) -> Result<Outcome, ServiceError> {
    let since = world.now();
    let handle = find(world, given)?;
    let name = handle.instance.name.clone();
    let _alone = world.building(name.as_str()).await;
    if force && handle.snapshot().phase.is_live() {
        wake::stop(world, &handle, true).await?;
    }
    let (answer, _) = handle.ask(Event::Destroy).await.map_err(|r| wake::refused("destroy", &name, r))?;
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
