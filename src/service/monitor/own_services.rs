//! What acc needs beside the instances: its supervisor, nginx, its own server. What has died is
//! brought back; what was halted in order, or is kept by another program (systemd), is left alone.

use std::sync::Arc;

use crate::config::Booted;
use crate::domain::event_kind::EventKind;
use crate::driver::supervisor::{Ensured, SERVER, Service};
use crate::host::append;
use crate::service::error::chain;
use crate::service::instance::revive;
use crate::service::outcome::{MonitorAction, MonitorLine, MonitorRun};
use crate::service::routes;
use crate::service::world::World;

/// Sees to it that all of it runs; what was done, and what does not work, is a line of the run.
pub(in crate::service) async fn keep(world: &Arc<World>, thorough: bool, run: &mut MonitorRun) {
    edge(world, thorough, run).await;
    let config = world.config();
    let booted = config.booted();
    if booted == Booted::No {
        return;
    }
    run.lines.extend(revive::revive(world).await);
    for service in &world.services {
        if service.name != SERVER {
            run.lines.extend(ensure(world, service).await);
        } else if world.serving() && !world.is_orphaned() {
            // The successor of a supervisor that died finds this server by its record, which is
            // renewed by asking.
            let _ = world.own_services.service(service.name).await;
            // A server that has outlived its supervisor has no reader for its output.
            append::keep_log(&config.own_log(SERVER));
        } else if booted == Booted::InBackground {
            // The next master takes over the worker of one that was killed.
            run.lines.extend(ensure(world, service).await);
        }
    }
}

async fn edge(world: &Arc<World>, thorough: bool, run: &mut MonitorRun) {
    match world.edge.is_up().await {
        Err(e) => run
            .lines
            .push(MonitorLine::new("acc", MonitorAction::Error, chain(&e))),
        Ok(up) => {
            // Before it is started again, and on request: the texts are written anew
            // if they are not what they should be.
            if (thorough || !up)
                && let Err(e) = routes::apply(world).await
            {
                run.lines
                    .push(MonitorLine::new("acc", MonitorAction::Error, e.message));
            }
            if up {
                repair_edge(world, run).await;
            }
        }
    }
}

/// Does what faces the network answer, as far as acc's server? What keeps it from that is fixed
/// and reported.
async fn repair_edge(world: &Arc<World>, run: &mut MonitorRun) {
    // It cannot be reached before the next worker has its sockets.
    if world.run_folder.is_replaced(world.now()) {
        return;
    }
    match world.edge.repair(world.serving()).await {
        Ok(did) => did
            .into_iter()
            .for_each(|did| report(world, world.edge.kind(), did, run)),
        Err(e) => run.lines.push(MonitorLine::new(
            world.edge.kind(),
            MonitorAction::Error,
            chain(&e),
        )),
    }
}

/// A line of the run, and an event.
pub(in crate::service) fn report(world: &World, part: &str, what: String, run: &mut MonitorRun) {
    let (at, detail) = (world.clock.wall(), what.clone());
    drop(world.write(move |store| {
        let noted = store.record(at, None, "", EventKind::Repaired, &detail);
        noted.inspect_err(|e| tracing::warn!("could not write an event: {}", chain(e)))
    }));
    run.lines
        .push(MonitorLine::new(part, MonitorAction::Repaired, what));
}

async fn ensure(world: &Arc<World>, service: &Service) -> Option<MonitorLine> {
    match world.own_services.ensure_service(service).await {
        Ok(Ensured::Started) => Some(MonitorLine::new(
            service.name,
            MonitorAction::Repaired,
            "it was not running; started it",
        )),
        Ok(Ensured::Already) => None,
        Err(e) => Some(MonitorLine::new(
            service.name,
            MonitorAction::Error,
            chain(&e),
        )),
    }
}
