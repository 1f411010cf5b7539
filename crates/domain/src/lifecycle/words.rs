//! Phases, failures and exits as text: for the database, the command line, JSON and pages.

use std::fmt;

use super::phase::{Cause, Failure, Phase};
use crate::instance::Exit;

impl Phase {
    /// All phases, in the order of the lifecycle.
    pub const ALL: [Self; 8] = [
        Self::Creating,
        Self::Asleep,
        Self::Waking,
        Self::Awake,
        Self::Draining,
        Self::Stopping,
        Self::Failed,
        Self::Destroyed,
    ];

    /// The word in the database, on the command line and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Asleep => "asleep",
            Self::Waking => "waking",
            Self::Awake => "awake",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
            Self::Destroyed => "destroyed",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.as_str() == text)
    }

    /// Whether something runs or is about to: such an instance has a task while acc's server is up.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(
            self,
            Self::Waking | Self::Awake | Self::Draining | Self::Stopping
        )
    }
}

impl Cause {
    /// The word in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "a request",
            Self::Operator => "the operator",
            Self::Pinned => "pinned",
            Self::Unknown => "an unknown cause before a restart of acc",
        }
    }
}

impl Failure {
    /// Its name: the only part of a failure that clients may see.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotStarted(_) => "could not be started",
            Self::ExitedAtStart(_) => "ended at start",
            Self::NotReady { .. } => "did not answer",
            Self::Died(_) => "died",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(why) => write!(f, "could not be started: {why}"),
            Self::ExitedAtStart(exit) => write!(f, "{exit} before its first answer"),
            Self::NotReady { within, what } => write!(
                f,
                "did not answer within {:.1} s: waited for {what}",
                within.as_secs_f64()
            ),
            Self::Died(exit) => write!(f, "{exit} while it served"),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => write!(f, "was killed by {name}"),
                Err(_) => write!(f, "was killed by signal {signal}"),
            },
            Self::Unknown => f.write_str("ended for an unknown reason"),
        }
    }
}
