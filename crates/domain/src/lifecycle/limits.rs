//! The time limits of a machine. It decides nothing.

use std::time::Duration;

/// The machine's time limits, from the config and the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Quiet for this long is idle.
    pub idle: Duration,
    /// Least time awake.
    pub min_awake: Duration,
    /// From spawn to the first answer.
    pub start: Duration,
    /// How long a stop by the operator waits for requests in flight.
    pub drain: Duration,
    /// The part of it for streams, before they are ended.
    pub drain_streams: Duration,
    /// From the stop signal to the kill.
    pub stop: Duration,
}

impl Limits {
    /// A stop that has begun is over after this long: what is in flight ends, then the process does
    /// or is killed, and is looked for again.
    #[must_use]
    pub fn longest_stop(&self) -> Duration {
        self.drain + self.stop * 3
    }
}
