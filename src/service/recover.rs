//! What whoever begins to run verbs does first: what another acc left half-done is finished or undone.

use std::sync::Arc;

use tracing::{info, warn};

use super::error::ServiceError;
use super::world::World;
use super::{create, purge, routes};
use crate::store::Work;

/// Finishes or undoes journalled work and forgets what ran in another boot. Must come before any verb.
pub async fn recover(world: &Arc<World>) -> Result<(), ServiceError> {
    let slept = world.store.forget_other_boots(&world.boot).map_err(super::error::store)?;
    if slept > 0 {
        info!("{slept} instances ran before this host was restarted; they are asleep now");
    }
    for (id, work) in world.store.unfinished().map_err(super::error::store)? {
        let Some(row) = world.store.by_id(id).map_err(super::error::store)? else { continue };
        let (word, done) = match work {
            Work::Create => ("undone", create::take_back(world, id).await),
            Work::Purge => ("finished", purge::remove(world, &row).await),
        };
        match done {
            Ok(()) => info!(instance = %row.name, "half-done work was {word}"),
            Err(e) => warn!(instance = %row.name, "half-done work could not be {word}: {e}"),
        }
    }
    Ok(())
}

/// Takes charge of everything that is said to run: the task of each finds out what does. For the server, at its start.
pub fn adopt(world: &Arc<World>) -> Result<usize, ServiceError> {
    let mut adopted = 0;
    for row in world.store.busy().map_err(super::error::store)? {
        if row.stored.phase.is_live() {
            match world.registry.get(world, &row) {
                Ok(_) => adopted += 1,
                Err(e) => warn!(instance = %row.name, "could not take charge of it: {e}"),
            }
        }
    }
    Ok(adopted)
}

/// The routes of all instances, for the first rendering of an edge's configuration.
pub fn all_routes(world: &World) -> Result<Vec<crate::driver::edge::Route>, ServiceError> {
    routes::all(world)
}
