//! The signals that a worker handles.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals it handles.
pub(super) struct WorkerSignals {
    pub(super) term: Signal,
    pub(super) int: Signal,
    pub(super) hup: Signal,
    pub(super) child: Signal,
}

impl WorkerSignals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            child: signal(SignalKind::child())?,
        })
    }
}
