//! The two clocks, behind a trait so that tests can stop them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::domain::time::{Timestamp, WallTime};

/// Reads the time.
pub trait Clock: Send + Sync {
    /// The boot clock: for every duration and deadline.
    fn now(&self) -> Timestamp;
    /// The boot clock in microseconds, for measurements.
    fn micros(&self) -> u64 {
        self.now().0 * 1000
    }
    /// The wall clock: for records only.
    fn wall(&self) -> WallTime;
}

/// The kernel's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.micros() / 1000)
    }

    fn micros(&self) -> u64 {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000
            + u64::try_from(t.tv_nsec).unwrap_or(0) / 1000
    }

    fn wall(&self) -> WallTime {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        WallTime(t.tv_sec * 1000 + t.tv_nsec / 1_000_000)
    }
}

/// Nanoseconds of the monotonic clock, which the demo application also records, so that the two can
/// be compared.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

/// A clock for tests: stands still until a test advances it.
#[derive(Debug, Default)]
pub struct ManualClock {
    boot_ms: AtomicU64,
}

impl ManualClock {
    /// Advances both clocks.
    pub fn advance(&self, by: Duration) {
        self.boot_ms
            .fetch_add(u64::try_from(by.as_millis()).unwrap_or(0), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.boot_ms.load(Ordering::SeqCst))
    }

    fn wall(&self) -> WallTime {
        WallTime(
            1_700_000_000_000 + i64::try_from(self.boot_ms.load(Ordering::SeqCst)).unwrap_or(0),
        )
    }
}
