//! Counts by run of an instance, of which most are zero.
//!
//! It never waits for anything but its own short lock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::gate::Gate;
use crate::domain::name::InstanceName;

/// How many there are of something, by instance and run.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// In all: nearly always there are none, and no lock is taken to see that.
    total: AtomicU32,
    by_run: Mutex<HashMap<(InstanceName, u64), u32>>,
}

impl Counts {
    fn by_run(&self) -> MutexGuard<'_, HashMap<(InstanceName, u64), u32>> {
        self.by_run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are of this run.
    pub(super) fn of(&self, name: &InstanceName, run: u64) -> u32 {
        if self.total.load(Ordering::Acquire) == 0 {
            return 0;
        }
        self.by_run()
            .get(&(name.clone(), run))
            .copied()
            .unwrap_or(0)
    }

    /// One more, until the value is dropped.
    pub(super) fn one(self: &Arc<Self>, gate: &Gate) -> Counted {
        let key = (gate.name.clone(), gate.run);
        self.total.fetch_add(1, Ordering::AcqRel);
        *self.by_run().entry(key.clone()).or_default() += 1;
        Counted {
            counts: self.clone(),
            key,
        }
    }
}

/// One of what is counted.
pub struct Counted {
    counts: Arc<Counts>,
    key: (InstanceName, u64),
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut by_run = self.counts.by_run();
        if let Some(count) = by_run.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                by_run.remove(&self.key);
            }
        }
        self.counts.total.fetch_sub(1, Ordering::AcqRel);
    }
}
