//! The properties of an instance that do not depend on its phase, and what acc records about its
//! runs.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::account::Account;
use super::name::{HostName, InstanceId, InstanceName};
use super::time::WallTime;

/// What the operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "String")]
pub enum DesiredState {
    /// Sleeps and wakes by itself.
    Auto,
    /// Always on.
    Up,
    /// Disabled: no request wakes it.
    Down,
}

impl DesiredState {
    /// The word in the database, on the command line and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Auto, Self::Up, Self::Down]
            .into_iter()
            .find(|w| w.as_str() == text)
    }
}

/// A text that is none of the desired states.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a desired state: use auto, up or down")]
pub struct NoDesiredState(String);

impl TryFrom<String> for DesiredState {
    type Error = NoDesiredState;

    fn try_from(text: String) -> Result<Self, NoDesiredState> {
        Self::parse(&text).ok_or(NoDesiredState(text))
    }
}

/// Where an instance listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// A unix socket that the application binds, or that acc passes to it.
    Unix(PathBuf),
    /// A TCP address: for a process of this host a loopback one.
    Tcp(SocketAddr),
}

/// A running process, by two numbers whose combination is unique within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// Process id, and the id of its process group.
    pub pid: i32,
    /// Start time in clock ticks since boot: field 22 of `/proc/PID/stat`, see proc(5).
    pub start_time: u64,
}

/// Which run of an instance is meant, in the words of the runner that started it. acc compares and
/// keeps it; only that runner reads it, so that a runner may start something else than a process of this host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunId(RunIdKind);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum RunIdKind {
    Process(Process),
    Other(Arc<str>),
}

impl RunId {
    /// The id of a run that is no process of this host. The runner chooses the text; no two runs
    /// of one boot have the same.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(RunIdKind::Other(text.into()))
    }

    /// The first process of the run, if it is one of this host: who asks the kernel of this host
    /// about the run needs it.
    #[must_use]
    pub fn process(&self) -> Option<Process> {
        match self.0 {
            RunIdKind::Process(process) => Some(process),
            RunIdKind::Other(_) => None,
        }
    }

    /// The text of [`Self::new`].
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.0 {
            RunIdKind::Process(_) => None,
            RunIdKind::Other(text) => Some(text),
        }
    }
}

impl From<Process> for RunId {
    fn from(process: Process) -> Self {
        Self(RunIdKind::Process(process))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            RunIdKind::Process(process) => write!(f, "process {}", process.pid),
            RunIdKind::Other(text) => f.write_str(text),
        }
    }
}

/// What runs an instance, as its model says: a word, so that also one that this acc does not have
/// can be named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunnerKind(String);

impl RunnerKind {
    /// The kind of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `process`: a process of this host.
impl Default for RunnerKind {
    fn default() -> Self {
        Self::new("process")
    }
}

impl fmt::Display for RunnerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It has ended, and its exit status is unknown.
    Unknown,
}

/// How an instance is run: rendered once when it is created, so that a wake needs neither the model
/// nor a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// What runs it.
    pub runner: RunnerKind,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment of the process; nothing else is passed.
    pub env: Vec<(String, String)>,
    /// acc passes its unix socket to it, listening, as descriptor 3.
    pub handed: bool,
    /// It reports by itself that it is ready (`sd_notify(3)`).
    pub notifies: bool,
    /// Path of the health check; without it an accepted connection is enough.
    pub health: Option<String>,
    /// Signal number that asks it to stop.
    pub stop_signal: i32,
    /// How long it may take from spawn to the first answer; `None`: the wake timeout.
    pub start_timeout: Option<Duration>,
    /// How long it may take from the stop signal to its end; `None`: `stop.timeout`.
    pub stop_timeout: Option<Duration>,
}

/// One instance as stored in the database, without its phase (see `lifecycle::Machine`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its number.
    pub id: InstanceId,
    /// Its name.
    pub name: InstanceName,
    /// The model it was made from.
    pub model: String,
    /// All host names; the first is the one shown.
    pub hosts: Vec<HostName>,
    /// Where it listens.
    pub listen: Listen,
    /// How it is run.
    pub launch: Launch,
    /// The account it runs under.
    pub account: Account,
    /// Contact of its owner.
    pub owner: Option<String>,
    /// Own idle timeout; `None`: `idle.timeout`.
    pub idle_timeout: Option<Duration>,
    /// When it was made.
    pub created_at: WallTime,
    /// When it last became awake.
    pub last_wake_at: Option<WallTime>,
    /// When it was last seen in use.
    pub last_active_at: Option<WallTime>,
    /// How often it was woken.
    pub wakes: u64,
}
