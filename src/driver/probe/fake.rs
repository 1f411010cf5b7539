//! A probe in memory, for tests of what waits: ready when it is told so.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{Answered, Ear, Obstacle, Probe, Question};
use crate::domain::instance::{Listen, Process};

#[derive(Debug, Default)]
struct FakeProbeState {
    always: bool,
    ready: HashSet<Listen>,
    obstacle: Option<String>,
    cleared: Vec<Question>,
}

/// The fake probe.
#[derive(Debug, Default)]
pub struct FakeProbe {
    state: Mutex<FakeProbeState>,
    changed: Notify,
}

impl FakeProbe {
    /// Nothing is ready until it is told.
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

    /// Whoever listens there is ready (or no longer).
    pub fn set_ready(&self, listen: &Listen, ready: bool) {
        if ready {
            self.state().ready.insert(listen.clone());
        } else {
            self.state().ready.remove(listen);
        }
        self.changed.notify_waiters();
    }

    /// From now on `clear` fails with this (or no longer).
    pub fn set_obstacle(&self, obstacle: Option<&str>) {
        self.state().obstacle = obstacle.map(str::to_owned);
    }

    /// What was cleared, in order.
    #[must_use]
    pub fn cleared(&self) -> Vec<Question> {
        self.state().cleared.clone()
    }

    fn is_ready(&self, listen: &Listen) -> bool {
        let state = self.state();
        state.always || state.ready.contains(listen)
    }
}

#[async_trait]
impl Probe for FakeProbe {
    async fn clear(&self, question: &Question) -> Result<Option<Ear>, Obstacle> {
        let mut state = self.state();
        state.cleared.push(question.clone());
        state
            .obstacle
            .clone()
            .map_or(Ok(None), |why| Err(Obstacle::Other(why)))
    }

    async fn ready(
        &self,
        question: &Question,
        _: Option<Process>,
        _: Option<Ear>,
    ) -> Result<Answered, String> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a change in between is not missed.
            changed.as_mut().enable();
            if self.is_ready(&question.listen) {
                return Ok(Answered::default());
            }
            changed.await;
        }
    }

    fn describe(&self, _: &Question) -> String {
        "the fake to be told so".into()
    }
}
