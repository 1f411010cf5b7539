//! One pass over all instances: put the idle ones to sleep, notice the dead, bring up what is
//! wanted up, repair.
//!
//! It looks at everything and trusts nothing remembered. One broken instance does not end the pass
//! for the others.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::domain::idle::{self, IdleVerdict};
use crate::domain::instance::Process;
use crate::domain::lifecycle::{Cause, Event, Phase};
use crate::domain::name::InstanceName;
use crate::domain::time::Timestamp;
use crate::driver::activity::{LogMark, Seen, Target};
use crate::service::error::{ServiceError, chain};
use crate::service::instance::handle::{Handle, LastLook, offset};
use crate::service::instance::transition::{self, Settled};
use crate::service::monitor::{housekeeping, listeners, own_services, run_folder};
use crate::service::outcome::{MonitorLine, MonitorRun, Outcome};
use crate::service::world::World;
use crate::service::{launch_spec, recover};
use crate::store::{Look, Row};

/// How long a pass waits for a supervisor that must first be asked what runs.
const KNOW_WITHIN: Duration = Duration::from_secs(3);

/// How long a killed process may take to disappear.
const END_WITHIN: Duration = Duration::from_secs(5);

/// The wall clock is slewed by so many ms now and then without being set.
const CLOCK_DRIFT: u64 = 1_000;

/// One pass, unless another one is under way.
pub(in crate::service) async fn run(
    world: &Arc<World>,
    dry_run: bool,
    thorough: bool,
) -> Result<Outcome, ServiceError> {
    let Ok(_alone) = world.monitor.try_lock() else {
        return Ok(Outcome::Busy);
    };
    let mut pass = MonitorRun::default();
    if !dry_run && !world.halting() {
        run_folder::keep(world, &mut pass).await;
        // Then: as long as the supervisor is not there nobody can tell what runs.
        own_services::keep(world, thorough, &mut pass).await;
    }
    let handles = live(world, &mut pass).await?;
    let awake: Vec<Arc<Handle>> = handles
        .into_iter()
        .filter(|h| h.snapshot().phase == Phase::Awake)
        .collect();
    if !dry_run && !world.halting() {
        listeners::keep(world, &awake, &mut pass).await;
    }
    match look(world, &awake).await {
        Ok(seen) if dry_run => {
            for (handle, seen) in awake.iter().zip(&seen) {
                pass.lines.push(would(world, handle, *seen));
            }
        }
        Ok(seen) => sleep_idle(world, &awake, &seen, &mut pass).await,
        // Who is in use is not known: nobody is put to sleep.
        Err(e) => pass.lines.push(MonitorLine::new("acc", "error", e.message)),
    }
    drop(awake);
    if !dry_run && !world.halting() {
        resume(world, &mut pass).await;
        bring_up(world, &mut pass).await;
        reconcile(world, &mut pass).await;
        housekeeping::keep(world, &mut pass).await;
    }
    Ok(Outcome::Monitor(pass))
}

/// Logs what a pass of the server's own has done.
pub fn report(outcome: Result<Outcome, ServiceError>) {
    match outcome {
        Ok(Outcome::Monitor(pass)) => {
            for line in pass.lines {
                match line.action.as_str() {
                    "error" => tracing::warn!(instance = %line.instance, "{}", line.why),
                    action => tracing::info!(instance = %line.instance, action, "{}", line.why),
                }
            }
        }
        Ok(_) => {}
        Err(e) => tracing::warn!("a monitor pass failed: {e}"),
    }
}

/// Handles of all instances that are said to run, once it is known what does.
async fn live(world: &Arc<World>, pass: &mut MonitorRun) -> Result<Vec<Arc<Handle>>, ServiceError> {
    let mut handles: Vec<(Phase, Arc<Handle>)> = Vec::new();
    for row in world.store.busy().map_err(crate::service::error::store)? {
        if row.stored.phase.is_live() {
            match world.handle(&row) {
                Ok(handle) => handles.push((row.stored.phase, handle)),
                Err(e) => pass
                    .lines
                    .push(MonitorLine::new(row.name.as_str(), "error", e.message)),
            }
        }
    }
    let deadline = world.now().after(KNOW_WITHIN);
    let mut known = Vec::new();
    for (before, handle) in handles {
        let name = handle.instance.name.as_str().to_owned();
        if !handle.until_known(deadline.since(world.now())).await {
            pass.lines.push(MonitorLine::new(
                &name,
                "error",
                "its supervisor could not be asked whether it runs",
            ));
            continue;
        }
        if before == Phase::Awake && handle.snapshot().phase == Phase::Failed {
            let why = handle
                .machine()
                .failure()
                .map_or_else(String::new, ToString::to_string);
            pass.lines.push(MonitorLine::new(&name, "died", why));
        }
        known.push(handle);
    }
    Ok(known)
}

