//! What to do with a request, given the phase of its instance and the rules: forward, hold, or
//! refuse and why.
//!
//! It never counts or queues; `service::wake` does what is decided here.

use std::time::Duration;

use super::lifecycle::{Denied, Phase};
use super::time::Timestamp;

/// The answer for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionDecision {
    /// The instance answers now.
    Forward,
    /// Wait for it.
    Hold,
    /// Not now.
    Refuse(Refusal),
}

/// Why a request is not served; the proxy turns each into a status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No instance has this host.
    #[error("no application has this name")]
    UnknownHost,
    /// The instance was destroyed.
    #[error("this application was removed")]
    Destroyed,
    /// `desired` is down.
    #[error("this application is disabled")]
    Disabled,
    /// It is still being made.
    #[error("this application is being made")]
    Creating,
    /// It failed and may be tried again in `retry_s` seconds; `reason` is the failure's name, never
    /// its output.
    #[error("this application failed: {reason}")]
    Failed {
        /// [`super::lifecycle::Failure::name`].
        reason: &'static str,
        /// Seconds until the next try.
        retry_s: u64,
    },
    /// A rule says that such a request does not wake.
    #[error("this application sleeps and such a request does not wake it")]
    MayNotWake,
    /// `wake.max_waiting` reached, or all of it that one client may have.
    #[error("too many requests wait for this application")]
    TooManyWaiting,
    /// `wake.per_client` reached: this client has asked for too many instances; it may ask again in
    /// `retry_s` seconds.
    #[error("too many applications are started for this client")]
    TooManyWakes {
        /// Seconds until the next.
        retry_s: u64,
    },
    /// `wake.timeout` passed.
    #[error("this application took too long to start")]
    TooSlow,
    /// It is still being stopped: requests that it serves have not ended, or its processes have
    /// not.
    #[error("this application is being stopped, and what it still does takes too long")]
    StillStopping,
    /// acc is being halted.
    #[error("this server is stopping")]
    Halting,
    /// acc itself could not do it (full disk, supervisor down): the reason is in acc's log.
    #[error("this server could not start the application")]
    Broken,
}

/// May a client that has `mine` of the `taken` places have another one of `max`? The last quarter
/// is for clients that have less than a quarter of all: so one alone gets many (a herd of first
/// requests may come through one proxy), and never all.
#[must_use]
pub fn may_wait(taken: usize, mine: usize, max: usize) -> bool {
    let quarter = max / 4;
    taken < max && (mine < quarter || taken < max - quarter)
}

/// May a client wake another instance, which may wake `per_minute` a minute and has used that up to
/// `before`? Then up to when it has used it; else how long it has to wait.
///
/// # Errors
/// It may not yet.
pub fn may_wake(before: Timestamp, now: Timestamp, per_minute: u32) -> Result<Timestamp, Duration> {
    const MINUTE: Duration = Duration::from_secs(60);
    let used = before.max(now).after(MINUTE / per_minute.max(1));
    match used.since(now).checked_sub(MINUTE) {
        None | Some(Duration::ZERO) => Ok(used),
        Some(early) => Err(early),
    }
}

/// Decides from the phase.
#[must_use]
pub fn admit(phase: Phase, may_wake: bool) -> AdmissionDecision {
    match phase {
        Phase::Awake => AdmissionDecision::Forward,
        Phase::Waking => AdmissionDecision::Hold,
        Phase::Asleep | Phase::Draining | Phase::Stopping | Phase::Failed => {
            if may_wake {
                AdmissionDecision::Hold
            } else {
                AdmissionDecision::Refuse(Refusal::MayNotWake)
            }
        }
        Phase::Creating => AdmissionDecision::Refuse(Refusal::Creating),
        Phase::Destroyed => AdmissionDecision::Refuse(Refusal::Destroyed),
    }
}

impl From<&Denied> for Refusal {
    fn from(denied: &Denied) -> Self {
        match denied {
            Denied::Disabled => Self::Disabled,
            Denied::Destroyed => Self::Destroyed,
            Denied::Creating => Self::Creating,
            Denied::Failed { name, retry_in } => Self::Failed {
                reason: name,
                retry_s: retry_in.as_secs().max(1),
            },
            Denied::NotAsleep(_) => Self::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_has_an_answer() {
        assert_eq!(admit(Phase::Awake, false), AdmissionDecision::Forward);
        assert_eq!(admit(Phase::Waking, false), AdmissionDecision::Hold);
        for phase in [
            Phase::Asleep,
            Phase::Draining,
            Phase::Stopping,
            Phase::Failed,
        ] {
            assert_eq!(admit(phase, true), AdmissionDecision::Hold, "{phase:?}");
            assert_eq!(
                admit(phase, false),
                AdmissionDecision::Refuse(Refusal::MayNotWake),
                "{phase:?}"
            );
        }
        assert_eq!(
            admit(Phase::Creating, true),
            AdmissionDecision::Refuse(Refusal::Creating)
        );
        assert_eq!(
            admit(Phase::Destroyed, true),
            AdmissionDecision::Refuse(Refusal::Destroyed)
        );
    }
}
