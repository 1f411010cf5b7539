//! Operations: long work on one instance, which is recorded from its first step to its end. Their
//! kinds, states and steps, one word each in the database, in JSON and in `acc info`.
//!
//! It decides nothing, and never what recovery does with one (`service::recover`).

use serde::{Deserialize, Serialize};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Makes the instance. Left unfinished, it must be undone.
    Create,
    /// Takes it out of service. Left unfinished, it must be finished if its phase was saved.
    Destroy,
    /// Removes it. Left unfinished, it must be finished.
    Purge,
}

impl OperationKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Create, Self::Destroy, Self::Purge];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Destroy => "destroy",
            Self::Purge => "purge",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The step it begins with.
    #[must_use]
    pub fn first_step(self) -> OperationStep {
        match self {
            Self::Create => OperationStep::CreateFiles,
            Self::Destroy => OperationStep::Stop,
            Self::Purge => OperationStep::Unregister,
        }
    }
}

/// Whether an operation has ended, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// It has begun and not ended. Each instance has at most one such operation.
    Running,
    /// It did what was asked for.
    Done,
    /// It did not.
    Failed,
}

impl OperationState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Running, Self::Done, Self::Failed];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// What an operation is doing, or was doing last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationStep {
    /// Creates the instance's files.
    CreateFiles,
    /// Tells the edge its routes.
    UpdateEdge,
    /// Starts the instance for the first time.
    Start,
    /// Removes what a create has made: it can only fail now.
    Undo,
    /// Stops the instance and takes it out of service.
    Stop,
    /// Removes it from the supervisor and the edge.
    Unregister,
    /// Removes its files, then its row.
    RemoveFiles,
}

impl OperationStep {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::CreateFiles,
        Self::UpdateEdge,
        Self::Start,
        Self::Undo,
        Self::Stop,
        Self::Unregister,
        Self::RemoveFiles,
    ];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateFiles => "create_files",
            Self::UpdateEdge => "update_edge",
            Self::Start => "start",
            Self::Undo => "undo",
            Self::Stop => "stop",
            Self::Unregister => "unregister",
            Self::RemoveFiles => "remove_files",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_comes_back() {
        for kind in OperationKind::ALL {
            assert_eq!(OperationKind::parse(kind.as_str()), Some(kind));
        }
        for state in OperationState::ALL {
            assert_eq!(OperationState::parse(state.as_str()), Some(state));
        }
        for step in OperationStep::ALL {
            assert_eq!(OperationStep::parse(step.as_str()), Some(step));
        }
        assert_eq!(OperationKind::parse("clone"), None);
    }
}
