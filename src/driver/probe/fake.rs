//! A probe in memory, for tests of its callers: ready when the test says so.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{NotifySocket, Obstacle, Probe, ProbeTarget, Readiness};
use crate::domain::instance::{Listen, Process};

#[derive(Debug, Default)]
struct FakeProbeState {
    always: bool,
    ready: HashSet<Listen>,
    obstacle: Option<String>,
    cleared: Vec<ProbeTarget>,
}

/// The fake probe.
#[derive(Debug, Default)]
pub struct FakeProbe {
    state: Mutex<FakeProbeState>,
    changed: Notify,
}

impl FakeProbe {
    /// Nothing is ready until the test says so.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything is ready at once.
    #[must_use]
    pub fn always() -> Self {
        let probe = Self::default();
        probe.state().always = true;
        probe
    }

    fn state(&self) -> MutexGuard<'_, FakeProbeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the instance at this address ready (or no longer).
    pub fn set_ready(&self, listen: &Listen, ready: bool) {
        if ready {
            self.state().ready.insert(listen.clone());
        } else {
            self.state().ready.remove(listen);
        }
        self.changed.notify_waiters();
    }

    /// Makes `clear` fail with this from now on (or work again).
    pub fn set_obstacle(&self, obstacle: Option<&str>) {
        self.state().obstacle = obstacle.map(str::to_owned);
    }

    /// The targets of `clear`, in order.
    #[must_use]
    pub fn cleared(&self) -> Vec<ProbeTarget> {
        self.state().cleared.clone()
    }

    fn is_ready(&self, listen: &Listen) -> bool {
        let state = self.state();
        state.always || state.ready.contains(listen)
    }
}

#[async_trait]
impl Probe for FakeProbe {
    async fn clear(&self, target: &ProbeTarget) -> Result<Option<NotifySocket>, Obstacle> {
        let mut state = self.state();
        state.cleared.push(target.clone());
        state
            .obstacle
            .clone()
            .map_or(Ok(None), |why| Err(Obstacle::Other(why)))
    }

    async fn ready(
        &self,
        target: &ProbeTarget,
        _: Option<Process>,
        _: Option<NotifySocket>,
    ) -> Result<Readiness, String> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the check, so that no change in between is missed.
            changed.as_mut().enable();
            if self.is_ready(&target.listen) {
                return Ok(Readiness::default());
            }
            changed.await;
        }
    }

    fn describe(&self, _: &ProbeTarget) -> String {
        "the fake to be set ready".into()
    }
}
