//! Two kinds of time, kept apart by type so that nobody measures a duration with a clock that can
//! be set.
//!
//! Nothing here reads a clock; `host::clock` does.

use std::time::Duration;

/// A point on the boot clock (`CLOCK_BOOTTIME`): milliseconds since this kernel started, suspend
/// included. It never goes back and is not moved by setting the wall clock. It means nothing after
/// a reboot.
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

    /// How long after `earlier` this point is; zero when it is not after it.
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
