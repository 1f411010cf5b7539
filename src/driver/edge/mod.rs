//! What faces the network: the trait, and its kinds `nginx`, `builtin` and `fake`.
//!
//! An edge opens and closes gates, and knows the routes that do not follow from a name. It never
//! starts an instance.

pub mod builtin;
pub mod fake;
pub mod nginx;
#[cfg(test)]
mod suite;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::config::Config;
pub use crate::domain::gate::Gate;
use crate::domain::instance::Process;
use crate::domain::name::{HostName, InstanceName};
use crate::driver::supervisor::Service;

/// What the edge must know about an instance beyond its name: other hosts, and the port of a TCP
/// instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The instance.
    pub name: InstanceName,
    /// Hosts other than `NAME.domain`.
    pub hosts: Vec<HostName>,
    /// Where it listens, when that is TCP.
    pub tcp: Option<SocketAddr>,
}

/// Why an edge failed.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A file of the edge could not be written, read, linked or removed.
    #[error("could not {action} `{path}`")]
    File {
        /// The action: "write", "link", "remove", …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The new configuration was refused; the old one is in force again. `culprit`: the instance
    /// whose text was refused.
    #[error("nginx refuses the new configuration{}: {why}", .culprit.as_ref().map(|c| format!(" (because of `{c}`)")).unwrap_or_default())]
    Refused {
        /// The instance, if known.
        culprit: Option<String>,
        /// nginx's own message.
        why: String,
    },
    /// The program is missing, too old, or does not work.
    #[error("{0}")]
    Unusable(String),
}

/// Controls which instances traffic reaches directly. Every call may be repeated and ends in
/// bounded time.
#[async_trait]
pub trait Edge: Send + Sync {
    /// `nginx`, `builtin` or `fake`.
    fn kind(&self) -> &'static str;

    /// Does a program of its own face the clients? Otherwise acc's server does.
    fn has_program(&self) -> bool {
        false
    }

    /// That program, named like [`Self::kind`]; `None`: it has none.
    fn service(&self) -> Result<Option<Service>, EdgeError> {
        Ok(None)
    }

    /// Files of the run folder that are there while that program runs.
    fn run_files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Does it ask again for what a killed server has not answered? Then acc notes what it has sent
    /// on.
    fn needs_replay_notes(&self) -> bool {
        false
    }

    /// The log that tells of the use of an instance which acc does not see; `None`: acc sees all.
    fn access_log(&self, _name: &InstanceName) -> Option<PathBuf> {
        None
    }

    /// Other settings; the next [`Self::apply`] puts them in force. Folders, users and addresses
    /// must be the same.
    fn reconfigure(&self, _config: Arc<Config>) {}

    /// Writes the whole configuration and checks it, before the edge's program is started.
    async fn prepare(&self, routes: &[Route]) -> Result<(), EdgeError>;

    /// Whether the edge's program is up and listening. If it is not, processes of an earlier one
    /// that would keep the next from listening are ended. An edge without its own program is always
    /// up.
    async fn is_up(&self) -> Result<bool, EdgeError> {
        Ok(true)
    }

    /// The main process of the edge's program; `None`: it is not running, or the edge has no
    /// program.
    async fn process(&self) -> Result<Option<Process>, EdgeError> {
        Ok(None)
    }

    /// Repairs the edge's program while it is up: sends it a request as clients do, through to
    /// acc's server if that can answer (`served`), and fixes what keeps it from answering. Returns
    /// what was fixed, one sentence each.
    async fn repair(&self, served: bool) -> Result<Vec<String>, EdgeError> {
        let _ = served;
        Ok(Vec::new())
    }

    /// Puts these routes in force and returns once they are. Does nothing if they are already.
    /// Otherwise checks them and reloads, at most once a second; if they are refused, the old ones
    /// stay.
    async fn apply(&self, routes: &[Route]) -> Result<(), EdgeError>;

    /// Lets traffic reach the instance directly.
    async fn open(&self, gate: &Gate) -> Result<(), EdgeError>;

    /// Lets no new connection reach the instance; open ones continue. Returns when no worker can be
    /// about to connect.
    async fn close(&self, gate: &Gate) -> Result<(), EdgeError>;

    /// The instances whose gate is open.
    async fn open_gates(&self) -> Result<Vec<InstanceName>, EdgeError>;

    /// How many connections to this instance acc keeps open without a request (its pool). They are
    /// not use.
    fn pooled(&self, gate: &Gate) -> u32;

    /// Removes everything the edge has under this name.
    async fn forget(&self, name: &InstanceName) -> Result<(), EdgeError>;
}
