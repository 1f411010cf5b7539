//! Starts and stops an instance for a verb, waits for what comes of it, and words it for the
//! operator.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::lifecycle::{Answer, Cause, Denied, Event, Failure, Phase};
use crate::domain::name::InstanceName;
use crate::service::context::Context;
use crate::service::error::{ErrorKind, ServiceError};
use crate::service::instance::handle::{Handle, Refused};

/// What came of a verb's wait.
pub(in crate::service) enum Settled {
    /// The desired phase was reached.
    There,
    /// It failed instead.
    Failed(Failure),
    /// A stop put it to sleep meanwhile.
    Stopped,
}

/// Starts an instance and waits until it answers or has failed, and its event is written.
pub(in crate::service) async fn start(
    ctx: &Context,
    handle: &Arc<Handle>,
    cause: Cause,
) -> Result<(bool, Settled), ServiceError> {
    let came_to = until_started(ctx, handle, cause).await;
    handle.caught_up(ctx).await;
    came_to
}

async fn until_started(
    ctx: &Context,
    handle: &Arc<Handle>,
    cause: Cause,
) -> Result<(bool, Settled), ServiceError> {
    let name = &handle.instance.name;
    let mut changes = handle.follow();
    let (answer, run) = handle
        .ask(Event::Wake(cause))
        .await
        .map_err(|r| refused("start", name, r))?;
    let already = answer == Answer::Already && handle.snapshot().phase == Phase::Awake;
    // Its turn may come late and a stop may have to end first; the machine's own timers end each of
    // these.
    let limits = ctx.limits(&handle.launched());
    let longest = limits.start * 5 + limits.longest_stop();
    let deadline = ctx.now().after(longest);
    loop {
        let now = *changes.borrow_and_update();
        if now.phase == Phase::Awake {
            return Ok((already, Settled::There));
        }
        if now.failed_run.is_some_and(|failed| failed >= run) && now.phase != Phase::Waking {
            let failure = handle.machine().failure().cloned();
            return Ok((
                false,
                Settled::Failed(failure.unwrap_or(Failure::NotStarted("unknown reason".into()))),
            ));
        }
        // It was on its way when the machine had answered; a stop that came later, also one during
        // a stop, took that back.
        if !now.phase.is_live() {
            return Ok((false, Settled::Stopped));
        }
        let left = deadline.since(ctx.now());
        if tokio::time::timeout(left, changes.changed()).await.is_err() {
            let message = format!(
                "`{name}` is still {} after {:.0} s",
                handle.snapshot().phase.as_str(),
                longest.as_secs_f64()
            );
            return Err(ServiceError::new(
                ErrorKind::TimedOut,
                message,
                format!("see `acc logs {name}`"),
            ));
        }
    }
}

/// Puts an instance to sleep and waits until it is, and its event is written. `true`: it was so
/// already.
pub(in crate::service) async fn stop(
    ctx: &Context,
    handle: &Arc<Handle>,
    now: bool,
) -> Result<bool, ServiceError> {
    let came_to = until_stopped(ctx, handle, now).await;
    handle.caught_up(ctx).await;
    came_to
}

async fn until_stopped(
    ctx: &Context,
    handle: &Arc<Handle>,
    now: bool,
) -> Result<bool, ServiceError> {
    let name = &handle.instance.name;
    let mut changes = handle.follow();
    let (answer, _) = handle
        .ask(Event::Sleep { now })
        .await
        .map_err(|r| refused("stop", name, r))?;
    if answer == Answer::Already && !handle.snapshot().phase.is_live() {
        return Ok(true);
    }
    let limits = ctx.limits(&handle.launched());
    let grace = if now {
        limits.stop * 3
    } else {
        limits.longest_stop()
    };
    let deadline = ctx.now().after(grace.max(Duration::from_secs(10)));
    let run = handle.snapshot().run;
    loop {
        let seen = *changes.borrow_and_update();
        // Another run: it slept, and a waiting request woke it again at once.
        if !seen.phase.is_live() || seen.run != run {
            return Ok(false);
        }
        if seen.phase == Phase::Awake {
            let message = format!(
                "`{name}` was not stopped: its open requests could not be counted, or it was started again"
            );
            return Err(ServiceError::failed(
                message,
                format!("see `acc events {name}`, or use `acc stop --now {name}`"),
            ));
        }
        let left = deadline.since(ctx.now());
        if tokio::time::timeout(left, changes.changed()).await.is_err() {
            let message = format!("`{name}` is still {}", handle.snapshot().phase.as_str());
            return Err(ServiceError::new(
                ErrorKind::TimedOut,
                message,
                format!("see `acc info {name}` and `acc logs {name}`"),
            ));
        }
    }
}

/// A machine's refusal for the operator.
pub(in crate::service) fn refused(
    verb: &str,
    name: &InstanceName,
    refused: Refused,
) -> ServiceError {
    let denied = match refused {
        Refused::Broken(e) => {
            return ServiceError {
                message: format!("could not {verb} `{name}`: {}", e.message),
                ..e
            };
        }
        Refused::Halting => return halting(verb, name),
        Refused::Denied(denied) => denied,
    };
    let hint = match &denied {
        Denied::Disabled => format!("run `acc enable {name}` first"),
        Denied::Destroyed => format!("remove it with `acc purge {name}`, then create it again"),
        Denied::Creating => "wait until it is created".to_owned(),
        Denied::Failed { .. } => format!("see `acc logs {name}`; `acc start {name}` tries at once"),
        Denied::NotAsleep(_) => format!("run `acc stop {name}` first, or use --force"),
    };
    ServiceError::new(
        ErrorKind::Denied,
        format!("could not {verb} `{name}`: {denied}"),
        hint,
    )
}

/// acc is being halted: nothing is started any more.
pub(in crate::service) fn halting(verb: &str, name: &InstanceName) -> ServiceError {
    ServiceError::new(
        ErrorKind::Denied,
        format!("could not {verb} `{name}`: acc is stopping"),
        "start acc again with `acc boot`",
    )
}

/// Another caller's stop, as an error for the operator.
pub(in crate::service) fn stopped(verb: &str, name: &InstanceName) -> ServiceError {
    let message = format!("could not {verb} `{name}`: it was stopped while it was starting");
    ServiceError::failed(message, format!("see `acc events {name}`"))
}

/// A failure for the operator.
pub(in crate::service) fn failed(
    verb: &str,
    name: &InstanceName,
    failure: &Failure,
) -> ServiceError {
    let kind = if matches!(failure, Failure::NotReady { .. }) {
        ErrorKind::TimedOut
    } else {
        ErrorKind::Failed
    };
    let hint = match failure {
        // It never ran: its log knows nothing of it.
        Failure::NotStarted(_) => {
            format!(
                "fix the problem above, then run `acc start {name}`; `acc doctor` checks this host"
            )
        }
        _ => format!("see `acc logs {name}`"),
    };
    // What failed is said by the verb.
    let why = if let Failure::NotStarted(why) = failure {
        why.clone()
    } else {
        failure.to_string()
    };
    ServiceError::new(kind, format!("could not {verb} `{name}`: {why}"), hint)
}
