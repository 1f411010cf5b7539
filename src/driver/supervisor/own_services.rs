//! What acc itself needs beside the instances, and the supervisor's own daemon.
//!
//! It keeps them running; which of them there are is decided elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use super::error::SupervisorError;
use crate::domain::instance::Process;

/// What acc's own server is called as a service.
pub const SERVER: &str = "server";

/// A program that acc itself needs, next to the instances: nginx, acc's own server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The edge's kind, or [`SERVER`].
    pub name: &'static str,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its log.
    pub log: PathBuf,
    /// Signal number that asks it to finish its work and end.
    pub stop_signal: i32,
    /// How long that may take.
    pub stop_timeout: Duration,
}

/// Whether something had to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// It ran already.
    Already,
    /// It was started.
    Started,
}

/// Runs acc's own services. Every call may be repeated and ends in bounded time.
#[async_trait]
pub trait OwnServices: Send + Sync {
    /// `supervisord`, `builtin` or `fake`.
    fn kind(&self) -> &'static str;

    /// Does a daemon of its own start the services? Otherwise acc's server starts the others.
    fn has_daemon(&self) -> bool {
        false
    }

    /// Files of the run folder that are there while the daemon runs.
    fn run_files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Can it be asked to start something? Always, without a daemon.
    async fn is_reachable(&self) -> bool {
        true
    }

    /// Is it certain that no daemon runs?
    async fn is_gone(&self) -> Result<bool, SupervisorError> {
        Ok(true)
    }

    /// Brings up the supervisor itself (supervisord: its daemon with `services` in its config;
    /// builtin: nothing to do).
    async fn boot(&self, services: &[Service]) -> Result<Ensured, SupervisorError>;

    /// Brings the supervisor itself back after it died, with these services: those that outlived it
    /// go on as they are. One that was ended in order, or never was there, stays down. Builtin:
    /// nothing to do.
    async fn revive(&self, _services: &[Service]) -> Result<Ensured, SupervisorError> {
        Ok(Ensured::Already)
    }

    /// Replaces a daemon that has lost its socket; every other is left as it is.
    async fn replace_deaf(&self, _services: &[Service]) -> Result<(), SupervisorError> {
        Ok(())
    }

    /// The command that runs the daemon in the foreground with these services, after its whole
    /// configuration was written; its environment is its own, whatever that of the caller is.
    /// Refused while one runs. `None`: there is no daemon.
    async fn foreground(
        &self,
        _services: &[Service],
    ) -> Result<Option<Vec<String>>, SupervisorError> {
        Ok(None)
    }

    /// Sees to it that the service runs.
    async fn ensure_service(&self, service: &Service) -> Result<Ensured, SupervisorError>;

    /// This process is the server's that asks: it is not ended in the course of a revival.
    fn exclude(&self, _server: Process) {}

    /// Writes down again which process this service's is, when its record was taken away under it by
    /// a cleaner of temporary folders; `true`: it was. One that has ended is not written down.
    async fn restore_service_record(
        &self,
        _name: &'static str,
        _process: Process,
    ) -> Result<bool, SupervisorError> {
        Ok(false)
    }

    /// Does the service run?
    async fn service(&self, name: &str) -> Result<Option<Process>, SupervisorError>;

    /// Ends the service in order and waits for it. One that does not run is success.
    async fn stop_service(&self, service: &Service) -> Result<(), SupervisorError>;

    /// Ends the supervisor itself (supervisord: its daemon); instances have been put to sleep
    /// before.
    async fn halt(&self) -> Result<(), SupervisorError>;
}
