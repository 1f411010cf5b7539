//! The idle rule: whether this awake instance may be put to sleep now, and if not, why.
//!
//! Idle means: nothing in flight, and quiet for longer than the timeout. The timer, `acc monitor`
//! and `acc monitor --dry-run` use the same function.

use std::time::Duration;

use super::instance::DesiredState;
use super::time::Timestamp;

/// The input of the rule.
#[derive(Debug, Clone, Copy)]
pub struct IdleSample {
    /// What the operator asked for.
    pub desired: DesiredState,
    /// Its requests and connections in flight.
    pub in_flight: u32,
    /// When the last of them ended.
    pub quiet_since: Timestamp,
    /// When it became awake.
    pub awake_since: Timestamp,
    /// Idle timeout of this instance.
    pub timeout: Duration,
    /// Least time awake after a wake.
    pub min_awake: Duration,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleVerdict {
    /// It is idle.
    Sleep,
    /// The operator has pinned it up.
    Pinned,
    /// This many requests or connections are open.
    InUse(u32),
    /// Just woken; this long until it may sleep.
    JustWoken(Duration),
    /// Quiet, but not for long enough; the rest of the timeout.
    NotYet(Duration),
}

/// Decides.
#[must_use]
pub fn verdict(sample: &IdleSample, now: Timestamp) -> IdleVerdict {
    if sample.desired == DesiredState::Up {
        return IdleVerdict::Pinned;
    }
    if sample.in_flight > 0 {
        return IdleVerdict::InUse(sample.in_flight);
    }
    let awake = now.since(sample.awake_since);
    if awake < sample.min_awake {
        return IdleVerdict::JustWoken(sample.min_awake.saturating_sub(awake));
    }
    // Every wake starts the timeout anew: an old quiet time must not put a fresh instance to sleep.
    let quiet = now.since(sample.quiet_since.max(sample.awake_since));
    if quiet < sample.timeout {
        return IdleVerdict::NotYet(sample.timeout.saturating_sub(quiet));
    }
    IdleVerdict::Sleep
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> IdleSample {
        IdleSample {
            desired: DesiredState::Auto,
            in_flight: 0,
            quiet_since: Timestamp(10_000),
            awake_since: Timestamp(5_000),
            timeout: Duration::from_secs(60),
            min_awake: Duration::from_secs(30),
        }
    }

    #[test]
    fn sleeps_only_when_quiet_for_the_whole_timeout() {
        assert_eq!(verdict(&sample(), Timestamp(70_000)), IdleVerdict::Sleep);
        assert_eq!(
            verdict(&sample(), Timestamp(69_999)),
            IdleVerdict::NotYet(Duration::from_millis(1))
        );
        assert_eq!(
            verdict(
                &IdleSample {
                    in_flight: 2,
                    ..sample()
                },
                Timestamp(900_000)
            ),
            IdleVerdict::InUse(2)
        );
        assert_eq!(
            verdict(
                &IdleSample {
                    desired: DesiredState::Up,
                    ..sample()
                },
                Timestamp(900_000)
            ),
            IdleVerdict::Pinned
        );
    }

    #[test]
    fn a_wake_resets_the_idle_clock() {
        let woken_late = IdleSample {
            awake_since: Timestamp(900_000),
            quiet_since: Timestamp(1),
            ..sample()
        };
        assert_eq!(
            verdict(&woken_late, Timestamp(901_000)),
            IdleVerdict::JustWoken(Duration::from_secs(29))
        );
        assert_eq!(
            verdict(&woken_late, Timestamp(930_000)),
            IdleVerdict::NotYet(Duration::from_secs(30))
        );
    }

    #[test]
    fn disabled_instances_may_sleep_too() {
        assert_eq!(
            verdict(
                &IdleSample {
                    desired: DesiredState::Down,
                    ..sample()
                },
                Timestamp(70_000)
            ),
            IdleVerdict::Sleep
        );
    }
}
