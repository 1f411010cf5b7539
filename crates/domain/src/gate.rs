//! A gate: leads to one run of an instance. An edge opens and closes it, and connections are made
//! through it. It decides nothing.

use super::account::Account;
use super::instance::{Listen, Process};
use super::name::InstanceName;

/// A gate: an instance and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// The instance.
    pub name: InstanceName,
    /// Where it listens.
    pub listen: Listen,
    /// Number of its run, so that connections of an older one are never reused.
    pub run: u64,
    /// Its process, if it listens on a port: the listener must belong to it. `None`: not checked.
    pub process: Option<Process>,
    /// The account that must listen there.
    pub account: Account,
}
