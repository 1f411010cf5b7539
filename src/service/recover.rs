//! Finishes or undoes interrupted verbs: first thing in a process that begins to run verbs, and
//! again in each monitor run. A server serves first: what was left may take long, or not be
//! possible at all, and must keep no client from being served.

use std::sync::Arc;

use tracing::{info, warn};

use crate::domain::operation::OperationKind;
use crate::host::fs;
use crate::service::error::{self, ServiceError};
use crate::service::launch_spec;
use crate::service::routes;
use crate::service::verbs::{create, destroy, fail, purge, tried};
use crate::service::world::World;

/// Forgets what ran in another boot, then finishes or undoes unfinished operations. Must come
/// before any verb.
pub async fn recover(world: &Arc<World>) -> Result<(), ServiceError> {
    tidy(world)?;
    take_up(world).await
}

/// Forgets what ran in another boot, and removes files that will not be completed. Must come before
/// anything is served.
pub fn tidy(world: &World) -> Result<(), ServiceError> {
    let slept = world
        .store
        .forget_other_boots(&world.boot)
        .map_err(error::store)?;
    if slept > 0 {
        info!("{slept} instances ran before this host was restarted; they are asleep now");
    }
    let config = world.config();
    let supervisor = config.supervisor_dir();
    let below = ["programs", "loaded", "services", "launch"].map(|dir| supervisor.join(dir));
    let run = [
        config.run.clone(),
        config.gate_dir(),
        config.pid_dir(),
        config.sent_dir(),
    ];
    let folders = run
        .into_iter()
        .chain([config.home.clone(), config.nginx_dir(), supervisor]);
    for dir in folders.chain(below) {
        if let Err(e) = fs::remove_leftovers(&dir) {
            warn!("could not tidy `{}`: {e}", dir.display());
        }
    }
    Ok(())
}

/// Finishes or undoes unfinished operations. What cannot be is left to the next monitor run.
pub async fn take_up(world: &Arc<World>) -> Result<(), ServiceError> {
    for (name, what) in resume(world).await? {
        match what {
            Ok(done) => info!(instance = %name, "{done}"),
            Err(e) => warn!(instance = %name, "half-done work could not be taken up: {e}"),
        }
    }
    sweep(world).await?;
    Ok(())
}

/// Ends processes that instances left behind when they ended while no acc was running.
async fn sweep(world: &Arc<World>) -> Result<(), ServiceError> {
    let busy = world
        .read(|store| store.busy())
        .await
        .map_err(error::store)?;
    let mut live: Vec<_> = busy
        .into_iter()
        .filter(|row| row.stored.phase.is_live())
        .map(|row| row.name)
        .collect();
    // A server serves already: of one that was woken meanwhile the row may be behind.
    live.extend(world.registry.live_names());
    for runner in world.runners.all() {
        match runner.sweep(&live, &launch_spec::accounts(world)).await {
            Ok(ended) => ended.iter().for_each(
                |(name, count)| info!(instance = %name, "ended orphan processes: {count}"),
            ),
            Err(e) => warn!("could not search for orphan processes: {e}"),
        }
    }
    Ok(())
}

/// Finishes or undoes the operations that run, but for those that are being worked on now: what
/// became of each. A purge that met a full disk is finished as soon as there is room, not only by
/// the next acc.
pub(super) async fn resume(
    world: &Arc<World>,
) -> Result<Vec<(String, Result<&'static str, ServiceError>)>, ServiceError> {
    let mut taken_up = Vec::new();
    for (id, _) in world.store.unfinished().map_err(error::store)? {
        let find = || world.store.by_id(id).map_err(error::store);
        let Some(row) = find()? else {
            // A worker of an earlier build removed it at the last moment of an upgrade.
            fail(world, id, "its instance was removed meanwhile".to_owned()).await?;
            continue;
        };
        let Some(_alone) = world.building_unless_busy(row.name.as_str()) else {
            continue;
        };
        // Read again: the verb that worked on it may have ended between the check and the lock.
        let unfinished = world.store.unfinished().map_err(error::store)?;
        let kind = unfinished.into_iter().find(|(other, _)| *other == id);
        let (Some((_, kind)), Some(row)) = (kind, find()?) else {
            continue;
        };
        let done = match kind {
            OperationKind::Create => create::take_back(world, id, "was left unfinished".to_owned())
                .await
                .map(|()| "undid an unfinished create"),
            OperationKind::Destroy => destroy::finish(world, &row)
                .await
                .map(|()| "finished an unfinished destroy"),
            OperationKind::Purge => purge::remove(world, &row)
                .await
                .map(|()| "finished an unfinished purge"),
        };
        let done = tried(world, id, done).await;
        taken_up.push((row.name.to_string(), done));
    }
    Ok(taken_up)
}

/// Takes charge of everything that is said to run: the task of each finds out what does. For the
/// server, at its start.
pub async fn adopt(world: &Arc<World>) -> Result<usize, ServiceError> {
    let mut adopted = 0;
    for row in world
        .read(|store| store.busy())
        .await
        .map_err(error::store)?
    {
        if row.stored.phase.is_live() {
            match world.handle(&row).await {
                Ok(_) => adopted += 1,
                Err(e) => warn!(instance = %row.name, "could not take charge of it: {e}"),
            }
        }
    }
    Ok(adopted)
}

/// The routes of all instances, for the first rendering of an edge's configuration.
pub async fn all_routes(world: &World) -> Result<Vec<crate::driver::edge::Route>, ServiceError> {
    routes::all(world).await
}
