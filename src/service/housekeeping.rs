//! What a monitor pass does besides instances: services that must run, logs and the ledger that must not fill the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::error::chain;
use super::monitor::line;
use super::outcome::Pass;
use super::routes;
use super::world::World;
use crate::config::Config;
use crate::domain::name::InstanceName;
use crate::domain::time::Timestamp;
use crate::driver::host::rotate;
use crate::driver::supervisor::Ensured;

/// A log of nginx's or acc's own is rotated above this many bytes.
const LOG_MAX: u64 = 10 * 1024 * 1024;

/// Does it all; what does not work is a line of the pass.
pub(super) async fn keep(world: &Arc<World>, thorough: bool, pass: &mut Pass) {
    match world.edge.is_up().await {
        Err(e) => pass.lines.push(line("acc", "error", chain(&e))),
        Ok(up) if up && !thorough => {}
        // Before it is started again, and when somebody asks for it: the texts are written anew if they are not what they should be.
        Ok(_) => {
            if let Err(e) = routes::apply(world).await {
                pass.lines.push(line("acc", "error", e.message));
            }
        }
    }
    for service in &world.services {
        match world.supervisor.ensure_service(service).await {
            Ok(Ensured::Started) => pass.lines.push(line(service.name, "repaired", "it did not run and was started")),
            Ok(Ensured::Already) => {}
            Err(e) => pass.lines.push(line(service.name, "error", chain(&e))),
        }
    }
    let handles = world.registry.all();
    let live: Vec<InstanceName> = handles.iter().filter(|h| h.snapshot().phase.is_live()).map(|h| h.instance.name.clone()).collect();
    drop(handles);
    if let Err(e) = world.supervisor.tidy(&live).await {
        pass.lines.push(line("acc", "error", chain(&e)));
    }
    let config = world.config();
    let mut names: Vec<String> = live.iter().map(ToString::to_string).collect();
    if sweep_is_due(world.now(), config.idle.check_every) {
        match world.store.names() {
            Ok(all) => names = all,
            Err(e) => pass.lines.push(line("acc", "error", chain(&e))),
        }
    }
    for log in logs(&config, &names) {
        // nginx and acc append, so the copy and the cut lose nothing but what comes between them. A log that was cut looks
        // like use at the next look, which only puts an idle stop off.
        if let Err(e) = rotate::trim(&log, LOG_MAX) {
            pass.lines.push(line("acc", "error", format!("could not rotate `{}`: {e}", log.display())));
        }
    }
    if let Err(e) = world.store.prune_events(world.clock.wall()) {
        pass.lines.push(line("acc", "error", chain(&e)));
    }
}

/// A sleeper's log grows too, when nobody may wake it and a crawler asks all the same. All of them are looked at in one minute
/// of each hour, or in every pass where passes are rare.
fn sweep_is_due(now: Timestamp, check_every: Option<Duration>) -> bool {
    (now.0 / 60_000).is_multiple_of(60) || check_every.is_some_and(|pause| pause > Duration::from_secs(60))
}

/// Logs that no supervisor bounds: requests to these instances, and what acc's own parts say.
fn logs(config: &Config, names: &[String]) -> Vec<PathBuf> {
    let requests = names.iter().flat_map(|name| [config.access_log(name), config.uncounted_log(name)]);
    requests.chain(["server", "nginx", "nginx-error"].map(|part| config.own_log(part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_logs_are_looked_at_once_an_hour_or_when_passes_are_rare() {
        let minute = |m: u64| Timestamp(m * 60_000 + 30_000);
        assert!(sweep_is_due(minute(120), Some(Duration::from_secs(30))));
        assert!(!sweep_is_due(minute(121), Some(Duration::from_secs(30))));
        assert!(!sweep_is_due(minute(121), None));
        assert!(sweep_is_due(minute(121), Some(Duration::from_secs(600))));
    }
}