/// Looks at all of them in one go.
async fn look(world: &World, handles: &[Arc<Handle>]) -> Result<Vec<Seen>, ServiceError> {
    let config = world.config();
    let logged = config.edge.kind == crate::config::EdgeKind::Nginx;
    let target = |h: &Arc<Handle>| Target {
        listen: h.launched().listen.clone(),
        log: logged.then(|| config.access_log(h.instance.name.as_str())),
    };
    let targets: Vec<Target> = handles.iter().map(target).collect();
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let seen = world.activity.look(&targets).await;
    seen.map_err(|e| {
        ServiceError::failed(
            format!("nobody is put to sleep: {}", chain(&e)),
            "run `acc doctor`",
        )
    })
}

/// What one look says about an instance.
struct Use {
    in_flight: u32,
    used: Option<Timestamp>,
    mark: LogMark,
}

fn usage(world: &World, handle: &Handle, seen: Seen) -> Use {
    let last = *handle
        .last_look
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
        // The log grew between the last look and now. If the wall clock was set in between, its
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

/// What a pass would do about it.
fn would(world: &World, handle: &Handle, seen: Seen) -> MonitorLine {
    let now = world.now();
    let usage = usage(world, handle, seen);
    let limits = world.limits(&handle.launched());
    let mut look = handle.machine().look(usage.in_flight, &limits);
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
            "sleep",
            format!(
                "quiet for {}, its idle timeout is {}",
                short(quiet),
                short(look.timeout)
            ),
        ),
        IdleVerdict::Pinned => MonitorLine::new(name, "keep", "it is wanted up"),
        IdleVerdict::InUse(1) => MonitorLine::new(name, "keep", "1 request or connection is open"),
        IdleVerdict::InUse(n) => MonitorLine::new(
            name,
            "keep",
            format!("{n} requests or connections are open"),
        ),
        IdleVerdict::JustWoken(left) => MonitorLine::new(
            name,
            "keep",
            format!("just woken, kept awake for {} more", short(left)),
        ),
        IdleVerdict::NotYet(left) => MonitorLine::new(
            name,
            "keep",
            format!("quiet for {}, idle in {}", short(quiet), short(left)),
        ),
    }
}

async fn sleep_idle(
    world: &Arc<World>,
    awake: &[Arc<Handle>],
    seen: &[Seen],
    pass: &mut MonitorRun,
) {
    let mut asked = JoinSet::new();
    for (handle, seen) in awake.iter().zip(seen) {
        let (world, handle, seen) = (world.clone(), handle.clone(), *seen);
        asked.spawn(async move { tell(&world, &handle, seen).await });
    }
    while let Some(done) = asked.join_next().await {
        pass.lines.extend(done.ok().flatten());
    }
    pass.lines.sort_by(|a, b| a.instance.cmp(&b.instance));
}

/// Tells the machine what was seen; when that puts it to sleep, waits until it is.
async fn tell(world: &World, handle: &Arc<Handle>, seen: Seen) -> Option<MonitorLine> {
    let name = handle.instance.name.as_str();
    let run = handle.snapshot().run;
    let usage = usage(world, handle, seen);
    let quiet = world.now().since(handle.machine().quiet_since());
    let event = Event::Looked {
        run,
        in_flight: usage.in_flight,
        used: usage.used,
    };
    if let Err(refused) = handle.ask(event).await {
        return Some(MonitorLine::new(
            name,
            "error",
            transition::refused("look at", &handle.instance.name, refused).message,
        ));
    }
    remember(world, handle, usage.mark);
    let mut changes = handle.follow();
    let stopping = |p: Phase| matches!(p, Phase::Draining | Phase::Stopping);
    let limits = world.limits(&handle.launched());
    let settled = changes.wait_for(|s| !stopping(s.phase));
    match tokio::time::timeout(limits.longest_stop(), settled).await {
        Ok(Ok(s)) if s.phase == Phase::Asleep || s.run != run => {
            let quiet = humantime::format_duration(Duration::from_secs(quiet.as_secs()));
            Some(MonitorLine::new(
                name,
                "sleep",
                format!("it was idle for {quiet}"),
            ))
        }
        Ok(_) => None,
        Err(_) => Some(MonitorLine::new(
            name,
            "error",
            format!("it is still {}", handle.snapshot().phase.as_str()),
        )),
    }
}

