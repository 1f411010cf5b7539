//! Waiting for something with a deadline, and the only place where tests read the clock or pause.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// This moment.
#[expect(
    clippy::disallowed_methods,
    reason = "tests measure real time; the product uses its own clock"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// A pause between two looks, and the pace of slow clients. Never a way to wait for something.
#[expect(clippy::disallowed_methods, reason = "the one place where tests pause")]
pub fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// Looks every 20 ms until `look` is satisfied; past `limit` it panics with what it last saw.
#[track_caller]
pub fn wait_until<T, E: Display>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) if now() >= deadline => {
                panic!("waited {limit:?} in vain until {what}; last seen: {last}")
            }
            Err(_) => pause(Duration::from_millis(20)),
        }
    }
}

/// `Ok` when `holds`, else `status` for [`wait_until`].
pub fn holds(holds: bool, status: impl Display) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(status.to_string())
    }
}

/// Says "over" when it is dropped, also by a panic: a thread scope waits for its threads, and a
/// test that fails while others work until they are told would otherwise hang instead of saying
/// why.
pub struct Ending<'a>(pub &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
