//! What has to be done after a step: the output of [`super::step`]. It performs nothing.

use std::time::Duration;

use super::phase::{Cause, Drain, Failure};
use crate::domain::instance::DesiredState;
use crate::domain::time::Timestamp;

/// What to do after a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Write the machine down. If that fails, what was asked for is not done.
    Persist,
    /// Start the process: answered by `Spawned` or `StartFailed`.
    Spawn,
    /// Tell of the end of the process: answered by `Exited`.
    Watch,
    /// Wait until it answers: answered by `Ready` or `StartFailed`.
    Probe,
    /// Let the edge reach it.
    OpenGate,
    /// Cut the edge off; connections already made go on.
    CloseGate,
    /// Count what is in flight: answered by `InFlight` or `DrainFailed`. The number tells how many
    /// looks came before.
    Count(u32),
    /// End WebSockets and event streams, which would go on for ever; other requests are still
    /// waited for.
    EndStreams,
    /// Ask the process group to end.
    Terminate,
    /// End the process group.
    Kill,
    /// Come back with `Timer` at this time; replaces an earlier one.
    Arm {
        /// When.
        at: Timestamp,
        /// Its number.
        armed: u64,
    },
    /// Write an event.
    Record(Note),
}

/// What is written among the events.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Note {
    /// It answers, after this long.
    Woke(Cause, Duration),
    /// It was put to sleep.
    Slept(Drain),
    /// Another program listens where it should, or nobody; says which.
    Displaced(String),
    /// It ended by itself with code 0.
    EndedItself,
    /// It failed.
    Failed(Failure),
    /// An idle stop was called off: this many were in flight.
    StopCancelled(u32),
    /// It did not end in time and was killed.
    Killed,
    /// Made.
    Created,
    /// Taken out of service.
    Destroyed,
    /// `desired` was changed.
    DesiredChanged(DesiredState),
}
