//! Counters per run of an instance; most are zero.
//!
//! It never waits, except for its own short lock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::gate::Gate;
use crate::domain::name::InstanceName;

/// A counter for each instance and run.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// The sum: usually zero, which is seen without a lock.
    total: AtomicU32,
    by_run: Mutex<HashMap<(InstanceName, u64), u32>>,
}

impl Counts {
    fn by_run(&self) -> MutexGuard<'_, HashMap<(InstanceName, u64), u32>> {
        self.by_run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counter of this run.
    pub(super) fn of(&self, name: &InstanceName, run: u64) -> u32 {
        if self.total.load(Ordering::Acquire) == 0 {
            return 0;
        }
        self.by_run()
            .get(&(name.clone(), run))
            .copied()
            .unwrap_or(0)
    }

    /// Adds one until the value is dropped.
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

/// One counted thing.
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
