//! What goes wrong with a supervisor: it cannot be asked, it refuses, a file of its own fails. It
//! decides nothing.

use std::path::PathBuf;

/// What went wrong with a supervisor.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// It could not be asked: what is true of its processes is not known.
    #[error("could not query {what}: {why}")]
    Unreachable {
        /// Which supervisor, where.
        what: String,
        /// The reason.
        why: String,
    },
    /// It was asked and refused, or the program cannot be run.
    #[error("could not start `{name}`: {why}")]
    NotStarted {
        /// The program.
        name: String,
        /// The reason: missing, not executable, refused.
        why: String,
    },
    /// A file of its own could not be written or read.
    #[error("could not {deed} `{path}`")]
    File {
        /// "write", "read", "remove".
        deed: &'static str,
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
