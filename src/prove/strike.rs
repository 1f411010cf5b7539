//! One kill of a process: which, when, and what it cut. This module kills nothing.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::report::Strikes;
use super::sample::ClientConnection;

/// What was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Struck {
    /// The instance.
    Instance,
    /// The worker of acc's server.
    Server,
    /// The master of acc's server.
    Master,
    /// supervisord.
    Supervisor,
    /// A worker of nginx.
    Worker,
}

/// One kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Strike {
    /// The kind of process.
    pub(super) what: Struck,
    /// Its process id.
    pub(super) pid: i32,
    /// A moment before the kill, in nanoseconds of the monotonic clock.
    pub(super) at: u64,
    /// When the process was gone with all its sockets.
    pub(super) over: u64,
    /// The clients' addresses of the connections that it held; `None`: clients are not connected to
    /// it.
    pub(super) held: Option<HashSet<SocketAddr>>,
}

impl Strike {
    /// Whether the killed process held this connection.
    pub(super) fn cut(&self, line: &ClientConnection) -> bool {
        line.opened <= self.at
            && self
                .held
                .as_ref()
                .is_some_and(|held| held.contains(&line.from))
    }

    /// Whether the kill fell into the time of a request that was sent and ended at these times.
    pub(super) fn met(&self, sent: u64, ended: u64) -> bool {
        self.at <= ended && sent <= self.over
    }

    /// Whether the killed process works on requests whose clients are connected to another process.
    pub(super) fn is_behind(&self) -> bool {
        match self.what {
            Struck::Instance => true,
            Struck::Server => self.held.is_none(),
            Struck::Master | Struck::Supervisor | Struck::Worker => false,
        }
    }
}

/// Counts the kills of each kind.
pub(super) fn count(strikes: &[Strike]) -> Strikes {
    let of =
        |what| u32::try_from(strikes.iter().filter(|s| s.what == what).count()).unwrap_or(u32::MAX);
    Strikes {
        instance: of(Struck::Instance),
        server: of(Struck::Server),
        master: of(Struck::Master),
        supervisor: of(Struck::Supervisor),
        worker: of(Struck::Worker),
    }
}
