//! What a master holds: the settings, the lock, the sockets, and its workers.
//!
//! What happens to them is decided in `run`.

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
    /// Has the say.
    pub(super) serving: Option<Worker>,
    /// Will have it.
    pub(super) coming: Option<Worker>,
    /// Had it, and finish what they carry.
    pub(super) leaving: Vec<Worker>,
    /// Workers in a row that did not come up.
    pub(super) failed: u32,
    /// A worker has served since this master was started.
    pub(super) served: bool,
    /// When to try again after a failure.
    pub(super) again: Option<tokio::time::Instant>,
    /// What the next worker is started from when the binary in place has just failed to come up.
    pub(super) fall_back: Option<PathBuf>,
    pub(super) ending: bool,
}

impl Master {
    /// One without workers.
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

    /// Is there no worker, in whatever state?
    pub(super) fn has_no_worker(&self) -> bool {
        self.serving.is_none() && self.coming.is_none() && self.leaving.is_empty()
    }

    /// Every worker, in whatever state.
    pub(super) fn all(&self) -> impl Iterator<Item = &Worker> {
        self.serving.iter().chain(&self.coming).chain(&self.leaving)
    }
}
