//! Decides about a request from the phase of its instance and the rules: forward, hold, or refuse,
//! and why.
//!
//! It never counts or queues; `service::admission` carries the decision out.

use std::time::Duration;

use super::lifecycle::{Denied, Phase};
use super::time::Timestamp;

/// The answer for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionDecision {
    /// The instance can answer now.
    Forward,
    /// Hold it until the instance is awake.
    Hold,
    /// Do not serve it now.
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
    /// It is still being created.
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
    /// A rule says that such a request must not wake an instance.
    #[error("this application sleeps and such a request does not wake it")]
    MayNotWake,
    /// `wake.max_waiting` is reached, or the part of it for one client.
    #[error("too many requests wait for this application")]
    TooManyWaiting,
    /// `wake.per_client` is reached: this client has woken too many instances; it may try again in
    /// `retry_s` seconds.
    #[error("too many applications are started for this client")]
    TooManyWakes {
        /// Seconds until it may try again.
        retry_s: u64,
    },
    /// `wake.timeout` passed.
    #[error("this application took too long to start")]
    TooSlow,
    /// It is still being stopped: its requests have not ended, or its processes have not.
    #[error("this application is being stopped, and what it still does takes too long")]
    StillStopping,
    /// acc is being halted.
    #[error("this server is stopping")]
    Halting,
    /// acc failed (full disk, supervisor down): the reason is in acc's log.
    #[error("this server could not start the application")]
    Broken,
}

/// Whether a client that has `mine` of the `taken` places may have another one of `max`. The last
/// quarter is for clients that have less than a quarter of all places: so one client can get many
/// (many first requests may come through one proxy), but never all.
#[must_use]
pub fn may_wait(taken: usize, mine: usize, max: usize) -> bool {
    let quarter = max / 4;
    taken < max && (mine < quarter || taken < max - quarter)
}

/// Whether a client may wake another instance. It may wake `per_minute` a minute and has used that
/// up to `before`. Returns the new value of `before`.
///
/// # Errors
/// It may not yet; how long it must wait.
pub fn may_wake(before: Timestamp, now: Timestamp, per_minute: u32) -> Result<Timestamp, Duration> {
    const MINUTE: Duration = Duration::from_secs(60);
    let used = before.max(now).after(MINUTE / per_minute.max(1));
    match used.since(now).checked_sub(MINUTE) {
        None | Some(Duration::ZERO) => Ok(used),
        Some(early) => Err(early),
    }
}

/// Decides by the phase.
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
