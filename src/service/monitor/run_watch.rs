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
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A cleaner removes files one by one: the pause before the check, after the last change.
const AT_REST: Duration = Duration::from_millis(50);
/// Pauses after a run that could not make everything again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Does everything still exist that belongs into the run folder? Blocks for a moment.
fn is_whole(world: &World) -> bool {
    let config = world.config();
    world.run_folder.learn(&config);
    let booted = config.booted();
    let mut expected: Vec<PathBuf> = world.run_folder.notes().keys().cloned().collect();
    expected.extend(
        world
            .run_folder
            .held
            .get()
            .into_iter()
            .flat_map(|(sockets, files)| sockets.iter().chain(files).cloned()),
    );
    if booted == Booted::InBackground {
        expected.extend(world.own_services.run_files());
    }
    if booted != Booted::No {
        expected.extend(world.edge.run_files());
    }
    let awake = running(world)
        .into_iter()
        .filter(|(handle, _)| handle.snapshot().phase == Phase::Awake);
    expected.extend(awake.map(|(handle, _)| {
        config
            .pid_dir()
            .join(format!("{}.pid", handle.instance.name))
    }));
    !places::one_is_gone(&config) && expected.iter().all(|path| exists(path))
}

/// Until `end`: whenever something is missing, starts a monitor run, which makes it again.
pub async fn watch(world: Arc<World>, end: CancellationToken) {
    let mut folder = WatchedFolder::watch(&world.config().run);
    // Once at the beginning: what was removed before the folder was watched causes no event.
    let mut again = Some(AGAIN.0);
    loop {
        let next = async {
            let awake = async {
                world.registry.until_any().await;
                tokio::time::sleep(CHECK_EVERY).await;
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
        if world.halting() || run_folder_is_whole(&world).await {
            again = None;
            continue;
        }
        tokio::select! {
            () = end.cancelled() => return,
            outcome = monitor::run(&world, false, false) => monitor::report(outcome),
        }
        folder.renew();
        let longer = (again.unwrap_or_default() * 2).clamp(AGAIN.0, AGAIN.1);
        again = if run_folder_is_whole(&world).await {
            None
        } else {
            Some(longer)
        };
    }
}

async fn run_folder_is_whole(world: &Arc<World>) -> bool {
    let world = world.clone();
    tokio::task::spawn_blocking(move || is_whole(&world))
        .await
        .unwrap_or(true)
}
