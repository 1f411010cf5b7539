//! What all requests share: admission by the service, connections to instances, settings, pages and
//! logs.
//!
//! It never reads or sends a request: `receive` and `forward` do.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access_log::AccessLog;
use super::replay_notes::ReplayNotes;
use super::rest::RestingConnections;
use super::settings::{ProxySettings, SharedSettings};
use crate::driver::upstream::Upstreams;
use crate::render::pages::Pages;
use crate::service::admission::Admission;

/// Serves requests from any listener.
pub struct Proxy {
    pub(super) admission: Arc<dyn Admission>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) settings: SharedSettings,
    pub(super) pages: Pages,
    pub(super) log: Option<AccessLog>,
    /// Behind nginx: which requests were sent to instances and must not be sent again.
    pub(super) replay_notes: Option<ReplayNotes>,
    /// What outlives its request: upgraded connections, and log lines that wait for the database.
    pub(super) upgraded: TaskTracker,
    /// Ends upgraded connections that outlast the grace period of a shutdown.
    pub(super) cut: CancellationToken,
    /// Connections of clients that wait for their next request and keep nothing else.
    pub(super) resting: RestingConnections,
}

impl Proxy {
    /// `log`: only for acc's own edge; nginx writes its own.
    #[must_use]
    pub fn new(
        admission: Arc<dyn Admission>,
        upstreams: Arc<Upstreams>,
        settings: ProxySettings,
        pages: Pages,
        log: Option<AccessLog>,
    ) -> Self {
        Self {
            admission,
            upstreams,
            settings: SharedSettings::new(settings),
            pages,
            log,
            replay_notes: None,
            upgraded: TaskTracker::new(),
            cut: CancellationToken::new(),
            resting: RestingConnections::default(),
        }
    }

    /// Records which requests are sent to instances, for the next worker if this one is killed.
    #[must_use]
    pub fn noting(mut self, notes: ReplayNotes) -> Self {
        self.replay_notes = Some(notes);
        self
    }

    /// Puts new settings in force for later requests.
    pub fn reload(&self, settings: ProxySettings) {
        self.settings.replace(settings);
    }
}
