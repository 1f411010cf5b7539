//! What everything of one proof shares: where the edge is, what was killed so far, the counts that
//! are shown. It decides nothing.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::sample::ClientConnection;
use super::strike::Strike;
use crate::host::clock::monotonic_ns;

/// What clients are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Ask.
    Go,
    /// Finish what is under way, and wait.
    Rest,
    /// Finish what is under way, and end.
    End,
}

/// Counts that are shown while it runs.
#[derive(Debug, Default)]
pub struct Meter {
    /// Requests that have ended.
    pub sent: AtomicU64,
    /// Answered as expected.
    pub right: AtomicU64,
    /// Not so; what that means is judged at the end.
    pub not_right: AtomicU64,
    /// Times it was put to sleep.
    pub cycles: AtomicU64,
    /// Requests under way.
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
    /// Things are being killed.
    pub(super) chaos: bool,
    /// What was killed so far.
    pub(super) strikes: Mutex<Vec<Strike>>,
    /// For the display.
    pub(super) meter: Arc<Meter>,
}

impl ProveContext {
    /// Was there such a crash?
    pub(super) fn struck(&self, like: impl Fn(&Strike) -> bool) -> bool {
        self.strikes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(like)
    }

    /// Was something killed that held this connection, or that was behind it since this time?
    pub(super) fn met_a_kill(&self, line: Option<ClientConnection>, since: u64) -> bool {
        let now = monotonic_ns();
        self.struck(|s| {
            line.is_some_and(|line| s.cut(&line)) || (s.is_behind() && s.met(since, now))
        })
    }
}
