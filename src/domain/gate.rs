//! The way in to one run of an instance: what an edge opens and closes, and what connections are
//! made through. It decides nothing.

use super::instance::{Listen, Process};
use super::name::InstanceName;

/// One way in: an instance and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// The instance.
    pub name: InstanceName,
    /// Where it listens.
    pub listen: Listen,
    /// Number of its run, so that connections of an older one are never reused.
    pub run: u64,
    /// Its process, when it listens on a port: who listens there must belong to it. `None`: not
    /// looked at.
    pub process: Option<Process>,
}
