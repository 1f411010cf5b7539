//! Awake instances at whose address another program listens, or none: such an instance is stopped,
//! so that the next request starts it where it can be reached.
//!
//! A server checks every second those on a port, since nginx connects to them by itself, and those
//! whose socket file is gone; a monitor run checks all. It ends no other process: the next start
//! chooses another port.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::instance::{Listen, RunId};
use crate::domain::lifecycle::{Event, Phase};
use crate::service::instance::handle::{Handle, Snapshot};
use crate::service::launch_spec;
use crate::service::outcome::{MonitorAction, MonitorLine, MonitorRun};
use crate::service::world::World;

/// Pause between two checks of a server.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Checks all of these at once, and waits until those that must stop have stopped.
pub(in crate::service) async fn keep(
    world: &Arc<World>,
    awake: &[Arc<Handle>],
    run: &mut MonitorRun,
) {
    let stopped = stop_displaced(world, awake).await;
    for (handle, seen, why) in stopped {
        let mut changes = handle.follow();
        let limits = world.limits(&handle.launched());
        let left = changes.wait_for(|s| s.run != seen.run || !s.phase.is_live());
        let _ = tokio::time::timeout(limits.stop * 3, left).await;
        run.lines.push(MonitorLine::new(
            handle.instance.name.as_str(),
            MonitorAction::Displaced,
            why,
        ));
    }
}

/// Checks awake instances that may have become unreachable, until `end`.
pub async fn watch(world: Arc<World>, end: CancellationToken) {
    loop {
        let next = async {
            // With no instance awake there is nothing to check.
            world.registry.until_any().await;
            tokio::time::sleep(CHECK_EVERY).await;
        };
        tokio::select! {
            () = end.cancelled() => return,
            () = next => {}
        }
        let mut awake = world.registry.all();
        awake.retain(|h| h.snapshot().phase == Phase::Awake && h.known());
        let suspects = tokio::task::spawn_blocking(move || {
            awake
                .into_iter()
                .filter(|h| is_suspect(h))
                .collect::<Vec<_>>()
        });
        let suspects = suspects.await.unwrap_or_default();
        if !suspects.is_empty() {
            stop_displaced(&world, &suspects).await;
        }
    }
}

/// Is it worth a look between two runs? It blocks, shortly.
fn is_suspect(handle: &Handle) -> bool {
    match &handle.launched().listen {
        Listen::Tcp(_) => true,
        Listen::Unix(path) => !path.exists(),
    }
}

/// Tells those that cannot be reached; with what was seen of them, and why.
async fn stop_displaced(
    world: &World,
    awake: &[Arc<Handle>],
) -> Vec<(Arc<Handle>, Snapshot, String)> {
    let mut asked = Vec::new();
    for handle in awake {
        let seen = handle.snapshot();
        let process = handle.machine().run_id().and_then(RunId::process);
        asked.extend(process.map(|process| {
            (
                handle.clone(),
                seen,
                (
                    launch_spec::probe_target(world, &handle.launched()),
                    process,
                ),
            )
        }));
    }
    let places: Vec<_> = asked.iter().map(|(.., place)| place.clone()).collect();
    let mut displaced = Vec::new();
    for ((handle, seen, _), found) in asked.into_iter().zip(world.probe.misplaced(&places).await) {
        let Some(why) = found.filter(|_| handle.snapshot() == seen && seen.phase == Phase::Awake)
        else {
            continue;
        };
        // What is under way with it has its stop timeout; what is with another program is no use of
        // it.
        handle.tell_if(
            seen,
            Event::Displaced {
                run: seen.run,
                why: why.clone(),
            },
        );
        displaced.push((handle, seen, why));
    }
    displaced
}
