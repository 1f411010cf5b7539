//! Two kinds of time, separated by type so that no duration is measured with a clock that can be
//! set.
//!
//! Nothing here reads a clock; `host::clock` does.

use std::time::Duration;

/// A point on the boot clock (`CLOCK_BOOTTIME`): milliseconds since this kernel started, including
/// suspend. It never goes back, and setting the wall clock does not change it. It means nothing
/// after a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This point plus `d` (saturating).
    #[must_use]
    pub fn after(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How long after `earlier` this point is; zero if it is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Whole milliseconds.
#[must_use]
pub fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// Wall-clock time in milliseconds since 1970-01-01 UTC: for people and records, never for
/// measuring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct WallTime(pub i64);
