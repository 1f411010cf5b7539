//! What kind an event or an effect is, for the task that takes and performs them. It decides
//! nothing.

use crate::domain::lifecycle::{Cause, Effect, Event};

/// The point before an effect (see `host::failpoint`).
pub(in crate::service) fn point(effect: &Effect) -> Option<&'static str> {
    match effect {
        Effect::Persist => None,
        Effect::Spawn => Some("effect.spawn"),
        Effect::Watch => Some("effect.watch"),
        Effect::Probe => Some("effect.probe"),
        Effect::OpenGate => Some("effect.open_gate"),
        Effect::CloseGate => Some("effect.close_gate"),
        Effect::EndStreams => Some("effect.end_streams"),
        Effect::Count(_) => Some("effect.count"),
        Effect::Terminate => Some("effect.terminate"),
        Effect::Kill => Some("effect.kill"),
        Effect::Arm { .. } => Some("effect.arm"),
        Effect::Record(_) => Some("effect.record"),
    }
}

/// A verb waits until it is recorded, however long that takes. A request waits
/// for its application only, and what has happened waits for nothing.
pub(in crate::service) fn must_be_written(event: &Event) -> bool {
    is_asked_for(event) && !matches!(event, Event::Wake(Cause::Request))
}

/// A verb asked for it: if it cannot be recorded it is not done. Everything else has happened
/// already.
pub(in crate::service) fn is_asked_for(event: &Event) -> bool {
    match event {
        Event::Created
        | Event::Wake(_)
        | Event::Sleep { .. }
        | Event::SetDesired(_)
        | Event::Retire(_)
        | Event::Destroy
        | Event::Reset
        | Event::Checked { .. } => true,
        Event::Spawned { .. }
        | Event::Ready { .. }
        | Event::StartFailed { .. }
        | Event::Exited { .. }
        | Event::InFlight { .. }
        | Event::DrainFailed { .. }
        | Event::Displaced { .. }
        | Event::Timer { .. }
        | Event::Found(_) => false,
    }
}
