//! Keeps logs from filling the disk: checks those of awake instances every second, and more often
//! while one of them grows too fast. `housekeeping` checks those of sleepers, and acc's own.
//!
//! It cuts files and writes events. It ends no instance that writes too much.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::Config;
use crate::domain::event_kind::EventKind;
use crate::domain::time::Timestamp;
use crate::host::file_work::file_work;
use crate::host::rotate::{self, LOG_MAX, Trimmed};
use crate::service::events;
use crate::service::instance::handle::Handle;
use crate::service::world::World;

/// Pause between two checks of the logs of awake instances.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The same while one grows by more than [`FLOOD`] between two checks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A log that is longer than this when it is found was written too fast to be kept.
const FLOOD: u64 = 4 * LOG_MAX;
/// The end of a log that is written too fast is kept once in so long.
const KEEP_EVERY: Duration = Duration::from_secs(10);
/// An instance that goes on writing too fast gets an event once in so long.
const SAY_EVERY: Duration = Duration::from_secs(3600);
/// Longest that one log may take.
const WITHIN: Duration = Duration::from_secs(30);

/// The logs of an instance: what it prints, and the requests to it.
pub(in crate::service) fn of_instance(config: &Config, name: &str) -> [PathBuf; 3] {
    [
        config.app_log(name),
        config.access_log(name),
        config.uncounted_log(name),
    ]
}

/// Rotates this log if it is due, and says why when nothing of it could be kept.
pub(in crate::service) async fn bound(log: &Path) -> std::io::Result<Trimmed> {
    if !rotate::is_due(size(log), LOG_MAX) {
        return Ok(Trimmed::Not);
    }
    let log = log.to_owned();
    file_work(WITHIN, move || rotate::trim(&log, LOG_MAX, true)).await
}

/// Bytes of what is there, be it what it may.
fn size(log: &Path) -> u64 {
    fs::symlink_metadata(log).map_or(0, |found| found.len())
}

/// Bounds the logs of all instances that are awake, until `end`.
pub async fn watch(world: Arc<World>, end: CancellationToken) {
    let mut watched = Watched::default();
    loop {
        let next = async {
            // With no instance awake there is nothing to check.
            world.registry.until_any().await;
            tokio::time::sleep(watched.pause).await;
        };
        tokio::select! {
            () = end.cancelled() => return,
            () = next => {}
        }
        watched.look(&world).await;
    }
}

/// What a check remembers for the next one.
struct Watched {
    pause: Duration,
    logs: HashMap<PathBuf, Known>,
}

/// One log that was cut.
#[derive(Default)]
struct Known {
    kept: Option<Timestamp>,
    said: Option<Timestamp>,
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            pause: CHECK_EVERY,
            logs: HashMap::new(),
        }
    }
}

impl Watched {
    async fn look(&mut self, world: &Arc<World>) {
        self.pause = CHECK_EVERY;
        let config = world.config();
        let handles = world.registry.all();
        let logs: Vec<(Arc<Handle>, PathBuf)> = handles
            .iter()
            .flat_map(|h| {
                of_instance(&config, h.instance.name.as_str()).map(|log| (h.clone(), log))
            })
            .collect();
        drop(handles);
        let looked = tokio::task::spawn_blocking(move || {
            let sizes = logs
                .into_iter()
                .map(|(handle, log)| (handle, size(&log), log));
            sizes
                .filter(|(_, size, _)| rotate::is_due(*size, LOG_MAX))
                .collect::<Vec<_>>()
        });
        for (handle, size, log) in looked.await.unwrap_or_default() {
            if size > FLOOD {
                self.pause = LOOK_AGAIN;
            }
            self.cut(world, &handle, log).await;
        }
        let now = world.now();
        let recent = |at: Option<Timestamp>| at.is_some_and(|at| now.since(at) < SAY_EVERY);
        self.logs
            .retain(|_, known| recent(known.kept) || recent(known.said));
    }

    async fn cut(&mut self, world: &World, handle: &Handle, log: PathBuf) {
        let now = world.now();
        let known = self.logs.entry(log.clone()).or_default();
        let keep = known.kept.is_none_or(|at| now.since(at) >= KEEP_EVERY);
        let path = log.clone();
        let why = match file_work(WITHIN, move || rotate::trim(&path, LOG_MAX, keep)).await {
            Ok(Trimmed::Not) => return,
            Ok(Trimmed::Kept) => {
                known.kept = Some(now);
                return;
            }
            Ok(Trimmed::Cut) => "it grows too fast",
            Ok(Trimmed::NoRoom) => "no disk space to keep its end",
            Err(error) => return warn!(log = %log.display(), %error, "could not rotate a log"),
        };
        if known.said.is_none_or(|at| now.since(at) >= SAY_EVERY) {
            known.said = Some(now);
            let name = log.file_name().unwrap_or_default().to_string_lossy();
            events::line(
                world,
                &handle.launched(),
                EventKind::LogCut,
                format!("{name} was cut and is not all kept: {why}"),
                None,
            );
        }
    }
}
