//! Everything a verb can fail with, as a closed list; the interfaces turn each kind into an exit
//! code or a status.

use serde::{Deserialize, Serialize};

pub use crate::host::error_chain::chain;

/// The kind of an error decides the exit code (see `interface::cli::exit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// It did not work: exit code 1.
    Failed,
    /// What was asked for makes no sense: exit code 2.
    Invalid,
    /// No such instance or model: exit code 3.
    NotFound,
    /// Not in this phase: exit code 4.
    Denied,
    /// It took too long: exit code 5.
    TimedOut,
}

/// Two lines for people: what failed, with the object in backquotes, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ServiceError {
    /// Decides the exit code.
    pub kind: ErrorKind,
    /// What failed: lower case, object in backquotes, no full stop, causes after colons.
    pub message: String,
    /// The way out; empty when there is none to name.
    pub hint: String,
}

impl ServiceError {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// It did not work.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, message, hint)
    }

    /// `message` did not work because of `error`, with the whole chain of its sources.
    pub fn because(
        message: impl std::fmt::Display,
        error: &dyn std::error::Error,
        hint: impl Into<String>,
    ) -> Self {
        Self::failed(format!("{message}: {}", chain(error)), hint)
    }
}

/// An error of the database, with its way out.
#[must_use]
pub(crate) fn store(e: crate::store::StoreError) -> ServiceError {
    use crate::store::StoreError as E;
    let hint = match &e {
        E::Missing(_) => {
            "run `acc boot` first, or name another installation's config with --config or ACC_CONFIG"
        }
        E::Newer { .. } => {
            "install that newer acc, or restore an older copy of the file; nothing was changed"
        }
        E::Corrupt { .. } => {
            "restore a copy; `sqlite3 FILE .recover` may save what is left; nothing was changed"
        }
        E::Locked(_) => "find the program with `fuser FILE` and end it, then try again",
        E::Full(_) => "free some space and try again; nothing was changed",
        E::Forbidden(_) => "run this command as root or as the user who booted acc",
        E::Unusable { .. } => "check the owner and mode of the file and its folder",
        E::Ended(_) => "try again",
        E::Taken(_) => "choose another; `acc list` shows the instances",
    };
    ServiceError::failed(chain(&e), hint)
}

/// An answer that is none to what was asked for: client and server are of different versions.
#[must_use]
pub fn unexpected() -> ServiceError {
    ServiceError::failed(
        "the answer does not fit the request",
        "check with `acc doctor` whether the server has the version of this command",
    )
}

/// There is no such instance.
#[must_use]
pub(crate) fn no_instance(name: &str) -> ServiceError {
    ServiceError::new(
        ErrorKind::NotFound,
        format!("there is no instance `{name}`"),
        "`acc list` shows the instances",
    )
}
