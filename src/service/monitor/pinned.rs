//! Pinned instances: those that should always run are started again when they do not.
//!
//! It never starts one that failed before its time to retry has come.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::domain::instance::DesiredState;
use crate::domain::lifecycle::{Cause, Phase};
use crate::service::error::chain;
use crate::service::instance::transition::{self, Settled};
use crate::service::outcome::{MonitorAction, MonitorLine, MonitorRun};
use crate::service::world::World;
use crate::store::Row;

/// Why a line of a run is about a pinned instance.
const DESIRED_UP: &str = "desired state: up";

/// What [`bring_up`] would start, for a dry run.
pub(in crate::service) async fn preview(world: &Arc<World>, run: &mut MonitorRun) {
    for row in down(world, run).await {
        let waits = row.stored.phase == Phase::Failed && world.now() < row.stored.retry_at;
        if !waits {
            run.lines.push(MonitorLine::new(
                row.name.as_str(),
                MonitorAction::Start,
                DESIRED_UP,
            ));
        }
    }
}

/// Starts every pinned instance that does not run.
pub(in crate::service) async fn bring_up(world: &Arc<World>, run: &mut MonitorRun) {
    let mut starts = JoinSet::new();
    for row in down(world, run).await {
        let world = world.clone();
        starts.spawn(async move { start_pinned(&world, &row).await });
    }
    while let Some(done) = starts.join_next().await {
        run.lines.extend(done.ok().flatten());
    }
}

/// The rows of the pinned instances that do not run. Whether one runs is asked of its task: the row
/// of one that died just now may still say awake.
async fn down(world: &Arc<World>, run: &mut MonitorRun) -> Vec<Row> {
    match world.read(|store| store.desired_up()).await {
        Ok(mut rows) => {
            rows.retain(|row| !world.registry.is_live(row.id));
            rows
        }
        Err(e) => {
            run.lines
                .push(MonitorLine::new("acc", MonitorAction::Error, chain(&e)));
            Vec::new()
        }
    }
}

async fn start_pinned(world: &Arc<World>, row: &Row) -> Option<MonitorLine> {
    let name = row.name.as_str();
    let handle = match world.handle(row).await {
        Ok(handle) => handle,
        Err(e) => return Some(MonitorLine::new(name, MonitorAction::Error, e.message)),
    };
    let machine = handle.machine();
    // The row may be behind what the operator asked for since.
    if machine.desired() != DesiredState::Up {
        return None;
    }
    let (phase, retry_at) = (machine.phase(), machine.retry_at());
    // A failed one waits for its retry time silently: cron would mail each line every minute.
    if phase.is_live() || phase == Phase::Failed && world.now() < retry_at {
        return None;
    }
    match transition::start(world, &handle, Cause::Pinned).await {
        Ok((true, _)) => None,
        Ok((false, Settled::There)) => {
            Some(MonitorLine::new(name, MonitorAction::Started, DESIRED_UP))
        }
        Ok((_, Settled::Stopped)) => None,
        Ok((false, Settled::Failed(failure))) => Some(MonitorLine::new(
            name,
            MonitorAction::Error,
            failure.to_string(),
        )),
        Err(e) => Some(MonitorLine::new(name, MonitorAction::Error, e.message)),
    }
}
