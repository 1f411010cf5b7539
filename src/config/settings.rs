//! The types of the settings: one field for each key of the config file, with its meaning and unit.
//!
//! No default is here (`load` has them), and nothing is read or checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::scheme::Scheme;
use crate::domain::name::HostName;
use crate::domain::port::PortRange;
use crate::domain::rule::Rule;

/// Which edge faces the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeKind {
    /// nginx, configured and run by acc.
    Nginx,
    /// acc's own listener.
    Builtin,
}

/// Which supervisor runs the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SupervisorKind {
    /// supervisord, configured and run by acc.
    Supervisord,
    /// acc itself.
    Builtin,
}

/// `[edge]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeConfig {
    /// `kind`.
    pub kind: EdgeKind,
    /// `listen`: addresses that face the network.
    pub listen: Vec<SocketAddr>,
    /// `max_body`: longest request body in bytes.
    pub max_body: u64,
    /// `per_client`: connections of one address that are served at once; `None`: "off".
    pub per_client: Option<u32>,
    /// `shared_addresses`: networks in which an address stands for many clients, so that limits for
    /// one client do not apply.
    pub shared_addresses: Vec<IpNet>,
    /// `trusted_proxies`: proxies whose `X-Forwarded-For`, `-Proto` and `-Port` are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// `public_scheme`: how clients reach the edge, or the proxy before it.
    pub public_scheme: Scheme,
    /// `public_port`: the port in the clients' URLs; `None`: "auto", see [`EdgeConfig::port`].
    pub public_port: Option<u16>,
    /// `templates`: a folder whose files replace the built-in templates of the same name.
    pub templates: Option<PathBuf>,
    /// `user`: the user of nginx's workers if acc is root; `None`: acc's own. The default is chosen
    /// from the accounts of the host.
    pub user: Option<String>,
}

/// `[idle]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleConfig {
    /// `timeout`: quiet for this long is idle.
    pub timeout: Duration,
    /// `min_awake`: an instance is not put to sleep earlier than this after a wake.
    pub min_awake: Duration,
    /// `check_every`: pause between two runs of the server's own monitor; `None`: "off".
    pub check_every: Option<Duration>,
    /// `silent_connections`: a WebSocket without traffic for longer no longer counts as use;
    /// `None`: "never".
    pub silent_connections: Option<Duration>,
}

/// `[wake]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WakeConfig {
    /// `timeout`: a request is held at most this long; also the default start timeout.
    pub timeout: Duration,
    /// `page_after`: a browser's navigation gets the waiting page after this long.
    pub page_after: Duration,
    /// `max_waiting`: requests held at once for one instance.
    pub max_waiting: usize,
    /// `max_at_once`: instances starting at once.
    pub max_at_once: usize,
    /// `per_client`: instances that one address may wake in a minute; `None`: "off".
    pub per_client: Option<u32>,
}

/// `[stop]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopConfig {
    /// `drain`: how long a stop by the operator waits for requests in flight.
    pub drain: Duration,
    /// `drain_streams`: how long it waits for WebSockets and event streams, which do not end by
    /// themselves.
    pub drain_streams: Duration,
    /// `timeout`: from the stop signal to the kill.
    pub timeout: Duration,
}

/// `[log] format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `level`: error, warn, info, debug or trace.
    pub level: String,
    /// `format`.
    pub format: LogFormat,
}

/// `[events]`: how many events are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventsConfig {
    /// `keep`: at most this many lines.
    pub keep: usize,
    /// `keep_for`: none that is older.
    pub keep_for: Duration,
}

/// `[limits]`: what one instance may use of the host. `None`: no limit of its own.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct LimitsConfig {
    /// `open_files`: files that each of its processes may have open; `None`: "auto", as many as acc
    /// was booted with.
    pub open_files: Option<u64>,
    /// `processes`: processes and threads of the whole instance.
    pub processes: Option<u64>,
    /// `memory`: bytes for the whole instance.
    pub memory: Option<u64>,
    /// `file_size`: size of a file that it writes, in bytes.
    pub file_size: Option<u64>,
    /// `core`: bytes in the core file of a crash; 0: none is written.
    pub core: Option<u64>,
}

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file they came from; `None`: defaults only.
    pub file: Option<PathBuf>,
    /// `home`: lasting state.
    pub home: PathBuf,
    /// `run`: sockets, gates, pid files; empty after a reboot.
    pub run: PathBuf,
    /// `domain`: an instance NAME answers to NAME.domain.
    pub domain: HostName,
    /// `user`: the user of instances if acc is root; `None`: acc's own.
    pub user: Option<String>,
    /// `[edge]`.
    pub edge: EdgeConfig,
    /// `[supervisor]`.
    pub supervisor: SupervisorKind,
    /// `[idle]`.
    pub idle: IdleConfig,
    /// `[wake]`.
    pub wake: WakeConfig,
    /// `[stop]`.
    pub stop: StopConfig,
    /// `[ports] range`.
    pub ports: PortRange,
    /// `[log]`.
    pub log: LogConfig,
    /// `[events]`.
    pub events: EventsConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[[rules]]`, in order.
    pub rules: Vec<Rule>,
}
