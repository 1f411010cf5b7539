//! The state of a master: settings, lock, sockets and workers.
//!
//! `run` decides about them.

use std::path::PathBuf;

use super::sockets::Sockets;
use super::worker::Worker;
use crate::app::binary::Binary;
use crate::app::lock::ServerLock;
use crate::config::Config;

/// A master and its workers.
pub(super) struct Master {
    pub(super) config: Config,
    pub(super) binary: Binary,
    pub(super) lock: ServerLock,
    pub(super) sockets: Sockets,
    /// The worker that holds the owner's lock, or is about to.
    pub(super) serving: Option<Worker>,
    /// The worker that will serve next.
    pub(super) coming: Option<Worker>,
    /// Former workers that finish their requests.
    pub(super) leaving: Vec<Worker>,
    /// How many workers in a row did not start.
    pub(super) failed: u32,
    /// A worker has served since this master was started.
    pub(super) served: bool,
    /// When to retry after a failure.
    pub(super) again: Option<tokio::time::Instant>,
    /// The program for the next worker, if the one at the path has just failed to start.
    pub(super) fall_back: Option<PathBuf>,
    pub(super) ending: bool,
}

impl Master {
    /// A master without workers.
    pub(super) fn with(config: Config, lock: ServerLock, sockets: Sockets) -> Self {
        Self {
            config,
            binary: Binary::own(),
            lock,
            sockets,
            serving: None,
            coming: None,
            leaving: Vec::new(),
            failed: 0,
            served: false,
            again: None,
            fall_back: None,
            ending: false,
        }
    }

    /// Whether there is no worker in any state.
    pub(super) fn has_no_worker(&self) -> bool {
        self.serving.is_none() && self.coming.is_none() && self.leaving.is_empty()
    }

    /// Every worker in any state.
    pub(super) fn all(&self) -> impl Iterator<Item = &Worker> {
        self.serving.iter().chain(&self.coming).chain(&self.leaving)
    }
}
