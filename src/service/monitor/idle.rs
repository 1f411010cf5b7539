//! Which awake instances are idle: samples all of them, gives each machine what was seen, and says
//! what became of it.
//!
//! It never decides that an instance sleeps (`domain::idle` does). What could not be sampled counts
//! as in use.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::domain::idle::{self, IdleVerdict};
use crate::domain::lifecycle::{Event, Phase};
use crate::domain::time::Timestamp;
use crate::driver::activity::{LogMark, Seen, Target};
use crate::service::error::{ServiceError, chain};
use crate::service::instance::handle::{Handle, LastCheck, offset};
use crate::service::instance::transition;
use crate::service::outcome::{MonitorAction, MonitorLine, MonitorRun};
use crate::service::world::World;
use crate::store::LogCheck;

/// The wall clock is slewed by so many ms now and then without being set.
const CLOCK_DRIFT: u64 = 1_000;

/// Samples the connections and logs of all of them in one go.
pub(in crate::service) async fn sample(
    world: &World,
    handles: &[Arc<Handle>],
) -> Result<Vec<Seen>, ServiceError> {
    let target = |h: &Arc<Handle>| Target {
        listen: h.launched().listen.clone(),
        log: world.edge.access_log(&h.instance.name),
    };
    let targets: Vec<Target> = handles.iter().map(target).collect();
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let seen = world.activity.sample(&targets).await;
    seen.map_err(|e| {
        ServiceError::failed(
            format!("no instance was put to sleep: {}", chain(&e)),
            "run `acc doctor`",
        )
    })
}

/// What one sample says about an instance.
struct Use {
    in_flight: u32,
    used: Option<Timestamp>,
    mark: LogMark,
}

fn usage(world: &World, handle: &Handle, seen: Seen) -> Use {
    let last = *handle
        .last_check
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let (run, since) = {
        let machine = handle.machine();
        (machine.run(), machine.since())
    };
    let pooled = world.edge.pooled(&handle.gate(run));
    let now_offset = offset(world.clock.wall(), world.now());
    let clock_was_set = last
        .offset
        .is_none_or(|then| now_offset.abs_diff(then) > CLOCK_DRIFT);
    let used = (seen.mark != last.mark).then(|| {
        // The log grew between the last sample and now. If the wall clock was set in between, its
        // time says nothing: then it was just now, which only puts the sleep off.
        if clock_was_set {
            return world.now();
        }
        let at = world
            .clock
            .wall()
            .0
            .saturating_sub(seen.mark.modified)
            .max(0);
        let estimate = Timestamp(world.now().0.saturating_sub(u64::try_from(at).unwrap_or(0)));
        estimate.clamp(last.at.max(since).min(world.now()), world.now())
    });
    Use {
        in_flight: seen.connections.saturating_sub(pooled),
        used,
        mark: seen.mark,
    }
}

/// What a run would do with an instance: for `--dry-run`.
pub(in crate::service) fn preview(world: &World, handle: &Handle, seen: Seen) -> MonitorLine {
    let now = world.now();
    let usage = usage(world, handle, seen);
    let limits = world.limits(&handle.launched());
    let mut look = handle.machine().idle_sample(usage.in_flight, &limits);
    if let Some(used) = usage.used {
        look.quiet_since = look.quiet_since.max(used);
    }
    let quiet = now.since(look.quiet_since.max(look.awake_since));
    let short =
        |d: Duration| humantime::format_duration(Duration::from_secs(d.as_secs())).to_string();
    let name = handle.instance.name.as_str();
    match idle::verdict(&look, now) {
        IdleVerdict::Sleep => MonitorLine::new(
            name,
            MonitorAction::Sleep,
            format!(
                "quiet for {}, its idle timeout is {}",
                short(quiet),
                short(look.timeout)
            ),
        ),
        IdleVerdict::Pinned => MonitorLine::new(name, MonitorAction::Keep, "desired state: up"),
        IdleVerdict::InUse(1) => {
            MonitorLine::new(name, MonitorAction::Keep, "1 request or connection is open")
        }
        IdleVerdict::InUse(n) => MonitorLine::new(
            name,
            MonitorAction::Keep,
            format!("{n} requests or connections are open"),
        ),
        IdleVerdict::JustWoken(left) => MonitorLine::new(
            name,
            MonitorAction::Keep,
            format!("just woken, kept awake for {} more", short(left)),
        ),
        IdleVerdict::NotYet(left) => MonitorLine::new(
            name,
            MonitorAction::Keep,
            format!("quiet for {}, idle in {}", short(quiet), short(left)),
        ),
    }
}

