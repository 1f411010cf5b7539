//! One kill of a process: which, when, and what it cut. It kills nothing.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::report::Strikes;
use super::sample::ClientConnection;

/// What was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Struck {
    /// The instance.
    Instance,
    /// The part of acc's server that serves.
    Server,
    /// The part of it that keeps the other running.
    Master,
    /// supervisord.
    Supervisor,
    /// A worker of nginx.
    Worker,
}

/// One kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Strike {
    /// What.
    pub(super) what: Struck,
    /// Its process id.
    pub(super) pid: i32,
    /// When, in nanoseconds of the monotonic clock: a moment before.
    pub(super) at: u64,
    /// When it was gone with all its sockets.
    pub(super) over: u64,
    /// The clients' ends of the connections that it held; `None`: it is not what clients are
    /// connected to.
    pub(super) held: Option<HashSet<SocketAddr>>,
}

impl Strike {
    /// Did the killed process hold this connection?
    pub(super) fn cut(&self, line: &ClientConnection) -> bool {
        line.opened <= self.at
            && self
                .held
                .as_ref()
                .is_some_and(|held| held.contains(&line.from))
    }

    /// Was it killed while a request was under way that was sent and has ended at these times?
    pub(super) fn met(&self, sent: u64, ended: u64) -> bool {
        self.at <= ended && sent <= self.over
    }

    /// Does what was killed work on requests whose clients are connected to something else?
    pub(super) fn is_behind(&self) -> bool {
        match self.what {
            Struck::Instance => true,
            Struck::Server => self.held.is_none(),
            Struck::Master | Struck::Supervisor | Struck::Worker => false,
        }
    }
}

/// How often each was killed.
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
