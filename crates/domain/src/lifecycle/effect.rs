//! What must be done after a step: the output of [`super::step`]. It performs nothing.

use std::time::Duration;

use super::phase::{Cause, Drain, Failure};
use crate::instance::DesiredState;
use crate::time::Timestamp;

/// What to do after a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Save the machine. If that fails, what was requested is not done.
    Persist,
    /// Start the process: answered by `Spawned` or `StartFailed`.
    Spawn,
    /// Watch the process; its end is reported by `Exited`.
    Watch,
    /// Wait until it answers: answered by `Ready` or `StartFailed`.
    Probe,
    /// Let the edge connect to it.
    OpenGate,
    /// Stop the edge from making new connections; open ones continue.
    CloseGate,
    /// Count what is in flight: answered by `InFlight` or `DrainFailed`. The number says how many
    /// checks came before.
    Count(u32),
    /// End WebSockets and event streams, which do not end by themselves; other requests are still
    /// waited for.
    EndStreams,
    /// Ask the process group to end.
    Terminate,
    /// End the process group.
    Kill,
    /// Send `Timer` at this time; replaces an earlier one.
    Arm {
        /// When.
        at: Timestamp,
        /// Its number.
        armed: u64,
    },
    /// Write an event.
    Record(Note),
}

/// An event to be recorded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Note {
    /// It answers, after this long.
    Woke(Cause, Duration),
    /// It was put to sleep.
    Slept(Drain),
    /// Another program listens at its address, or none does; the text says which.
    Displaced(String),
    /// It ended by itself with code 0.
    EndedItself,
    /// It failed.
    Failed(Failure),
    /// An idle stop was cancelled: this many were in flight.
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
