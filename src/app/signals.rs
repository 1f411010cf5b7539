//! The signals that a worker and a master handle.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::service::error::ServiceError;

/// The signals that both handle.
pub(super) struct ServerSignals {
    pub(super) term: Signal,
    pub(super) int: Signal,
    pub(super) hup: Signal,
    pub(super) child: Signal,
}

impl ServerSignals {
    pub(super) fn new() -> Result<Self, ServiceError> {
        Ok(Self {
            term: follow(SignalKind::terminate())?,
            int: follow(SignalKind::interrupt())?,
            hup: follow(SignalKind::hangup())?,
            child: follow(SignalKind::child())?,
        })
    }
}

/// Handles a signal from now on.
pub(super) fn follow(kind: SignalKind) -> Result<Signal, ServiceError> {
    signal(kind).map_err(|e| {
        let hint = "check the limit of open files";
        ServiceError::because("could not follow signals", &e, hint)
    })
}
