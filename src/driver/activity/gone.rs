//! Connections that the client has closed but the application still holds open. For a few seconds
//! they count as use, because the application may still be working on the request. After that they
//! do not: many applications never close some of them and would never be idle.
//!
//! It remembers when each was first seen closed, and reads nothing itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::time::Timestamp;

/// A closed connection counts as use for this long. Its client can no longer get an answer.
const GRACE: Duration = Duration::from_secs(3);
/// A connection not seen for this long has been closed by the application; monitor runs may be
/// rare.
const FORGET: Duration = Duration::from_secs(24 * 3600);
/// Beyond this many, entries are kept for an hour only.
const MANY: usize = 10_000;

/// When each connection was seen closed, by socket number.
#[derive(Debug, Default)]
pub(super) struct Gone(Mutex<HashMap<u64, Times>>);

#[derive(Debug, Clone, Copy)]
struct Times {
    first: Timestamp,
    last: Timestamp,
}

impl Gone {
    /// Whether a connection that is seen closed now still counts as use.
    pub(super) fn is_use(&self, id: u64, now: Timestamp) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = seen.len() == seen.capacity();
        if full && !seen.contains_key(&id) {
            let keep = if seen.len() < MANY {
                FORGET
            } else {
                Duration::from_secs(3600)
            };
            seen.retain(|_, times| now.since(times.last) < keep);
        }
        let times = seen.entry(id).or_insert(Times {
            first: now,
            last: now,
        });
        times.last = now;
        now.since(times.first) < GRACE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_connection_is_use_for_a_few_seconds() {
        let gone = Gone::default();
        let is_use = |id, s: u64| gone.is_use(id, Timestamp(1_000_000 + s * 1000));
        assert!(is_use(1, 0) && is_use(1, 2));
        assert!(!is_use(1, 3) && !is_use(1, 4000));
        assert!(is_use(2, 4000));
        assert!(!is_use(1, 4010));
    }

    #[test]
    fn what_is_not_seen_any_more_is_forgotten() {
        let gone = Gone::default();
        for hour in 0..100 {
            for n in 0..1000 {
                assert!(gone.is_use(hour * 1000 + n, Timestamp(hour * 3_600_000)));
            }
        }
        assert!(gone.0.lock().unwrap().len() < 60_000);
    }
}