/// Gives each instance its sample, and waits for those that go to sleep because of it.
pub(in crate::service) async fn sleep_idle(
    world: &Arc<World>,
    awake: &[Arc<Handle>],
    seen: &[Seen],
    run: &mut MonitorRun,
) {
    let mut asked = JoinSet::new();
    for (handle, seen) in awake.iter().zip(seen) {
        let (world, handle, seen) = (world.clone(), handle.clone(), *seen);
        asked.spawn(async move { give(&world, &handle, seen).await });
    }
    while let Some(done) = asked.join_next().await {
        run.lines.extend(done.ok().flatten());
    }
    run.lines.sort_by(|a, b| a.instance.cmp(&b.instance));
}

/// Gives the machine what was seen; when that puts it to sleep, waits until it sleeps.
async fn give(world: &World, handle: &Arc<Handle>, seen: Seen) -> Option<MonitorLine> {
    let name = handle.instance.name.as_str();
    let run = handle.snapshot().run;
    let usage = usage(world, handle, seen);
    let quiet = world.now().since(handle.machine().quiet_since());
    let event = Event::Checked {
        run,
        in_flight: usage.in_flight,
        used: usage.used,
    };
    if let Err(refused) = handle.ask(event).await {
        return Some(MonitorLine::new(
            name,
            MonitorAction::Error,
            transition::refused("check", &handle.instance.name, refused).message,
        ));
    }
    store_use(world, handle, usage.mark);
    let mut changes = handle.follow();
    let stopping = |p: Phase| matches!(p, Phase::Draining | Phase::Stopping);
    let limits = world.limits(&handle.launched());
    let settled = changes.wait_for(|s| !stopping(s.phase));
    match tokio::time::timeout(limits.longest_stop(), settled).await {
        Ok(Ok(s)) if s.phase == Phase::Asleep || s.run != run => {
            let quiet = humantime::format_duration(Duration::from_secs(quiet.as_secs()));
            Some(MonitorLine::new(
                name,
                MonitorAction::Sleep,
                format!("it was idle for {quiet}"),
            ))
        }
        Ok(_) => None,
        Err(_) => Some(MonitorLine::new(
            name,
            MonitorAction::Error,
            format!("it is still {}", handle.snapshot().phase.as_str()),
        )),
    }
}

/// Stores what was seen, so that the next sample, maybe of another process, knows what is new.
fn store_use(world: &World, handle: &Handle, mark: LogMark) {
    let now = world.now();
    *handle
        .last_check
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = LastCheck {
        mark,
        at: now,
        offset: Some(offset(world.clock.wall(), now)),
    };
    let (quiet, used) = {
        let machine = handle.machine();
        (machine.quiet_since(), machine.used())
    };
    let log_mark = (mark.inode, mark.size, mark.modified);
    let active_at = used.map(|at| world.wall_at(at));
    let clock = Some(offset(world.clock.wall(), now));
    let check = LogCheck {
        log_mark,
        at: now,
        quiet_since: quiet,
        active_at,
        clock,
    };
    let (id, name) = (handle.instance.id, handle.instance.name.clone());
    drop(world.write(move |store| {
        let written = store.log_checked(id, &check);
        written.inspect_err(
            |e| tracing::warn!(instance = %name, "could not record its last use: {}", chain(e)),
        )
    }));
}
