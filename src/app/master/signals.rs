//! The signals that a master handles, and which of them stay pending while it replaces itself.

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tracing::{info, warn};

use crate::app::lock;
use crate::config::Config;
use crate::host::process;

/// The signals it handles.
pub(super) struct MasterSignals {
    pub(super) term: Signals,
    pub(super) int: Signals,
    pub(super) hup: Signals,
    pub(super) usr2: Signals,
    pub(super) child: Signals,
}

impl MasterSignals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr2: signal(SignalKind::user_defined2())?,
            child: signal(SignalKind::child())?,
        })
    }

    /// Resolves when this standby server is asked to end. Its other signals are meant for the
    /// server that serves.
    pub(super) async fn end_requested(&mut self, config: &Config) {
        loop {
            let signal = tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                _ = self.hup.recv() => Signal::SIGHUP,
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
