//! One monitor run: the order of its steps, and what is known of the live instances before them.
//!
//! It checks everything and trusts nothing remembered. One broken instance does not end the run
//! for the others. The steps themselves are in the files beside this one.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::lifecycle::Phase;
use crate::service::error::ServiceError;
use crate::service::instance::handle::Handle;
use crate::service::lookup;
use crate::service::monitor::run_folder;
use crate::service::monitor::{housekeeping, idle, listeners, own_services, pinned, reconcile};
use crate::service::outcome::{MonitorAction, MonitorLine, MonitorRun, Outcome};
use crate::service::recover;
use crate::service::world::World;

/// How long a run waits for a supervisor that must first be asked what runs.
const KNOW_WITHIN: Duration = Duration::from_secs(3);

/// One run, unless another one is under way.
pub(in crate::service) async fn run(
    world: &Arc<World>,
    dry_run: bool,
    thorough: bool,
) -> Result<Outcome, ServiceError> {
    let Ok(_alone) = world.monitor.try_lock() else {
        return Ok(Outcome::Busy);
    };
    let mut run = MonitorRun::default();
    if !dry_run && !world.halting() {
        run_folder::keep(world, &mut run).await;
        // Second, because without a supervisor it is not known what runs.
        own_services::keep(world, thorough, &mut run).await;
    }
    let handles = live(world, &mut run).await?;
    let awake: Vec<Arc<Handle>> = handles
        .into_iter()
        .filter(|h| h.snapshot().phase == Phase::Awake)
        .collect();
    if !dry_run && !world.halting() {
        listeners::keep(world, &awake, &mut run).await;
    }
    match idle::sample(world, &awake).await {
        Ok(seen) if dry_run => {
            for (handle, seen) in awake.iter().zip(&seen) {
                run.lines.push(idle::preview(world, handle, *seen));
            }
        }
        Ok(seen) => idle::sleep_idle(world, &awake, &seen, &mut run).await,
        // Which instances are in use is not known: none is put to sleep.
        Err(e) => run
            .lines
            .push(MonitorLine::new("acc", MonitorAction::Error, e.message)),
    }
    drop(awake);
    if dry_run {
        pinned::preview(world, &mut run).await;
    }
    if !dry_run && !world.halting() {
        resume(world, &mut run).await;
        pinned::bring_up(world, &mut run).await;
        reconcile::reconcile(world, &mut run).await;
        housekeeping::keep(world, &mut run).await;
    }
    Ok(Outcome::Monitor(run))
}

/// Logs what a run of the server's own has done.
pub fn report(outcome: Result<Outcome, ServiceError>) {
    match outcome {
        Ok(Outcome::Monitor(run)) => {
            for line in run.lines {
                match line.action {
                    MonitorAction::Error => {
                        tracing::warn!(instance = %line.instance, "{}", line.why)
                    }
                    action => {
                        tracing::info!(instance = %line.instance, action = action.as_str(), "{}", line.why);
                    }
                }
            }
        }
        Ok(_) => {}
        Err(e) => tracing::warn!("a monitor run failed: {e}"),
    }
}

/// Handles of all instances that are said to run, once it is known what does.
async fn live(world: &Arc<World>, run: &mut MonitorRun) -> Result<Vec<Arc<Handle>>, ServiceError> {
    let mut handles: Vec<(Phase, Arc<Handle>)> = Vec::new();
    for instance in lookup::live(world).await? {
        match instance.handle {
            Ok(handle) => handles.push((instance.phase, handle)),
            Err(e) => run.lines.push(MonitorLine::new(
                instance.name.as_str(),
                MonitorAction::Error,
                e.message,
            )),
        }
    }
    let deadline = world.now().after(KNOW_WITHIN);
    let mut known = Vec::new();
    for (before, handle) in handles {
        let name = handle.instance.name.as_str().to_owned();
        if !handle.until_known(deadline.since(world.now())).await {
            run.lines.push(MonitorLine::new(
                &name,
                MonitorAction::Error,
                "could not query the supervisor for its state",
            ));
            continue;
        }
        if before == Phase::Awake && handle.snapshot().phase == Phase::Failed {
            let why = handle
                .machine()
                .failure()
                .map_or_else(String::new, ToString::to_string);
            run.lines
                .push(MonitorLine::new(&name, MonitorAction::Died, why));
        }
        known.push(handle);
    }
    Ok(known)
}

/// Takes up what was begun and could not be ended.
async fn resume(world: &Arc<World>, run: &mut MonitorRun) {
    match recover::resume(world).await {
        Ok(all) => run
            .lines
            .extend(all.into_iter().map(|(name, done)| match done {
                Ok(done) => MonitorLine::new(&name, MonitorAction::Repaired, done),
                Err(e) => MonitorLine::new(&name, MonitorAction::Error, e.message),
            })),
        Err(e) => run
            .lines
            .push(MonitorLine::new("acc", MonitorAction::Error, e.message)),
    }
}
