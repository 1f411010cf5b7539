//! Every verb that changes something, as a value: the same for the command line, the control socket
//! and timers.
//!
//! Reading needs no request: `service::view` reads the database.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NewInstance {
    /// Its name; `None`: a free one made from the model's name.
    pub name: Option<String>,
    /// The model.
    pub model: String,
    /// Hosts besides NAME.domain.
    pub hosts: Vec<String>,
    /// Who to write to.
    pub owner: Option<String>,
    /// Parameters of the model.
    pub set: BTreeMap<String, String>,
    /// Own idle timeout in milliseconds.
    pub idle_ms: Option<u64>,
    /// `auto`, `up` or `down`.
    pub desired: Option<String>,
    /// Do not start it.
    pub asleep: bool,
}

/// A verb and its object. An instance is given by name or number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
#[allow(missing_docs)] // the fields are `instance` and flags, said in the line above each
pub enum Request {
    /// Is the server there?
    Ping,
    /// Which settings are in force?
    Settings,
    /// Let the server become what its binary is now; answered at once.
    Upgrade,
    /// Let the server read its config again.
    Reload,
    /// Make an instance.
    Create(NewInstance),
    /// Wake it and wait until it answers.
    Start { instance: String },
    /// Put it to sleep; `now`: without waiting for what is in flight.
    Stop { instance: String, now: bool },
    /// Stop, then start.
    Restart { instance: String },
    /// `desired`: `auto`, `up` or `down`; `down` also puts it to sleep, `up` also wakes it.
    SetDesired { instance: String, desired: String },
    /// Forget its failure.
    Reset { instance: String },
    /// Out of service for good; files are kept.
    Destroy { instance: String, force: bool },
    /// Remove a destroyed instance with everything it had.
    Purge { instance: String },
    /// One monitor run over all instances.
    Monitor {
        dry_run: bool,
        /// Also check whether the edge's configuration is as it should be.
        #[serde(default)]
        thorough: bool,
    },
    /// Everything to sleep, and no wake from now on.
    Quiesce,
}
