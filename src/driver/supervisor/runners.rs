//! The runners of an installation, by kind. It chooses none: a model names the one it needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Runner;
use super::error::SupervisorError;
use crate::domain::instance::RunnerKind;

/// The runners, each of another kind.
#[derive(Clone)]
pub struct Runners(BTreeMap<RunnerKind, Arc<dyn Runner>>);

impl Runners {
    /// One runner, for processes of this host.
    #[must_use]
    pub fn of_processes(runner: Arc<dyn Runner>) -> Self {
        Self(BTreeMap::from([(RunnerKind::default(), runner)]))
    }

    /// The runner of this kind.
    ///
    /// # Errors
    /// There is none: the instance, or its model, is of an acc that has one.
    pub fn of(&self, kind: &RunnerKind) -> Result<&Arc<dyn Runner>, SupervisorError> {
        self.0.get(kind).ok_or_else(|| SupervisorError::NoRunner {
            kind: kind.clone(),
            known: self
                .0
                .keys()
                .map(RunnerKind::as_str)
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Runner>> {
        self.0.values()
    }
}
