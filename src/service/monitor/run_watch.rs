//! Watches the run folder of a server that runs, and starts a monitor run when something was
//! taken out of it.
//!
//! It makes nothing again by itself: the run does (`run_folder`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Booted;
use crate::domain::lifecycle::Phase;
use crate::host::fs::exists;
use crate::host::taken_away::WatchedFolder;
use crate::service::monitor::run_folder::running;
use crate::service::world::World;
use crate::service::{monitor, places};

/// Pause between two checks while an instance is awake. With none awake the kernel reports changes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What is taken away is taken away one by one.
const AT_REST: Duration = Duration::from_millis(50);
/// Pauses after a run that could not make everything again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Is everything there? It blocks, for a moment.
fn is_whole(world: &World) -> bool {
    let config = world.config();
    world.run_folder.learn(&config);
    let booted = config.booted();
    let mut wanted: Vec<PathBuf> = world.run_folder.notes().keys().cloned().collect();
    wanted.extend(
        world
            .run_folder
            .held
            .get()
            .into_iter()
            .flat_map(|(sockets, files)| sockets.iter().chain(files).cloned()),
    );
    if booted == Booted::InBackground {
        wanted.extend(world.own_services.run_files());
    }
    if booted != Booted::No {
        wanted.extend(world.edge.run_files());
    }
    let awake = running(world)
        .into_iter()
        .filter(|(handle, _)| handle.snapshot().phase == Phase::Awake);
    wanted.extend(awake.map(|(handle, _)| {
        config
            .pid_dir()
            .join(format!("{}.pid", handle.instance.name))
    }));
    !places::one_is_gone(&config) && wanted.iter().all(|path| exists(path))
}

/// Sees to it that everything is there, until `end`: a run mends what is not.
pub async fn watch(world: Arc<World>, end: CancellationToken) {
    let mut folder = WatchedFolder::watch(&world.config().run);
    // Once at the beginning: what was removed before the folder was watched causes no event.
    let mut again = Some(AGAIN.0);
    loop {
        let next = async {
            let awake = async {
                world.registry.until_any().await;
                tokio::time::sleep(LOOK_EVERY).await;
            };
            if let Some(again) = again {
                return tokio::time::sleep(again).await;
            }
            tokio::select! {
                () = folder.change() => {}
                () = awake => {}
            }
            tokio::time::sleep(AT_REST).await;
        };
        tokio::select! {
            () = end.cancelled() => return,
            () = next => {}
        }
        folder.renew();
        if world.halting() || looks_whole(&world).await {
            again = None;
            continue;
        }
        tokio::select! {
            () = end.cancelled() => return,
            outcome = monitor::run(&world, false, false) => monitor::report(outcome),
        }
        folder.renew();
        let longer = (again.unwrap_or_default() * 2).clamp(AGAIN.0, AGAIN.1);
        again = if looks_whole(&world).await {
            None
        } else {
            Some(longer)
        };
    }
}

async fn looks_whole(world: &Arc<World>) -> bool {
    let world = world.clone();
    tokio::task::spawn_blocking(move || is_whole(&world))
        .await
        .unwrap_or(true)
}
