//! Pauses shorter than the runtime's timer supports.
//!
//! It uses real time only: code that must run on a test clock sleeps by the runtime.

use std::io;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// From here on, a millisecond more or less does not matter.
const RUNTIME_TICKS: Duration = Duration::from_millis(10);

/// Sleeps. The runtime's timer has a resolution of a millisecond, too coarse for a wake: short
/// pauses use a kernel timer.
pub async fn short_sleep(by: Duration) {
    if by >= RUNTIME_TICKS || finely(by).await.is_err() {
        tokio::time::sleep(by).await;
    }
}

async fn finely(by: Duration) -> io::Result<()> {
    let timer = timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
    )?;
    let once = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(by.subsec_nanos().max(1)),
    };
    let never = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    timerfd_settime(
        &timer,
        TimerfdTimerFlags::empty(),
        &Itimerspec {
            it_interval: never,
            it_value: once,
        },
    )?;
    #[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
    // SAFETY: `OwnedFd` returns the same descriptor every time and keeps it open until the
    // `AsyncFd` that owns it is dropped.
    let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
    timer.readable().await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::{Clock as _, SystemClock};

    #[tokio::test]
    async fn a_short_pause_is_one() {
        let clock = SystemClock;
        let began = clock.now();
        short_sleep(Duration::from_micros(1_500)).await;
        assert!(clock.now().since(began) >= Duration::from_millis(1));
    }
}
