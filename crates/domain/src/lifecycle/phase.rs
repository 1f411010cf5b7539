//! What an instance is doing, why it was started or stopped, and why it is not running: plain
//! values. It decides nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::instance::Exit;

/// What an instance is doing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its files and rows are being made.
    Creating,
    /// Nothing runs.
    Asleep,
    /// Started, has not answered yet.
    Waking,
    /// Answers; the gate is open.
    Awake,
    /// The gate is closed; requests in flight continue.
    Draining,
    /// Asked to stop.
    Stopping,
    /// Did not start, or died; may be started again later.
    Failed,
    /// Out of service for good, files kept until purge.
    Destroyed,
}

/// The cause of a wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A request to its host.
    Request,
    /// The operator.
    Operator,
    /// acc itself, because it is pinned.
    Pinned,
    /// Unknown: the request came to another acc, which ended before the instance answered and did
    /// not record the cause.
    Unknown,
}

/// Why it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Drain {
    /// It was idle: anything in flight cancels the stop.
    Idle,
    /// The operator asked: waits for requests in flight, up to the drain timeout.
    Operator,
    /// It cannot be reached at its address: there is nothing to wait for.
    Displaced,
}

/// Why an instance is not running although it was meant to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Failure {
    /// It could not be started at all.
    NotStarted(String),
    /// It ended before its first answer.
    ExitedAtStart(Exit),
    /// It did not answer in time.
    NotReady {
        /// The time limit.
        within: Duration,
        /// What was waited for, e.g. "a connection on `/run/acc/sock/a/app.sock`".
        what: String,
    },
    /// It died while it was awake.
    Died(Exit),
}

/// Why the machine refuses an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denied {
    /// `desired` is down.
    #[error("it is disabled")]
    Disabled,
    /// It was destroyed.
    #[error("it is destroyed")]
    Destroyed,
    /// It is being made.
    #[error("it is still being created")]
    Creating,
    /// It failed a moment ago.
    #[error("it failed ({name}), the next try is in {} s", .retry_in.as_secs().max(1))]
    Failed {
        /// The failure's name.
        name: &'static str,
        /// Time until the next try.
        retry_in: Duration,
    },
    /// Only a sleeping instance can do that.
    #[error("it is {}, not asleep", .0.as_str())]
    NotAsleep(Phase),
}
