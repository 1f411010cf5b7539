//! The signals that a master handles, and which of them stay pending while it replaces itself.

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{Signal as Signals, SignalKind};
use tracing::{info, warn};

use crate::app::lock;
use crate::app::signals::{ServerSignals, follow};
use crate::config::Config;
use crate::host::process;
use crate::service::error::ServiceError;

/// The signals it handles.
pub(super) struct MasterSignals {
    pub(super) common: ServerSignals,
    pub(super) usr2: Signals,
}

impl MasterSignals {
    pub(super) fn new() -> Result<Self, ServiceError> {
        Ok(Self {
            common: ServerSignals::new()?,
            usr2: follow(SignalKind::user_defined2())?,
        })
    }

    /// Resolves when this standby server is asked to end. Its other signals are meant for the
    /// server that serves.
    pub(super) async fn end_requested(&mut self, config: &Config) {
        loop {
            let signal = tokio::select! {
                _ = self.common.term.recv() => return,
                _ = self.common.int.recv() => return,
                _ = self.common.hup.recv() => Signal::SIGHUP,
                _ = self.usr2.recv() => Signal::SIGUSR2,
            };
            match lock::serving(config) {
                Some(master) => match process::signal_one(master, signal as i32) {
                    Ok(()) => info!(pid = master.pid, "sent {signal} to the running server"),
                    Err(error) => {
                        warn!(pid = master.pid, %error, "could not send {signal} to the running server")
                    }
                },
                None => {
                    warn!("ignored {signal}: no running server was found")
                }
            }
        }
    }
}

/// Signals that a master handles, and that would end one which does not handle them yet.
pub(super) fn signals() -> SigSet {
    [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR2,
    ]
    .into_iter()
    .collect()
}

/// Unblocks them; they were pending while the program was replaced.
pub(super) fn let_signals_in() {
    if let Err(error) = signals().thread_unblock() {
        tracing::warn!(%error, "could not unblock signals");
    }
}
