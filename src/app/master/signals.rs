//! The signals that a master follows, and which of them wait while it becomes another program.

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tracing::{info, warn};

use crate::app::lock;
use crate::config::Config;
use crate::host::process;

/// The signals it follows.
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

    /// Resolves when this server, which stands by, is told to end. What else it is told is meant
    /// for the one that serves.
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

/// Signals with a meaning to a master, which would end one that does not follow them yet.
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

/// Lets them in again; they were kept waiting while the program was replaced.
pub(super) fn let_signals_in() {
    if let Err(error) = signals().thread_unblock() {
        tracing::warn!(%error, "could not unblock signals");
    }
}