/// Writes down what was seen, so that the next look, maybe of another process, knows what is new.
fn remember(world: &World, handle: &Handle, mark: LogMark) {
    let now = world.now();
    *handle
        .last_look
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = LastLook {
        mark,
        at: now,
        offset: Some(offset(world.clock.wall(), now)),
    };
    let (quiet, used) = {
        let machine = handle.machine();
        (machine.quiet_since(), machine.used())
    };
    let mark = (mark.inode, mark.size, mark.modified);
    let active_at = used.map(|at| world.wall_at(at));
    let clock = Some(offset(world.clock.wall(), now));
    let look = Look {
        mark,
        at: now,
        quiet_since: quiet,
        active_at,
        clock,
    };
    let (id, name) = (handle.instance.id, handle.instance.name.clone());
    drop(world.write(move |store| {
        let written = store.looked(id, &look);
        written.inspect_err(
            |e| tracing::warn!(instance = %name, "could not write down its use: {}", chain(e)),
        )
    }));
}

/// Takes up what was begun and could not be ended.
async fn resume(world: &Arc<World>, pass: &mut MonitorRun) {
    match recover::resume(world).await {
        Ok(all) => pass
            .lines
            .extend(all.into_iter().map(|(name, done)| match done {
                Ok(done) => MonitorLine::new(&name, "repaired", done),
                Err(e) => MonitorLine::new(&name, "error", e.message),
            })),
        Err(e) => pass.lines.push(MonitorLine::new("acc", "error", e.message)),
    }
}

/// Starts what is wanted up and is not.
async fn bring_up(world: &Arc<World>, pass: &mut MonitorRun) {
    let rows = match world.store.wanted_up() {
        Ok(rows) => rows,
        Err(e) => return pass.lines.push(MonitorLine::new("acc", "error", chain(&e))),
    };
    let mut starts = JoinSet::new();
    for row in rows.into_iter().filter(|r| !r.stored.phase.is_live()) {
        let world = world.clone();
        starts.spawn(async move { start_pinned(&world, &row).await });
    }
    while let Some(done) = starts.join_next().await {
        pass.lines.extend(done.ok().flatten());
    }
}

async fn start_pinned(world: &Arc<World>, row: &Row) -> Option<MonitorLine> {
    let name = row.name.as_str();
    let handle = match world.handle(row) {
        Ok(handle) => handle,
        Err(e) => return Some(MonitorLine::new(name, "error", e.message)),
    };
    let (phase, retry_at) = {
        let machine = handle.machine();
        (machine.phase(), machine.retry_at())
    };
    // A failed one waits for its time without a word: cron would mail it each minute.
    if phase == Phase::Failed && world.now() < retry_at {
        return None;
    }
    match transition::start(world, &handle, Cause::Pinned).await {
        Ok((true, _)) => None,
        Ok((false, Settled::There)) => Some(MonitorLine::new(name, "started", "it is wanted up")),
        Ok((_, Settled::Stopped)) => None,
        Ok((false, Settled::Failed(failure))) => {
            Some(MonitorLine::new(name, "error", failure.to_string()))
        }
        Err(e) => Some(MonitorLine::new(name, "error", e.message)),
    }
}

/// Makes gates and processes what the phases say. "Could not ask" changes nothing.
async fn reconcile(world: &Arc<World>, pass: &mut MonitorRun) {
    match world.edge.open_gates().await {
        Ok(open) => {
            let open: BTreeSet<String> = open.iter().map(ToString::to_string).collect();
            gates(world, &open, pass).await;
        }
        Err(e) => pass.lines.push(MonitorLine::new("acc", "error", chain(&e))),
    }
    match world.supervisor.running().await {
        Ok(running) => {
            for (name, process) in running {
                strays(world, &name, process, pass).await;
            }
        }
        Err(e) => pass.lines.push(MonitorLine::new("acc", "error", chain(&e))),
    }
    sweep(world, pass).await;
}

