//! What runs processes: the trait for instances, the one for what acc itself needs (`own_services`),
//! and the kinds that are both: `supervisord`, `builtin` and `fake`. All pass the same suite.
//!
//! A supervisor starts, signals and reports; when to restart is acc's decision, never the
//! supervisor's.

pub mod builtin;
mod error;
mod exec;
pub mod fake;
mod launcher;
mod locks;
mod members;
mod own_services;
mod pid_file;
mod preflight;
mod program_path;
mod runners;
#[cfg(test)]
mod suite;
pub mod supervisord;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::account::Account;
use crate::domain::instance::{Exit, RunId};
use crate::domain::name::InstanceName;
use crate::host::limits::{GroupLimits, ProcessLimits};
pub use acc_launch::{LaunchRequest, launch};
pub use error::SupervisorError;
use error::process_of;
pub use own_services::{Ensured, OwnServices, SERVER, Service};
pub use runners::Runners;

/// Everything a supervisor needs to run an instance once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The instance.
    pub name: InstanceName,
    /// Program and arguments; no shell.
    pub argv: Vec<String>,
    /// The whole environment: nothing else may reach the process.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub dir: PathBuf,
    /// Standard output and error go here, appended, size-bounded and rotated.
    pub log: PathBuf,
    /// Signal number that asks it to stop.
    pub stop_signal: i32,
    /// How long after the signal the supervisor may kill by itself (acc does so too).
    pub stop_timeout: Duration,
    /// A unix socket to hand over: it listens there before the program runs, which has it as
    /// descriptor 3 and is announced by `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES=acc`
    /// (`sd_listen_fds(3)`). No other process has it: it refuses connections as soon as the program
    /// has ended. Nothing is at this path at the start.
    pub socket: Option<PathBuf>,
    /// The account to run under.
    pub account: Account,
    /// Permissions that files it makes do not have.
    pub umask: u32,
    /// What each of its processes may use.
    pub limits: ProcessLimits,
    /// What all of its processes together may use.
    pub group: GroupLimits,
}

/// A pid file's pid, start time and boot, and where the output goes.
pub type PidFile = (i32, Option<(u64, String)>, Option<PathBuf>);

/// What the text of a pid file says. `None`: nothing that can be used.
#[must_use]
pub fn read_pid_file(text: &str) -> Option<PidFile> {
    pid_file::parse(text).map(|record| (record.pid, record.rest, record.log))
}

/// What a runner can do. A model that needs more is refused before an instance is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Hands a listening socket over ([`Program::socket`]).
    pub handed_socket: bool,
    /// Its programs reach a socket of this host, where they say that they are ready.
    pub notify: bool,
    /// It runs processes of this host: who listens and who is connected is seen in the kernel.
    pub local_processes: bool,
}

impl Capabilities {
    /// Of a runner whose instances are processes that acc's own launcher starts.
    pub const LAUNCHED: Self = Self {
        handed_socket: true,
        notify: true,
        local_processes: true,
    };
}

/// Runs instances. Every call may be repeated and ends in bounded time (but for [`Self::wait`]).
#[async_trait]
pub trait Runner: Send + Sync {
    /// What it can do, which never changes.
    fn capabilities(&self) -> Capabilities;

    /// Starts the program and returns its run at once, without waiting for it to be ready. One
    /// that runs already under this name is returned as it is.
    async fn start(&self, program: &Program) -> Result<RunId, SupervisorError>;

    /// The run under this name; `None` only when the supervisor is sure that there is
    /// none.
    async fn find(&self, name: &InstanceName) -> Result<Option<RunId>, SupervisorError>;

    /// All instances it knows to run.
    async fn running(&self) -> Result<Vec<(InstanceName, RunId)>, SupervisorError>;

    /// Sends the stop signal to all processes of the instance. An ended one is success.
    async fn terminate(&self, program: &Program, run_id: &RunId) -> Result<(), SupervisorError>;

    /// Kills all processes of the instance, which runs under this account. An ended one is success.
    async fn kill(
        &self,
        name: &InstanceName,
        account: &Account,
        run_id: &RunId,
    ) -> Result<(), SupervisorError>;

    /// Resolves when the run has ended, with how, and nothing else of the instance is left, which
    /// runs under this account. If
    /// [`Self::terminate`] asked for the end, the others are waited for until [`Self::kill`]; else
    /// they are killed. Noticed at once (pidfd).
    async fn wait(
        &self,
        name: &InstanceName,
        account: &Account,
        run_id: &RunId,
    ) -> Result<Exit, SupervisorError>;

    /// Ends what instances under these accounts have left that are not among `live`: processes whose
    /// first process has ended, and whose end no task waits for. Returns how many of which.
    async fn sweep(
        &self,
        _live: &[InstanceName],
        _accounts: &[Account],
    ) -> Result<Vec<(InstanceName, usize)>, SupervisorError> {
        Ok(Vec::new())
    }

    /// Why this program cannot be run, as far as it can be seen from outside; asked for when it
    /// could not. `None`: nothing is seen.
    async fn explain(&self, _program: &Program) -> Option<String> {
        None
    }

    /// Removes every trace of the name (program section, pid file, what other processes it has
    /// left under this account). The process has ended before.
    async fn forget(&self, name: &InstanceName, account: &Account) -> Result<(), SupervisorError>;

    /// Housekeeping, now and then: drops program sections of instances that have slept for long;
    /// those of `live` stay.
    async fn tidy(&self, live: &[InstanceName]) -> Result<(), SupervisorError>;

    /// Writes the record of this run again, when a cleaner of temporary folders took it away;
    /// `true`: it did. One that has ended is not written down.
    async fn restore_record(
        &self,
        _name: &InstanceName,
        _run_id: &RunId,
        _log: &Path,
    ) -> Result<bool, SupervisorError> {
        Ok(false)
    }
}
