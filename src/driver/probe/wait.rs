//! How long to wait before looking again: growing steps.
//!
//! It never decides whether an instance is ready.

use std::io;
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// From here on a millisecond more or less does not matter.
const RUNTIME_TICKS: Duration = Duration::from_millis(10);

/// Growing pauses.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    next: Duration,
    /// In tenths.
    factor: u32,
    most: Duration,
}

impl Steps {
    /// For a TCP port, where nobody tells when it is bound.
    pub const PORT: Self = Self { next: Duration::from_micros(500), factor: 13, most: Duration::from_millis(25) };
    /// Between the bind of a socket and its listen, when that takes longer than usual.
    pub const SOCKET: Self = Self { next: Duration::from_micros(100), factor: 15, most: Duration::from_millis(10) };
    /// For a connection in a queue, whose end is told by itself as a rule.
    pub const QUEUE: Self = Self { next: Duration::from_millis(20), factor: 15, most: Duration::from_millis(250) };
    /// For an application that answers, but not yet that it is well.
    pub const HEALTH: Self = Self { next: Duration::from_millis(1), factor: 15, most: Duration::from_millis(100) };

    /// The next pause; the one after it is longer.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * self.factor / 10).min(self.most);
        pause
    }
}

/// Waits. The runtime's own timer counts in milliseconds, which is much in a wake: a short pause is the kernel's.
pub async fn pause(by: Duration) {
    if by >= RUNTIME_TICKS || finely(by).await.is_err() {
        tokio::time::sleep(by).await;
    }
}

async fn finely(by: Duration) -> io::Result<()> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let once = Timespec { tv_sec: 0, tv_nsec: i64::from(by.subsec_nanos().max(1)) };
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: never, it_value: once })?;
    #[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
    // SAFETY: `OwnedFd` returns the same descriptor every time and keeps it open until the `AsyncFd` that owns it is dropped.
    let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
    timer.readable().await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::host::clock::{Clock as _, SystemClock};

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut steps = Steps::PORT;
        let pauses: Vec<Duration> = (0..40).map(|_| steps.pause()).collect();
        assert_eq!(pauses[0], Duration::from_micros(500));
        assert!(pauses.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!(pauses[39], Duration::from_millis(25));
        let mut steps = Steps::SOCKET;
        assert!((0..100).map(|_| steps.pause()).filter(|p| *p < Duration::from_millis(1)).count() < 10);
    }

    #[tokio::test]
    async fn a_short_pause_is_one() {
        let clock = SystemClock;
        let began = clock.now();
        pause(Duration::from_micros(1_500)).await;
        assert!(clock.now().since(began) >= Duration::from_millis(1));
    }
}
