//! What was left half-done is finished or undone: first thing by whoever begins to run verbs, and again in each monitor pass.

use std::sync::Arc;

use tracing::{info, warn};

use super::error::ServiceError;
use super::monitor::line;
use super::outcome::Pass;
use super::world::World;
use super::{create, destroy, purge, routes};
use crate::driver::host::fs;
use crate::store::{Row, Work};

/// Finishes or undoes journalled work and forgets what ran in another boot. Must come before any verb.
pub async fn recover(world: &Arc<World>) -> Result<(), ServiceError> {
    let slept = world.store.forget_other_boots(&world.boot).map_err(super::error::store)?;
    if slept > 0 {
        info!("{slept} instances ran before this host was restarted; they are asleep now");
    }
    let config = world.config();
    let supervisor = config.supervisor_dir();
    let folders = [config.run.clone(), config.gate_dir(), config.pid_dir(), config.home.clone(), config.nginx_dir()];
    for dir in folders.into_iter().chain([supervisor.join("programs"), supervisor.join("services"), supervisor]) {
        if let Err(e) = fs::remove_leftovers(&dir) {
            warn!("could not tidy `{}`: {e}", dir.display());
        }
    }
    for (id, work) in world.store.unfinished().map_err(super::error::store)? {
        let Some(row) = world.store.by_id(id).map_err(super::error::store)? else { continue };
        match settle(world, &row, work).await {
            Ok(()) => info!(instance = %row.name, "half-done work was {}", word(work)),
            Err(e) => warn!(instance = %row.name, "half-done work could not be {}: {e}", word(work)),
        }
    }
    Ok(())
}

/// The same in a monitor pass, for work that nobody is at: what stood in the way may have gone.
pub(super) async fn again(world: &Arc<World>, pass: &mut Pass) {
    let unfinished = match world.store.unfinished() {
        Ok(unfinished) => unfinished,
        Err(e) => return pass.lines.push(line("acc", "error", super::error::chain(&e))),
    };
    for (id, _) in unfinished {
        let Ok(Some(row)) = world.store.by_id(id) else { continue };
        let Some(_alone) = world.try_building(row.name.as_str()) else { continue };
        // Read again: whoever was at it may have ended since.
        let still = world.store.unfinished().ok().and_then(|all| all.into_iter().find(|(other, _)| *other == id));
        let (Some((_, work)), Ok(Some(row))) = (still, world.store.by_id(id)) else { continue };
        let name = row.name.as_str();
        pass.lines.push(match settle(world, &row, work).await {
            Ok(()) => line(name, "repaired", format!("half-done work was {}", word(work))),
            Err(e) => line(name, "error", format!("half-done work could not be {}: {}", word(work), e.message)),
        });
    }
}

fn word(work: Work) -> &'static str {
    match work {
        Work::Create => "undone",
        Work::Destroy | Work::Purge => "finished",
    }
}

async fn settle(world: &Arc<World>, row: &Row, work: Work) -> Result<(), ServiceError> {
    match work {
        Work::Create => create::take_back(world, row.id).await,
        Work::Destroy => destroy::finish(world, row).await,
        Work::Purge => purge::remove(world, row).await,
    }
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
