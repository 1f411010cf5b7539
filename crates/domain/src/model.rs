//! A model: what an application needs to become an instance. Read by `models`, rendered by
//! `service::launch_spec`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::instance::RunnerKind;

/// How instances of a model listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenKind {
    /// A unix socket.
    Unix,
    /// A loopback TCP port that acc chooses.
    Tcp,
    /// A unix socket that acc binds and passes on, listening, as descriptor 3 (`LISTEN_FDS`,
    /// `sd_listen_fds(3)`).
    Fd,
}

/// What tells that instances of a model are ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    /// A process accepts connections at its address.
    Socket,
    /// The instance reports it: `READY=1` on `NOTIFY_SOCKET`, see `sd_notify(3)`.
    Notify,
}

/// One parameter of a model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Param {
    /// The value if none is given.
    pub default: Option<String>,
    /// For people.
    pub description: String,
    /// Must be given if there is no default.
    pub required: bool,
    /// Never shown again once set.
    pub secret: bool,
}

/// A checked `model.toml` and the folder it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The folder's name.
    pub name: String,
    /// The folder.
    pub dir: PathBuf,
    /// One line for people.
    pub description: String,
    /// What runs its instances.
    pub runner: RunnerKind,
    /// How it listens.
    pub listen: ListenKind,
    /// How it shows that it is ready, before the health check.
    pub ready: Ready,
    /// Program and arguments, each a template.
    pub command: Vec<String>,
    /// Path that must answer 2xx or 3xx before the instance counts as awake.
    pub health: Option<String>,
    /// Signal number that asks it to stop.
    pub stop_signal: i32,
    /// Environment; values are templates.
    pub env: BTreeMap<String, String>,
    /// `[timeouts] start`.
    pub start_timeout: Option<Duration>,
    /// `[timeouts] stop`.
    pub stop_timeout: Option<Duration>,
    /// `[params]`.
    pub params: BTreeMap<String, Param>,
}

/// Joins a text of several lines, for an error message.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
