//! Where the time of a wake went: stamps taken on its way, and what its event keeps of them.
//!
//! It decides nothing: a stamp that was not taken costs a figure, never a wake.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When each step of the wake that is under way was done, in microseconds of the boot clock;
/// `None`: not yet.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::service) struct Stamps {
    noticed: Option<u64>,
    /// The supervisor was asked to start it, and said that it had.
    called: Option<(u64, u64)>,
    /// The first connection was accepted, and it was found well.
    ready: Option<(u64, u64)>,
}

impl Stamps {
    /// A request was noticed that needs a start; only the first one counts.
    pub(in crate::service) fn notice(&mut self, now: u64) {
        self.noticed.get_or_insert(now);
    }

    /// A start begins: for a request that was noticed before, or for none.
    pub(in crate::service) fn begin(&mut self, now: u64) {
        *self = Self {
            noticed: Some(self.noticed.unwrap_or(now)),
            ..Self::default()
        };
    }

    /// The supervisor was called at the one time and answered at the other.
    pub(in crate::service) fn call(&mut self, from: u64, to: u64) {
        self.called = Some((from, to));
    }

    /// It was found well at this time, and had accepted the first connection so long ago.
    pub(in crate::service) fn ready(&mut self, now: u64, accepted: Duration) {
        self.ready = Some((
            now.saturating_sub(u64::try_from(accepted.as_micros()).unwrap_or(0)),
            now,
        ));
    }

    /// The account of a wake that is over. `None`: some step is not known.
    pub(in crate::service) fn account(&mut self) -> Option<Phases> {
        let all = std::mem::take(self);
        let ((from, to), (listening, answered), noticed) = (all.called?, all.ready?, all.noticed?);
        // It may listen before the supervisor has said that it started it.
        let spawned = to.min(listening);
        Some(Phases {
            noticed_at_us: noticed,
            spawned_us: spawned.saturating_sub(noticed),
            call_us: to.saturating_sub(from),
            listening_us: listening.saturating_sub(spawned),
            answered_us: answered.saturating_sub(listening),
        })
    }
}

/// A wake's account, in microseconds. From when it was noticed to when it had answered is the sum
/// of `spawned_us`, `listening_us` and `answered_us`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// When acc noticed the request, on the boot clock.
    pub noticed_at_us: u64,
    /// From there until the process had been started.
    pub spawned_us: u64,
    /// How much the supervisor's own call took; its end may overlap with the next step.
    pub call_us: u64,
    /// From the start of the process until it accepted a connection.
    pub listening_us: u64,
    /// From there until it was found well: next to nothing for a model without `health`.
    pub answered_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_add_up() {
        let mut stamps = Stamps::default();
        stamps.notice(1_000);
        stamps.notice(1_500);
        stamps.begin(2_000);
        stamps.call(2_100, 3_000);
        stamps.ready(5_500, Duration::from_micros(500));
        let phases = stamps.account().unwrap();
        assert_eq!(
            phases,
            Phases {
                noticed_at_us: 1_000,
                spawned_us: 2_000,
                call_us: 900,
                listening_us: 2_000,
                answered_us: 500
            }
        );
        assert!(
            stamps.account().is_none(),
            "the next wake has an account of its own"
        );
    }

    #[test]
    fn one_that_listens_before_its_supervisor_has_answered_has_no_negative_phase() {
        let mut stamps = Stamps::default();
        stamps.begin(0);
        stamps.ready(3_000, Duration::from_millis(1));
        stamps.call(100, 2_500);
        let phases = stamps.account().unwrap();
        assert_eq!(
            (phases.spawned_us, phases.listening_us, phases.answered_us),
            (2_000, 0, 1_000)
        );
        assert_eq!(phases.call_us, 2_400);
    }
}
