//! The state machine of one instance: [`step`] takes the machine, an event, the time and the
//! limits, and returns the next machine and the effects to perform, in order.
//!
//! ```text
//! creating -> asleep -> waking -> awake -> draining -> stopping -> asleep
//!                          \-> failed <-/                 \-> failed (when the stop was for a start that failed)
//! asleep, failed -> destroyed
//! ```
//!
//! It never reads a clock, does I/O or takes a lock. The phase is private to this folder, so
//! nothing else can change it. Facts (an exit, an answer, a timer) carry the number of the run they
//! belong to; those of an earlier run change nothing. Requests are no events: [`Requests`] counts
//! them apart from the machine, and is read before each step and told of its result. Effects are performed in the order given;
//! [`Effect::Persist`] stands before whatever acts.

mod effect;
mod event;
mod limits;
mod machine;
mod moves;
mod phase;
mod requests;
mod rows;
#[cfg(test)]
mod tests;
mod words;

pub use effect::{Effect, Note};
pub use event::Event;
pub use limits::Limits;
pub use machine::{Answer, BACK_OFF, IDLE_CHECKS, Machine, STABLE, Step, Stored};
pub use phase::{Cause, Denied, Drain, Failure, Phase};
pub use requests::Requests;

use super::time::Timestamp;

/// Applies one event.
pub fn step(
    machine: &Machine,
    event: &Event,
    now: Timestamp,
    limits: &Limits,
) -> Result<Step, Denied> {
    rows::apply(machine, event, now, limits)
}
