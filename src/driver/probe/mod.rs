//! When an instance is ready: once it has answered on its own socket. Detected by inotify where
//! possible, else by polling at growing intervals.
//!
//! It has no time limit of its own: the machine's timer ends the wait by dropping the future.

mod accepted;
mod backoff;
mod elsewhere;
pub mod fake;
mod folder;
mod health;
mod inotify;
mod notify;
mod place;
mod socket;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

pub use self::fake::FakeProbe;
pub use self::health::status as status_of;
pub use self::inotify::Watch;
pub use self::notify::{NotifyMessage, NotifySocket};
pub use self::socket::SocketProbe;
use crate::domain::account::Account;
use crate::domain::instance::{Listen, Process};

/// What to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Where the instance will listen.
    pub listen: Listen,
    /// acc made the socket and listens on it from the start: a connect proves nothing, an accepted
    /// connection does.
    pub handed: bool,
    /// Where it reports that it is ready (`sd_notify(3)`); `None`: it does not.
    pub notify: Option<PathBuf>,
    /// Path that must answer 2xx or 3xx; `None`: an accepted connection is enough.
    pub health: Option<String>,
    /// `Host` header of the health request.
    pub host: String,
    /// The account that the instance runs under: it owns its sockets and their folder.
    pub account: Account,
}

/// What prevents a start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Another program has the port; the text names it, if it can be identified.
    #[error("{0}")]
    Port(String),
    /// Another program listens on the unix socket. It is in a folder that acc made, so
    /// [`Probe::evict`] can remove it.
    #[error("{0}")]
    Socket(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// An instance that answers.
#[derive(Debug, Default)]
pub struct Readiness {
    /// How long ago it accepted the first connection.
    pub ago: Duration,
    /// Dropped later: removing a watch takes the kernel up to 0.2 ms.
    pub watch: Option<Watch>,
}

/// Waits for readiness.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Prepares a start: removes what an earlier run left (a stale socket file) and makes the
    /// folder of the socket. The error says what prevents the start: a port taken by another
    /// program, a folder that cannot be written. For an instance that reports its readiness,
    /// returns the socket that receives the report. Keep it until the instance is ready or has
    /// failed.
    async fn clear(&self, target: &ProbeTarget) -> Result<Option<NotifySocket>, Obstacle>;

    /// Removes the unix socket that another program made in the instance's place. Call it only when
    /// nothing of the instance runs.
    fn evict(&self, target: &ProbeTarget) {
        let _ = target;
    }

    /// Tries once, right after the start of this process, whether it answers already; without a
    /// process, whether anything of its account does. `None`: not yet, or one attempt cannot tell.
    fn at_once(&self, target: &ProbeTarget, process: Option<Process>) -> Option<Readiness> {
        let _ = (target, process);
        None
    }

    /// Resolves once the instance answers, and has reported its readiness if it does so.
    /// `notify_socket` receives the report. Without it an answer is enough: another acc began the
    /// start and may have received the report. Only an answer of this process, or of one that
    /// belongs to it, counts; `None`: of any process.
    ///
    /// # Errors
    /// Another program listens in its place; the error names it.
    async fn ready(
        &self,
        target: &ProbeTarget,
        process: Option<Process>,
        notify_socket: Option<NotifySocket>,
    ) -> Result<Readiness, String>;

    /// Checks where all these awake instances listen. For each, in their order: what is wrong, if
    /// requests reach another program or none. `None`: nothing is wrong, or it could not be
    /// checked.
    async fn misplaced(&self, awake: &[(ProbeTarget, Process)]) -> Vec<Option<String>> {
        vec![None; awake.len()]
    }

    /// Removes what an ended run left at its address, so that the next start need not.
    fn tidy(&self, target: &ProbeTarget) {
        let _ = target;
    }

    /// Makes sure that the edge can connect to an instance that answers; `true`: it could not.
    ///
    /// # Errors
    /// The file is not a socket of the instance, or could not be changed.
    fn let_edge_in(&self, target: &ProbeTarget) -> io::Result<bool> {
        let _ = target;
        Ok(false)
    }

    /// Checks once, for people: where the instance of this process listens, if not where it should.
    /// `None`: it listens nowhere or where it should, or cannot be inspected.
    async fn elsewhere(&self, target: &ProbeTarget, process: Process) -> Option<String> {
        let _ = (target, process);
        None
    }

    /// Describes, for people, what the start is waiting for now, e.g. "a connection on
    /// `/run/…/app.sock`".
    fn describe(&self, target: &ProbeTarget) -> String;
}
