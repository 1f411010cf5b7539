//! What the machine wants remembered, as events.

use tracing::{info, warn};

use crate::domain::event_kind::EventKind;
use crate::domain::instance::Instance;
use crate::domain::lifecycle::{Drain, Note};
use crate::domain::name::{InstanceId, InstanceName};
use crate::service::context::Context;
use crate::service::error::chain;
use crate::service::instance::wake_timing::Phases;
use crate::store::EventRow;

/// Writes one line; an event that cannot be written stops nothing.
pub(super) fn write(ctx: &Context, instance: &Instance, note: &Note, phases: Option<Phases>) {
    let (kind, detail) = words(note);
    line(ctx, instance, kind, detail, phases);
}

/// The same for what is no matter of the machine's.
pub(super) fn line(
    ctx: &Context,
    instance: &Instance,
    kind: EventKind,
    detail: String,
    phases: Option<Phases>,
) {
    // A field without a value is left out of the line.
    info!(
        instance = %instance.name,
        kind = kind.as_str(),
        noticed_at_us = phases.map(|p| p.noticed_at_us),
        spawned_us = phases.map(|p| p.spawned_us),
        call_us = phases.map(|p| p.call_us),
        listening_us = phases.map(|p| p.listening_us),
        answered_us = phases.map(|p| p.answered_us),
        "{detail}"
    );
    let phases = phases.and_then(|p| serde_json::to_string(&p).ok());
    write_row(ctx, instance.id, &instance.name, kind, detail, phases);
}

/// The same for one that is only known by its row.
pub(super) fn of(
    ctx: &Context,
    id: InstanceId,
    name: &InstanceName,
    kind: EventKind,
    detail: String,
) {
    info!(instance = %name, kind = kind.as_str(), "{detail}");
    write_row(ctx, id, name, kind, detail, None);
}

fn write_row(
    ctx: &Context,
    id: InstanceId,
    name: &InstanceName,
    kind: EventKind,
    detail: String,
    phases: Option<String>,
) {
    let row = EventRow {
        at: ctx.clock.wall(),
        name: name.to_string(),
        kind,
        detail,
        phases,
    };
    // Not waited for: a caller that needs it on disk waits for `Context::written`.
    drop(ctx.write(move |store| {
        store.record_row(Some(id), &row).inspect_err(|e| {
            warn!(
                instance = row.name,
                "could not write an event: {}",
                chain(e)
            )
        })
    }));
}

fn words(note: &Note) -> (EventKind, String) {
    match note {
        Note::Woke(cause, took) => (
            EventKind::Woke,
            format!("for {}, after {} ms", cause.as_str(), took.as_millis()),
        ),
        Note::Slept(Drain::Idle) => (EventKind::Slept, "idle".into()),
        Note::Slept(Drain::Operator) => (EventKind::Slept, "stopped by the operator".into()),
        Note::Slept(Drain::Displaced) => (
            EventKind::Slept,
            "it was not reachable at its address".into(),
        ),
        Note::Displaced(why) => (EventKind::Displaced, why.clone()),
        Note::EndedItself => (EventKind::Ended, "it exited by itself with code 0".into()),
        Note::Failed(failure) => (EventKind::Failed, failure.to_string()),
        Note::StopCancelled(in_flight) => (
            EventKind::StopCancelled,
            format!("idle stop cancelled: {in_flight} in flight"),
        ),
        Note::Killed => (
            EventKind::Killed,
            "it did not exit within the stop timeout".into(),
        ),
        Note::Created => (EventKind::Created, "in service".into()),
        Note::Destroyed => (EventKind::Destroyed, "out of service".into()),
        Note::DesiredChanged(desired) => (EventKind::Desired, format!("now {}", desired.as_str())),
    }
}
