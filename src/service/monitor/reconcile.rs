//! Makes gates and processes what the phases say: gates that are missing or open without need,
//! processes without an instance.
//!
//! "Could not ask" changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::instance::RunId;
use crate::domain::lifecycle::{Event, Phase};
use crate::domain::name::InstanceName;
use crate::driver::edge::Gate;
use crate::driver::supervisor::Runner;
use crate::service::error::chain;
use crate::service::launch_spec;
use crate::service::outcome::{MonitorAction, MonitorLine, MonitorRun};
use crate::service::world::World;

/// How long a killed process may take to disappear.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Makes gates and processes what the phases say. "Could not ask" changes nothing.
pub(in crate::service) async fn reconcile(world: &Arc<World>, run: &mut MonitorRun) {
    match world.edge.open_gates().await {
        Ok(open) => {
            let open: BTreeSet<String> = open.iter().map(ToString::to_string).collect();
            gates(world, &open, run).await;
        }
        Err(e) => run
            .lines
            .push(MonitorLine::new("acc", MonitorAction::Error, chain(&e))),
    }
    for runner in world.runners.all() {
        match runner.running().await {
            Ok(running) => {
                for (name, run_id) in running {
                    strays(world, runner, &name, run_id, run).await;
                }
            }
            Err(e) => run
                .lines
                .push(MonitorLine::new("acc", MonitorAction::Error, chain(&e))),
        }
    }
    sweep(world, run).await;
}

/// Processes that an instance has left which does not run any more: acc died before their end.
async fn sweep(world: &World, run: &mut MonitorRun) {
    let live = world.registry.live_names();
    for runner in world.runners.all() {
        match runner.sweep(&live, &launch_spec::accounts(world)).await {
            Ok(ended) => run.lines.extend(ended.iter().map(|(name, count)| {
                let processes = if *count == 1 { "process" } else { "processes" };
                MonitorLine::new(
                    name.as_str(),
                    MonitorAction::Repaired,
                    format!("ended {count} orphan {processes}"),
                )
            })),
            Err(e) => run
                .lines
                .push(MonitorLine::new("acc", MonitorAction::Error, chain(&e))),
        }
    }
}

/// Opens the gates of awake instances that lost theirs, and closes those of all others.
async fn gates(world: &Arc<World>, open: &BTreeSet<String>, run: &mut MonitorRun) {
    let mut awake = BTreeSet::new();
    for handle in world.registry.all() {
        let snapshot = handle.snapshot();
        let name = handle.instance.name.as_str();
        if snapshot.phase != Phase::Awake {
            continue;
        }
        awake.insert(name.to_owned());
        if let Ok(true) = world
            .probe
            .let_edge_in(&launch_spec::probe_target(world, &handle.launched()))
        {
            run.lines.push(MonitorLine::new(
                name,
                MonitorAction::Repaired,
                "the edge could not connect to its socket",
            ));
        }
        if handle.known() && !open.contains(name) {
            let run_id = handle.machine().run_id().cloned();
            handle.tell_if(snapshot, Event::Found(run_id));
            run.lines.push(MonitorLine::new(
                name,
                MonitorAction::Repaired,
                "its gate was missing",
            ));
        }
    }
    for name in open.difference(&awake) {
        close_gate(world, name, run).await;
    }
}

/// Closes a gate that is open although its instance is not awake, or does not exist.
async fn close_gate(world: &Arc<World>, name: &str, run: &mut MonitorRun) {
    let Some(_alone) = world.building_unless_busy(name) else {
        return;
    };
    let given = name.to_owned();
    let row = match world.read(move |store| store.by_name(&given)).await {
        Ok(row) => row,
        Err(e) => {
            return run
                .lines
                .push(MonitorLine::new(name, MonitorAction::Error, chain(&e)));
        }
    };
    let Some(row) = row else {
        if let Ok(name) = InstanceName::parse(name)
            && world.edge.forget(&name).await.is_ok()
        {
            run.lines.push(MonitorLine::new(
                name.as_str(),
                MonitorAction::Repaired,
                "removed a gate without an instance",
            ));
        }
        return;
    };
    // It may have become awake since.
    if world.registry.phase(&row).is_live() {
        return;
    }
    let gate = Gate {
        listen: launch_spec::listen(&world.config(), &row.name, row.port),
        run: row.stored.run,
        name: row.name,
        process: None,
        account: launch_spec::account(world),
    };
    // Should it wake just now, its requests take the way through the wake server until the next
    // run: slower, not lost.
    if world.edge.close(&gate).await.is_ok() {
        run.lines.push(MonitorLine::new(
            name,
            MonitorAction::Repaired,
            "its gate was open although it is not running",
        ));
    }
}

/// A process of an instance that should not run, or of none at all.
async fn strays(
    world: &Arc<World>,
    runner: &Arc<dyn Runner>,
    name: &InstanceName,
    run_id: RunId,
    run: &mut MonitorRun,
) {
    // Made, or removed, just now: then this is no stray.
    let Some(_alone) = world.building_unless_busy(name.as_str()) else {
        return;
    };
    let given = name.clone();
    match world.read(move |store| store.by_name(given.as_str())).await {
        Err(e) => run.lines.push(MonitorLine::new(
            name.as_str(),
            MonitorAction::Error,
            chain(&e),
        )),
        Ok(None) => {
            end_stray(
                world,
                runner,
                name,
                &run_id,
                "ended a process without an instance",
                run,
            )
            .await
        }
        // Started by an acc that died before it heard of it, then destroyed.
        Ok(Some(row)) if row.stored.phase == Phase::Destroyed => {
            end_stray(
                world,
                runner,
                name,
                &run_id,
                "ended a process of a destroyed instance",
                run,
            )
            .await;
        }
        Ok(Some(row)) => {
            let Ok(handle) = world.handle(&row).await else {
                return;
            };
            let seen = handle.snapshot();
            // Asked again: it may have ended, and another come, since all were listed.
            let still = matches!(runner.find(name).await, Ok(Some(found)) if found == run_id);
            if !seen.phase.is_live() && still {
                handle.tell_if(seen, Event::Found(Some(run_id)));
                run.lines.push(MonitorLine::new(
                    name.as_str(),
                    MonitorAction::Repaired,
                    "it was running although it should be asleep",
                ));
            }
        }
    }
}

async fn end_stray(
    world: &World,
    runner: &Arc<dyn Runner>,
    name: &InstanceName,
    run_id: &RunId,
    what: &str,
    run: &mut MonitorRun,
) {
    let account = launch_spec::account(world);
    let killed = runner.kill(name, &account, run_id).await.is_ok();
    let ended = runner.wait(name, &account, run_id);
    let _ = tokio::time::timeout(END_WITHIN, ended).await;
    if killed && runner.forget(name, &account).await.is_ok() {
        run.lines.push(MonitorLine::new(
            name.as_str(),
            MonitorAction::Repaired,
            what,
        ));
    }
}
