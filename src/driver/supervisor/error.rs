//! Errors of a supervisor: it cannot be reached, it refuses, or one of its files fails. It decides
//! nothing.

use std::path::PathBuf;

use crate::domain::instance::{Process, RunId, RunnerKind};
use crate::domain::name::InstanceName;

/// Why a supervisor failed.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// It could not be reached: the state of its processes is unknown.
    #[error("could not query {what}: {why}")]
    Unreachable {
        /// Which supervisor, where.
        what: String,
        /// The reason.
        why: String,
    },
    /// An instance needs a runner that this acc does not have.
    #[error("there is no runner `{kind}`, only: {known}")]
    NoRunner {
        /// The one that is needed.
        kind: RunnerKind,
        /// Those there are.
        known: String,
    },
    /// The run is of another runner, which starts no process of this host.
    #[error("`{name}` runs as `{run_id}`, which is no process of this host")]
    OtherRunner {
        /// The instance.
        name: InstanceName,
        /// Its run.
        run_id: RunId,
    },
    /// It refused the start, or the program cannot be run.
    #[error("could not start `{name}`: {why}")]
    NotStarted {
        /// The program.
        name: String,
        /// The reason: missing, not executable, refused.
        why: String,
    },
    /// A file of the supervisor could not be written or read.
    #[error("could not {action} `{path}`")]
    File {
        /// "write", "read", "remove".
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The program of the supervisor itself is missing, too old or does not start.
    #[error("{0}")]
    Unusable(String),
}

/// The process of this run, for a runner of processes.
///
/// # Errors
/// The run is of another runner.
pub(super) fn process_of(name: &InstanceName, run_id: &RunId) -> Result<Process, SupervisorError> {
    run_id
        .process()
        .ok_or_else(|| SupervisorError::OtherRunner {
            name: name.clone(),
            run_id: run_id.clone(),
        })
}
