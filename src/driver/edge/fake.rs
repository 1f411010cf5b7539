//! An edge in memory, for tests of its callers: it records its calls and fails when the test says
//! so.
//!
//! It serves no client.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Edge, EdgeError, Gate, Route};
use crate::domain::name::InstanceName;

/// A call of the fake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EdgeCall {
    /// `prepare` with routes of these instances.
    Prepare(Vec<InstanceName>),
    /// `apply` likewise.
    Apply(Vec<InstanceName>),
    /// `open`.
    Open(Gate),
    /// `close`.
    Close(Gate),
    /// `forget`.
    Forget(InstanceName),
}

/// The name of a method that can be set to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// `prepare`.
    Prepare,
    /// `apply`.
    Apply,
    /// `open`.
    Open,
    /// `close`.
    Close,
    /// `open_gates`.
    OpenGates,
    /// `forget`.
    Forget,
}

#[derive(Debug, Default)]
struct FakeEdgeState {
    calls: Vec<EdgeCall>,
    open: BTreeMap<InstanceName, Gate>,
    routes: Vec<Route>,
    pooled: u32,
    failing: BTreeSet<Method>,
    access_logs: Option<PathBuf>,
}

/// The fake edge.
#[derive(Debug, Default)]
pub struct FakeEdge {
    state: Mutex<FakeEdgeState>,
}

impl FakeEdge {
    /// All gates closed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, FakeEdgeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this method fail from now on (or work again).
    pub fn set_failing(&self, method: Method, failing: bool) {
        if failing {
            self.state().failing.insert(method);
        } else {
            self.state().failing.remove(&method);
        }
    }

    /// From now on it has access logs in this folder: `NAME/access.log`.
    pub fn set_access_logs(&self, dir: PathBuf) {
        self.state().access_logs = Some(dir);
    }

    /// What `pooled` answers.
    pub fn set_pooled(&self, count: u32) {
        self.state().pooled = count;
    }

    /// Every successful call so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<EdgeCall> {
        self.state().calls.clone()
    }

    /// The open gate of this name.
    #[must_use]
    pub fn gate(&self, name: &InstanceName) -> Option<Gate> {
        self.state().open.get(name).cloned()
    }

    /// The routes in force.
    #[must_use]
    pub fn routes(&self) -> Vec<Route> {
        self.state().routes.clone()
    }

    /// Returns the state, or an error if the method was set to fail.
    fn begin(&self, method: Method) -> Result<MutexGuard<'_, FakeEdgeState>, EdgeError> {
        let state = self.state();
        if state.failing.contains(&method) {
            Err(EdgeError::Unusable(format!("{method:?} was set to fail")))
        } else {
            Ok(state)
        }
    }
}

fn names(routes: &[Route]) -> Vec<InstanceName> {
    routes.iter().map(|r| r.name.clone()).collect()
}

#[async_trait]
impl Edge for FakeEdge {
    fn kind(&self) -> &'static str {
        "fake"
    }

    fn access_log(&self, name: &InstanceName) -> Option<PathBuf> {
        let dir = self.state().access_logs.clone()?;
        Some(dir.join(name.as_str()).join("access.log"))
    }

    async fn prepare(&self, routes: &[Route]) -> Result<(), EdgeError> {
        let mut state = self.begin(Method::Prepare)?;
        state.routes = routes.to_vec();
        state.calls.push(EdgeCall::Prepare(names(routes)));
        Ok(())
    }

    async fn apply(&self, routes: &[Route]) -> Result<(), EdgeError> {
        let mut state = self.begin(Method::Apply)?;
        state.routes = routes.to_vec();
        state.calls.push(EdgeCall::Apply(names(routes)));
        Ok(())
    }

    async fn open(&self, gate: &Gate) -> Result<(), EdgeError> {
        let mut state = self.begin(Method::Open)?;
        state.open.insert(gate.name.clone(), gate.clone());
        state.calls.push(EdgeCall::Open(gate.clone()));
        Ok(())
    }

    async fn close(&self, gate: &Gate) -> Result<(), EdgeError> {
        let mut state = self.begin(Method::Close)?;
        state.open.remove(&gate.name);
        state.calls.push(EdgeCall::Close(gate.clone()));
        Ok(())
    }

    async fn open_gates(&self) -> Result<Vec<InstanceName>, EdgeError> {
        Ok(self
            .begin(Method::OpenGates)?
            .open
            .keys()
            .cloned()
            .collect())
    }

    fn pooled(&self, _: &Gate) -> u32 {
        self.state().pooled
    }

    async fn forget(&self, name: &InstanceName) -> Result<(), EdgeError> {
        let mut state = self.begin(Method::Forget)?;
        state.open.remove(name);
        state.calls.push(EdgeCall::Forget(name.clone()));
        Ok(())
    }
}
