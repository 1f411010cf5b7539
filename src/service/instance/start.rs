//! One start, from its turn to the supervisor's report, and one check whether that was enough.
//!
//! It never waits for an answer: the task of the instance probes one that is not ready at once.

use std::sync::{Arc, Weak};

use tokio::sync::OwnedSemaphorePermit;

use crate::domain::instance::{Exit, Listen, RunId};
use crate::domain::lifecycle::{Event, Failure, Phase};
use crate::domain::time::Timestamp;
use crate::driver::probe::{NotifySocket, Readiness};
use crate::driver::supervisor::SupervisorError;
use crate::service::context::Context;
use crate::service::error::chain;
use crate::service::instance::handle::Handle;
use crate::service::instance::preflight::{self, Ground};
use crate::service::instance::revive;
use crate::service::launch_spec;

/// The exit codes of a launcher that could not become its program (and of a shell that did not find
/// one).
const NOT_BEGUN: [i32; 2] = [126, 127];

/// What came of a start.
pub(in crate::service) struct Begun {
    /// For the machine.
    pub(in crate::service) event: Event,
    /// Kept until it answers or has failed.
    pub(in crate::service) permit: Option<OwnedSemaphorePermit>,
    /// Where it says that it is ready.
    pub(in crate::service) notify_socket: Option<NotifySocket>,
}

/// Starts run `run`, once fewer than `wake.max_at_once` starts are under way; those that wait go in
/// the order in which they were asked for. `None`: nothing was begun, because another acc manages
/// the instances now.
pub(in crate::service) async fn begin(
    ctx: &Arc<Context>,
    handle: &Weak<Handle>,
    run: u64,
) -> Option<Begun> {
    let permit = tokio::select! {
        biased;
        () = ctx.retired.cancelled() => return None,
        // The semaphore is never closed.
        permit = ctx.starts.clone().acquire_owned() => permit.ok(),
    };
    let handle = handle.upgrade()?;
    let mut notify_socket = None;
    if let Err(why) = launch_spec::make_fit(ctx, &handle) {
        return Some(Begun {
            event: Event::StartFailed {
                run,
                failure: Failure::NotStarted(why),
            },
            permit,
            notify_socket,
        });
    }
    let started = match preflight::clear(ctx, &handle).await {
        Ok(Ground::Clear(program, opened)) => {
            notify_socket = opened;
            let called = ctx.clock.micros();
            let kind = &handle.launched().launch.runner;
            let started = preflight::start(ctx, kind, &program).await.map_err(reason);
            handle.stamps().call(called, ctx.clock.micros());
            started
        }
        Ok(Ground::Own(run_id)) => Ok(run_id),
        Err(why) => Err(why),
    };
    let _ = ctx.reached("effect.spawned");
    let event = match started {
        Ok(run_id) => Event::Spawned {
            run,
            answers: notify_socket.is_none() && answers_already(ctx, &handle, &run_id),
            run_id,
        },
        Err(why) => Event::StartFailed {
            run,
            failure: Failure::NotStarted(why),
        },
    };
    Some(Begun {
        event,
        permit,
        notify_socket,
    })
}

/// Without what every reader of a failure knows: which instance could not be started.
fn reason(error: SupervisorError) -> String {
    match error {
        SupervisorError::NotStarted { why, .. } => why,
        other => chain(&other),
    }
}

/// What a start waits for that takes too long, and where it listens instead. Nothing of one that is
/// not starting.
pub(in crate::service) async fn waits_for(ctx: &Context, handle: &Handle) -> String {
    let (phase, process) = {
        let machine = handle.machine();
        (machine.phase(), machine.run_id().and_then(RunId::process))
    };
    if phase != Phase::Waking {
        return String::new();
    }
    let probe_target = launch_spec::probe_target(ctx, &handle.launched());
    let what = ctx.probe.describe(&probe_target);
    let Some(process) = process else { return what };
    match ctx.probe.elsewhere(&probe_target, process).await {
        Some(elsewhere) => format!("{what}; it listens on {elsewhere} instead"),
        None => what,
    }
}

/// A process that ended with the code of a launcher which could not become its program: why, if
/// that can be seen. Reported before the end, which alone would be a number.
pub(in crate::service) async fn never_began(
    ctx: &Arc<Context>,
    handle: &Weak<Handle>,
    run: u64,
    exit: Exit,
) -> Option<Event> {
    let handle = handle.upgrade().filter(|handle| {
        NOT_BEGUN.map(Exit::Code).contains(&exit) && handle.snapshot().phase == Phase::Waking
    })?;
    let launched = handle.launched();
    let program = launch_spec::program(ctx, &launched);
    let why = ctx.runner(&launched).ok()?.explain(&program).await?;
    Some(Event::StartFailed {
        run,
        failure: Failure::NotStarted(why),
    })
}

/// Does it answer as soon as it is started? Then no wait for readiness is needed.
fn answers_already(ctx: &Context, handle: &Handle, run_id: &RunId) -> bool {
    let probe_target = launch_spec::probe_target(ctx, &handle.launched());
    let answered = ctx.probe.at_once(&probe_target, run_id.process());
    answered
        .map(|answered| note_answer(ctx, handle, &answered))
        .is_some()
}

/// Notes when it answered.
pub(in crate::service) fn note_answer(ctx: &Context, handle: &Handle, answered: &Readiness) {
    handle.stamps().ready(ctx.clock.micros(), answered.ago);
}

/// Its process has ended, and any program may take its port: closing the gate comes first. The
/// machine closes it again.
pub(in crate::service) async fn close_port(ctx: &Context, handle: &Weak<Handle>, run: u64) {
    let Some(gate) = handle
        .upgrade()
        .filter(|_| !ctx.has_retired())
        .map(|handle| handle.gate(run))
    else {
        return;
    };
    if let (Listen::Tcp(_), Err(e)) = (&gate.listen, ctx.edge.close(&gate).await) {
        tracing::warn!(instance = %gate.name, "could not close its gate: {}", chain(&e));
    }
}

/// Did a process that ended while it started die with its supervisor, since it was begun? The
/// supervisor is brought back for the answer, which takes a while: one that is not to wake any more
/// (it is being stopped) needs no answer, and its end is reported at once.
pub(in crate::service) async fn torn(
    ctx: &Arc<Context>,
    handle: &Weak<Handle>,
    since: Timestamp,
) -> bool {
    let Some(mut changes) = handle.upgrade().map(|h| h.follow()) else {
        return false;
    };
    if changes.borrow().phase != Phase::Waking {
        return false;
    }
    let revived = ctx.clone();
    // A task of its own: it is not given up half-way.
    let revival = tokio::spawn(async move { revive::revive(&revived).await.is_some() });
    tokio::select! {
        biased;
        revived = revival => revived.unwrap_or(false) || ctx.revived_since(since),
        _ = changes.wait_for(|seen| seen.phase != Phase::Waking) => false,
    }
}