/// Processes that an instance has left which does not run any more: acc died before their end.
async fn sweep(world: &World, pass: &mut MonitorRun) {
    let handles = world.registry.all();
    let live: Vec<InstanceName> = handles
        .iter()
        .filter(|h| h.snapshot().phase.is_live())
        .map(|h| h.instance.name.clone())
        .collect();
    drop(handles);
    match world.supervisor.sweep(&live).await {
        Ok(ended) => pass.lines.extend(ended.iter().map(|(name, count)| {
            let processes = if *count == 1 { "process" } else { "processes" };
            MonitorLine::new(
                name.as_str(),
                "repaired",
                format!("{count} {processes} that it had left were ended"),
            )
        })),
        Err(e) => pass.lines.push(MonitorLine::new("acc", "error", chain(&e))),
    }
}

async fn gates(world: &Arc<World>, open: &BTreeSet<String>, pass: &mut MonitorRun) {
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
            .let_edge_in(&launch_spec::question(world, &handle.launched()))
        {
            pass.lines.push(MonitorLine::new(
                name,
                "repaired",
                "the edge could not connect to its socket",
            ));
        }
        if handle.known() && !open.contains(name) {
            let process = handle.machine().process();
            handle.tell_if(snapshot, Event::Found(process));
            pass.lines
                .push(MonitorLine::new(name, "repaired", "its gate was missing"));
        }
    }
    for name in open.difference(&awake) {
        let Some(_alone) = world.building_unless_busy(name) else {
            continue;
        };
        let Ok(Some(row)) = world.store.by_name(name) else {
            if let Ok(name) = InstanceName::parse(name)
                && world.edge.forget(&name).await.is_ok()
            {
                pass.lines.push(MonitorLine::new(
                    name.as_str(),
                    "repaired",
                    "a gate without an instance was removed",
                ));
            }
            continue;
        };
        // Read again: it may have become awake since.
        if row.stored.phase == Phase::Awake {
            continue;
        }
        let gate = crate::driver::edge::Gate {
            listen: crate::service::launch_spec::listen(&world.config(), &row.name, row.port),
            run: row.stored.run,
            name: row.name,
            process: None,
        };
        // Should it wake just now, its requests take the way through the wake server until the next
        // pass: slower, not lost.
        if !row.stored.phase.is_live() && world.edge.close(&gate).await.is_ok() {
            pass.lines.push(MonitorLine::new(
                name,
                "repaired",
                "the gate of one that does not run was open",
            ));
        }
    }
}

/// A process of an instance that should not run, or of none at all.
async fn strays(world: &Arc<World>, name: &InstanceName, process: Process, pass: &mut MonitorRun) {
    // Made, or removed, just now: then this is no stray.
    let Some(_alone) = world.building_unless_busy(name.as_str()) else {
        return;
    };
    match world.store.by_name(name.as_str()) {
        Err(e) => pass
            .lines
            .push(MonitorLine::new(name.as_str(), "error", chain(&e))),
        Ok(None) => {
            end_stray(
                world,
                name,
                process,
                "a process without an instance was ended",
                pass,
            )
            .await
        }
        // Started by an acc that died before it heard of it, then destroyed.
        Ok(Some(row)) if row.stored.phase == Phase::Destroyed => {
            end_stray(
                world,
                name,
                process,
                "a process of a destroyed instance was ended",
                pass,
            )
            .await;
        }
        Ok(Some(row)) => {
            let Ok(handle) = world.handle(&row) else {
                return;
            };
            let seen = handle.snapshot();
            // Asked again: it may have ended, and another come, since all were listed.
            let still =
                matches!(world.supervisor.find(name).await, Ok(Some(found)) if found == process);
            if !seen.phase.is_live() && still {
                handle.tell_if(seen, Event::Found(Some(process)));
                pass.lines.push(MonitorLine::new(
                    name.as_str(),
                    "repaired",
                    "it ran although it should not",
                ));
            }
        }
    }
}

async fn end_stray(
    world: &World,
    name: &InstanceName,
    process: Process,
    what: &str,
    pass: &mut MonitorRun,
) {
    let killed = world.supervisor.kill(name, process).await.is_ok();
    let _ = tokio::time::timeout(END_WITHIN, world.supervisor.wait(name, process)).await;
    if killed && world.supervisor.forget(name).await.is_ok() {
        pass.lines
            .push(MonitorLine::new(name.as_str(), "repaired", what));
    }
}
