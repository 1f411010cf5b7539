//! What acc needs beside the instances: its supervisor, nginx, its own server. What has died is brought back; what was halted in
//! order, or is kept by somebody else (systemd), is left alone.

use std::sync::Arc;
use std::time::Duration;

use super::error::chain;
use super::monitor::line;
use super::outcome::{Pass, PassLine};
use super::routes;
use super::world::World;
use crate::config::{Booted, Config};
use crate::domain::instance::Process;
use crate::domain::name::InstanceName;
use crate::driver::supervisor::{Ensured, Service, SupervisorError};
use crate::host::append;

/// A supervisor that has died is back by then, also on a busy host: Python loads it in a second or two.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// First and longest pause before it is asked again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Sees to it that all of it runs; what was done, and what does not work, is a line of the pass.
pub(super) async fn keep(world: &Arc<World>, thorough: bool, pass: &mut Pass) {
    edge(world, thorough, pass).await;
    let config = world.config();
    let booted = config.booted();
    if booted == Booted::No {
        return;
    }
    pass.lines.extend(revive(world).await);
    for service in &world.services {
        if service.name != "server" {
            pass.lines.extend(ensure(world, service).await);
        } else if world.serving() {
            // Whoever comes after a supervisor that died finds this server by its record, which is renewed by asking.
            let _ = world.supervisor.service(service.name).await;
            let _ = world.note_keeper().await;
            reopen_log(&config);
        } else if booted == Booted::InBackground {
            pass.lines.extend(ensure(world, service).await);
        }
    }
}

async fn edge(world: &Arc<World>, thorough: bool, pass: &mut Pass) {
    match world.edge.is_up().await {
        Err(e) => pass.lines.push(line("acc", "error", chain(&e))),
        Ok(up) => {
            // Before it is started again, and when somebody asks for it: the texts are written anew if they are not what they should be.
            if (thorough || !up)
                && let Err(e) = routes::apply(world).await
            {
                pass.lines.push(line("acc", "error", e.message));
            }
            if up {
                mend_edge(world, pass).await;
            }
        }
    }
}

/// Does what faces the network answer, as far as acc's server? What keeps it from that is mended and told.
async fn mend_edge(world: &Arc<World>, pass: &mut Pass) {
    // It cannot be reached before the next worker has its sockets.
    if world.run_folder.is_replaced(world.now()) {
        return;
    }
    match world.edge.mend(world.serving()).await {
        Ok(did) => did.into_iter().for_each(|did| told(world, world.edge.kind(), did, pass)),
        Err(e) => pass.lines.push(line(world.edge.kind(), "error", chain(&e))),
    }
}

/// A line of the pass and of the ledger.
pub(super) fn told(world: &World, part: &str, what: String, pass: &mut Pass) {
    let (at, detail) = (world.clock.wall(), what.clone());
    drop(world.write(move |store| {
        let noted = store.record(at, None, "", "repaired", &detail);
        noted.inspect_err(|e| tracing::warn!("could not write the ledger: {}", chain(e)))
    }));
    pass.lines.push(line(part, "repaired", what));
}

/// What runs under this name. A supervisor that has died, or lost its socket, is brought back within a few seconds: one that cannot
/// be asked is asked again until then, and who waits for the instance need not know.
///
/// # Errors
/// It still cannot be asked.
pub(super) async fn find(world: &World, name: &InstanceName) -> Result<Option<Process>, SupervisorError> {
    let give_up = world.now().after(BACK_WITHIN.min(world.config().wake.timeout));
    let mut pause = PAUSE.0;
    loop {
        match world.supervisor.find(name).await {
            Err(SupervisorError::Unreachable { .. }) if world.now() < give_up => tokio::time::sleep(pause).await,
            other => return other,
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Brings the supervisor back if it has died and nobody else does.
pub(super) async fn revive(world: &Arc<World>) -> Option<PassLine> {
    if world.config().booted() != Booted::InBackground {
        return None;
    }
    let kind = world.supervisor.kind();
    match world.supervisor.revive(&world.services).await {
        Ok(Ensured::Started) => {
            world.note_revival();
            Some(line(kind, "repaired", "it had died and was started again"))
        }
        Ok(Ensured::Already) => None,
        Err(e) => Some(line(kind, "error", chain(&e))),
    }
}

async fn ensure(world: &Arc<World>, service: &Service) -> Option<PassLine> {
    match world.supervisor.ensure_service(service).await {
        Ok(Ensured::Started) => Some(line(service.name, "repaired", "it did not run and was started")),
        Ok(Ensured::Already) => None,
        Err(e) => Some(line(service.name, "error", chain(&e))),
    }
}

/// A server that has outlived its supervisor has nobody who reads what it says.
fn reopen_log(config: &Config) {
    match append::take_output_if_unread(&config.own_log("server")) {
        Ok(true) => tracing::info!("the supervisor that kept this log has died; the server goes on"),
        Ok(false) => {}
        Err(e) => tracing::warn!("could not write to its own log: {e}"),
    }
}
