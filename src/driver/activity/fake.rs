//! An activity in memory, for tests of its callers: it reports what the test set, and fails when
//! the test says so.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Activity, ActivityError, LogMark, Seen, Target};
use crate::domain::instance::Listen;

#[derive(Debug, Default)]
struct FakeActivityState {
    connections: HashMap<Listen, u32>,
    marks: HashMap<PathBuf, LogMark>,
    failing: bool,
    samples: usize,
}

/// The fake activity: nothing is in use until a test says otherwise.
#[derive(Debug, Default)]
pub struct FakeActivity {
    state: Mutex<FakeActivityState>,
}

impl FakeActivity {
    /// Nothing is in use.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, FakeActivityState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how many connections are reported for this address.
    pub fn set(&self, listen: &Listen, connections: u32) {
        self.state().connections.insert(listen.clone(), connections);
    }

    /// Adds a line to this log.
    pub fn touch(&self, log: impl Into<PathBuf>) {
        let mut state = self.state();
        let mark = state.marks.entry(log.into()).or_insert(LogMark {
            inode: 1,
            size: 0,
            modified: 0,
        });
        mark.size += 1;
        mark.modified += 1;
    }

    /// Makes it fail from now on (or work again).
    pub fn set_failing(&self, failing: bool) {
        self.state().failing = failing;
    }

    /// How often it was sampled.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.state().samples
    }
}

#[async_trait]
impl Activity for FakeActivity {
    async fn sample(&self, targets: &[Target]) -> Result<Vec<Seen>, ActivityError> {
        let mut state = self.state();
        state.samples += 1;
        if state.failing {
            return Err(ActivityError {
                what: "the fake was set to fail".into(),
                source: io::Error::other("set to fail"),
            });
        }
        let see = |t: &Target| Seen {
            connections: state.connections.get(&t.listen).copied().unwrap_or(0),
            mark: t
                .log
                .as_ref()
                .and_then(|log| state.marks.get(log))
                .copied()
                .unwrap_or_default(),
        };
        Ok(targets.iter().map(see).collect())
    }
}
