//! What a monitor run does besides instances: logs and events must not fill the disk.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::Config;
use crate::domain::name::InstanceId;
use crate::domain::time::WallTime;
use crate::host::removal;
use crate::host::rotate::Trimmed;
use crate::service::access_logs;
use crate::service::error::chain;
use crate::service::monitor::log_bound;
use crate::service::outcome::{MonitorAction, MonitorLine, MonitorRun};
use crate::service::world::World;
use crate::store::StoreError;

/// How long a run may be at the removal of what was purged.
const REMOVE_WITHIN: Duration = Duration::from_secs(5);

/// A run looks at the logs of at least so many instances.
const LEAST_SHARE: i64 = 100;

/// And of at most so many for each second between two runs.
const MOST_A_SECOND: i64 = 15;

/// Does it all; what does not work is a line of the run.
pub(in crate::service) async fn keep(world: &Arc<World>, run: &mut MonitorRun) {
    let live = world.registry.live_names();
    for runner in world.runners.all() {
        if let Err(e) = runner.tidy(&live).await {
            run.lines
                .push(MonitorLine::new("acc", MonitorAction::Error, chain(&e)));
        }
    }
    let config = world.config();
    let mut names: BTreeSet<String> = live.iter().map(ToString::to_string).collect();
    match next_sleepers(world, config.idle.check_every).await {
        Ok(sleepers) => names.extend(sleepers),
        Err(e) => run
            .lines
            .push(MonitorLine::new("acc", MonitorAction::Error, chain(&e))),
    }
    access_logs::make_all(&config, &names);
    bound_logs(&config, &names, run).await;
    empty_trash(&config, run).await;
    let age = i64::try_from(config.events.keep_for.as_millis()).unwrap_or(i64::MAX);
    let since = WallTime(world.clock.wall().0.saturating_sub(age));
    let keep = config.events.keep;
    let bounded = world.write(move |store| {
        store
            .prune_events(since, keep)
            .and_then(|()| store.prune_operations(since, keep))
            .and_then(|()| store.tidy())
    });
    if let Err(e) = bounded.await {
        run.lines
            .push(MonitorLine::new("acc", MonitorAction::Error, chain(&e)));
    }
}

/// Cuts the logs that are too long. nginx and acc append, so the copy and the cut lose nothing but
/// what comes between them. A log that was cut looks like use at the next sample, which only puts
/// an idle stop off.
async fn bound_logs(config: &Config, names: &BTreeSet<String>, run: &mut MonitorRun) {
    for log in logs(config, names) {
        match log_bound::bound(&log).await {
            Ok(Trimmed::NoRoom) => {
                run.lines.push(MonitorLine::new(
                    "acc",
                    MonitorAction::Error,
                    format!(
                        "truncated `{}`; no space to keep a copy of its end",
                        log.display()
                    ),
                ));
            }
            Ok(_) => {}
            Err(e) => run.lines.push(MonitorLine::new(
                "acc",
                MonitorAction::Error,
                format!("could not rotate `{}`: {e}", log.display()),
            )),
        }
    }
}

/// Removes what a purge has put aside.
async fn empty_trash(config: &Config, run: &mut MonitorRun) {
    for trash in [config.trash(), config.run_trash()] {
        if let Err(e) = empty(trash.clone()).await {
            run.lines.push(MonitorLine::new(
                "acc",
                MonitorAction::Error,
                format!("could not remove all in `{}`: {e}", trash.display()),
            ));
        }
    }
}

/// The next instances whose logs to check. The log of a sleeper grows too, when requests may not
/// wake it. A run checks a few of all instances, so that it takes no longer with ten thousand: all
/// within an hour, more than 50,000 within a few.
async fn next_sleepers(
    world: &World,
    check_every: Option<Duration>,
) -> Result<Vec<String>, StoreError> {
    let Some(newest) = world.read(|store| store.newest()).await? else {
        return Ok(Vec::new());
    };
    let share = share(newest, check_every);
    let last = match world.serving() {
        true => InstanceId(world.swept.load(Ordering::Relaxed)),
        // A command that does a run by itself remembers nothing: it begins where its minute
        // says.
        false => InstanceId(
            i64::try_from(world.now().0 / 60_000)
                .unwrap_or(0)
                .wrapping_mul(i64::from(share))
                .rem_euclid(newest.0 + 1),
        ),
    };
    let found = world
        .read(move |store| store.names_after(last, share))
        .await?;
    world
        .swept
        .store(found.last().map_or(0, |(id, _)| id.0), Ordering::Relaxed);
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

/// How many of them in one run. Without a server, cron does a run, once a minute as a
/// rule.
fn share(newest: InstanceId, check_every: Option<Duration>) -> u32 {
    let pause =
        i64::try_from(check_every.unwrap_or(Duration::from_secs(60)).as_secs()).unwrap_or(i64::MAX);
    let part = newest.0.saturating_mul(pause) / 3600;
    u32::try_from(part.clamp(
        LEAST_SHARE,
        pause.saturating_mul(MOST_A_SECOND).max(LEAST_SHARE),
    ))
    .unwrap_or(u32::MAX)
}

/// All logs to check: of these instances, and of acc's own parts.
fn logs(config: &Config, names: &BTreeSet<String>) -> Vec<PathBuf> {
    let own = ["server", "nginx", "nginx-error", "supervisord"].map(|part| config.own_log(part));
    names
        .iter()
        .flat_map(|name| log_bound::of_instance(config, name))
        .chain(own)
        .collect()
}

/// Removes what a purge had no time for.
async fn empty(trash: PathBuf) -> io::Result<()> {
    if !trash.is_dir() {
        return Ok(());
    }
    let emptied = tokio::task::spawn_blocking(move || removal::empty(&trash, REMOVE_WITHIN));
    emptied
        .await
        .unwrap_or_else(|e| Err(io::Error::other(e)))
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_run_checks_few_logs_and_all_runs_of_an_hour_check_all() {
        let share = |newest, pause| i64::from(share(InstanceId(newest), pause));
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(share(10, seconds(30)), LEAST_SHARE);
        assert_eq!(share(10_000, seconds(30)), LEAST_SHARE);
        assert!(share(40_000, seconds(30)) * 120 >= 40_000 - 120);
        assert!(share(40_000, None) * 60 >= 40_000 - 60);
        assert!(share(1_000_000, seconds(30)) < 500);
        assert!(share(10_000, seconds(24 * 3600)) >= 10_000);
    }
}
