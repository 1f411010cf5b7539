//! Asks the supervisor what runs, and brings a supervisor back that has died, while requests wait.
//!
//! It starts and stops no instance.

use std::time::Duration;

use crate::config::Booted;
use crate::domain::instance::{Instance, RunId};
use crate::driver::supervisor::{Ensured, SupervisorError};
use crate::service::context::Context;
use crate::service::error::chain;
use crate::service::instance::handle::Handle;
use crate::service::outcome::{MonitorAction, MonitorLine};

/// How long to wait before asking a supervisor again that could not be asked.
pub(in crate::service) const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A supervisor that has died is back by then, also on a busy host: Python loads it in a second or
/// two.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// First and longest pause before it is asked again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// What runs under this name. A supervisor that has died, or lost its socket, is
/// brought back, and asked again until it answers or [`BACK_WITHIN`] has passed.
///
/// # Errors
/// It still cannot be asked.
pub(in crate::service) async fn find(
    ctx: &Context,
    instance: &Instance,
) -> Result<Option<RunId>, SupervisorError> {
    let runner = ctx.runner(instance)?;
    let give_up = ctx.now().after(BACK_WITHIN.min(ctx.config().wake.timeout));
    let mut pause = PAUSE.0;
    loop {
        match runner.find(&instance.name).await {
            Err(SupervisorError::Unreachable { .. }) if ctx.now() < give_up => {
                tokio::time::sleep(pause).await
            }
            other => return other,
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Starts the supervisor again if it has died and no other program does.
pub(in crate::service) async fn revive(ctx: &Context) -> Option<MonitorLine> {
    if ctx.config().booted() != Booted::InBackground {
        return None;
    }
    let kind = ctx.own_services.kind();
    match ctx.own_services.revive(&ctx.services).await {
        Ok(Ensured::Started) => {
            ctx.note_revival();
            Some(MonitorLine::new(
                kind,
                MonitorAction::Repaired,
                "it had died; restarted it",
            ))
        }
        Ok(Ensured::Already) => None,
        Err(e) => Some(MonitorLine::new(kind, MonitorAction::Error, chain(&e))),
    }
}

/// The database says what runs an instance, and this acc has just begun: the record of its runner
/// (a pid file) may have been taken away.
pub(in crate::service) async fn restore_record(ctx: &Context, handle: &Handle) {
    let (name, run_id) = (&handle.instance.name, handle.machine().run_id().cloned());
    let Some(run_id) = run_id else { return };
    let (launched, log) = (handle.launched(), ctx.config().app_log(name.as_str()));
    let restored = async {
        let runner = ctx.runner(&launched)?;
        runner.restore_record(name, &run_id, &log).await
    };
    match restored.await {
        Ok(true) => {
            tracing::warn!(instance = %name, "the record of {run_id} was missing; wrote it again")
        }
        Ok(false) => {}
        Err(e) => {
            tracing::warn!(instance = %name, "could not write the record of {run_id} again: {}", chain(&e))
        }
    }
}
