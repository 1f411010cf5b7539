//! When is an instance ready: it answered on its own socket. By inotify where possible, else
//! polled in growing steps.
//!
//! It never gives up by itself: the machine's timer does, and drops the future.

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
pub use crate::config::accounts::Owner;
use crate::domain::instance::{Listen, Process};

/// What to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Where it will listen.
    pub listen: Listen,
    /// The socket listens from the first moment on: a connection that is made says nothing, one
    /// that is accepted does.
    pub handed: bool,
    /// Where it says that it is ready (`sd_notify(3)`); `None`: it does not.
    pub notify: Option<PathBuf>,
    /// Path that must answer 2xx or 3xx; `None`: an accepted connection is enough.
    pub health: Option<String>,
    /// `Host` header of the health request.
    pub host: String,
}

/// What is in the way of a start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Another program has its port; says which, as far as it can be seen.
    #[error("{0}")]
    Port(String),
    /// Another program listens on its unix socket: in the folder that acc made for it, so
    /// [`Probe::evict`] can take it away.
    #[error("{0}")]
    Socket(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// An instance that answers.
#[derive(Debug, Default)]
pub struct Readiness {
    /// How long ago it first accepted a connection.
    pub ago: Duration,
    /// To be dropped when there is time: taking a watch away takes the kernel up to 0.2 ms.
    pub watch: Option<Watch>,
}

/// Waits for readiness.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Removes what a former run left behind (a stale socket file) and makes the folder of the
    /// socket. An error names what is in the way: a port taken by another program, a folder that
    /// cannot be written. Called before the start. For one that says that it is ready: with the
    /// socket on which it will be heard, to be kept until it is ready or has failed.
    async fn clear(&self, target: &ProbeTarget) -> Result<Option<NotifySocket>, Obstacle>;

    /// Takes away the unix socket that another program made in the instance's place. Only when
    /// nothing of the instance runs.
    fn evict(&self, target: &ProbeTarget) {
        let _ = target;
    }

    /// One try, right after the start of this process, whether it answers by now. `None`: not
    /// yet, or that takes more than a try.
    fn at_once(&self, target: &ProbeTarget, process: Process) -> Option<Readiness> {
        let _ = (target, process);
        None
    }

    /// Resolves once it answers, after its readiness message if it sends one. `notify_socket`:
    /// where it is received; without one (another acc began the start, and may have received it) an
    /// answer is enough. Only an answer of this process, or of one that belongs to it, is one;
    /// `None`: of any process.
    ///
    /// # Errors
    /// Another program listens in its place, so that it cannot; says which.
    async fn ready(
        &self,
        target: &ProbeTarget,
        process: Option<Process>,
        notify_socket: Option<NotifySocket>,
    ) -> Result<Readiness, String>;

    /// Checks where awake instances listen, all in one go. For each, in their order: what
    /// is wrong there, so that requests reach another program or none; `None`: nothing is, or it
    /// could not be found out.
    async fn misplaced(&self, awake: &[(Listen, Process)]) -> Vec<Option<String>> {
        vec![None; awake.len()]
    }

    /// Removes what a run that has ended left where it listened, so that the next start need not.
    fn tidy(&self, target: &ProbeTarget) {
        let _ = target;
    }

    /// Sees to it that the edge can connect to one that answers: `true`: it could not.
    ///
    /// # Errors
    /// What is there is not a socket of the instance's, or could not be changed.
    fn let_edge_in(&self, target: &ProbeTarget) -> io::Result<bool> {
        let _ = target;
        Ok(false)
    }

    /// Checks once, for people: where the instance of this process listens, when that is not where
    /// it should; `None`: nowhere, or where it should, or it cannot be seen.
    async fn elsewhere(&self, target: &ProbeTarget, process: Process) -> Option<String> {
        let _ = (target, process);
        None
    }

    /// Checks once, for people: what it is waiting for just now, e.g. "a connection on
    /// `/run/…/app.sock`".
    fn describe(&self, target: &ProbeTarget) -> String;
}
