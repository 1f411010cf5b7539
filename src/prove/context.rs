//! What all parts of a proof share: the address of the edge, what was killed so far, and the
//! counters for the display. It decides nothing.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::sample::ClientConnection;
use super::strike::Strike;
use crate::host::clock::monotonic_ns;

/// What clients must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Send requests.
    Go,
    /// Finish the current request, and wait.
    Rest,
    /// Finish the current request, and end.
    End,
}

/// Counters for the display.
#[derive(Debug, Default)]
pub struct Meter {
    /// Requests that have ended.
    pub sent: AtomicU64,
    /// Answered as expected.
    pub right: AtomicU64,
    /// Answered otherwise, or not at all; judged at the end.
    pub not_right: AtomicU64,
    /// Times it was put to sleep.
    pub cycles: AtomicU64,
    /// Requests being served.
    pub(super) busy: AtomicU64,
}

/// What all clients share.
pub(super) struct ProveContext {
    /// The edge.
    pub(super) to: SocketAddr,
    /// The instance's host, with port.
    pub(super) host: String,
    /// The instance's name, which the demo application shows.
    pub(super) name: String,
    /// It is the demo application: answers can be checked.
    pub(super) demo: bool,
    /// Longest wait for an answer.
    pub(super) limit: Duration,
    /// Tag of the ids of this run.
    pub(super) tag: String,
    /// Processes are being killed.
    pub(super) chaos: bool,
    /// What was killed so far.
    pub(super) strikes: Mutex<Vec<Strike>>,
    /// For the display.
    pub(super) meter: Arc<Meter>,
}

impl ProveContext {
    /// Whether there was such a kill.
    pub(super) fn struck(&self, like: impl Fn(&Strike) -> bool) -> bool {
        self.strikes().iter().any(like)
    }

    /// What was killed so far.
    pub(super) fn strikes(&self) -> MutexGuard<'_, Vec<Strike>> {
        self.strikes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a process was killed that held this connection, or that worked behind it since this
    /// time.
    pub(super) fn met_a_kill(&self, line: Option<ClientConnection>, since: u64) -> bool {
        let now = monotonic_ns();
        self.struck(|s| {
            line.is_some_and(|line| s.cut(&line)) || (s.is_behind() && s.met(since, now))
        })
    }
}
