//! Waits for conditions with a deadline; the only place where tests read the clock or pause.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The current moment.
#[expect(
    clippy::disallowed_methods,
    reason = "tests measure real time; the product uses its own clock"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// A pause between two checks, and the pace of slow clients. Never a way to wait for something.
#[expect(clippy::disallowed_methods, reason = "the one place where tests pause")]
pub fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// Calls `look` every 20 ms until it returns `Ok`; after `limit` panics with its last error.
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

/// `Ok` if `holds`, else `status` as the error for [`wait_until`].
pub fn holds(holds: bool, status: impl Display) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(status.to_string())
    }
}

/// Sets the flag when it is dropped, also by a panic. A thread scope waits for its threads: if a
/// test failed while other threads work until this flag is set, the test would otherwise hang and
/// not print why.
pub struct Ending<'a>(pub &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
