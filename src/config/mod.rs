//! The settings of one acc installation, checked: no option is left open, no default hides elsewhere.
//!
//! `load` reads the file and the environment and reports every fault at once. It never creates or changes anything.

pub mod accounts;
pub mod env;
pub(crate) mod fault;
mod load;
mod places;
mod public;
pub(crate) mod reader;
pub mod regular;
pub mod reload;
mod rules;
mod show;
pub mod suggest;
#[cfg(test)]
mod tests;
pub mod trust;
pub(crate) mod value;

pub use env::Env;
pub use fault::{ConfigErrors, ConfigFault};
pub use load::{EDGE_ACCOUNT, RUN_MAX, load, named, parse};
pub use places::run_of_faulty;
pub use public::Scheme;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

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
    /// `shared_addresses`: networks in which an address stands for many clients, so that no limit for one client holds for it.
    pub shared_addresses: Vec<IpNet>,
    /// `trusted_proxies`: whose `X-Forwarded-For`, `-Proto` and `-Port` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `public_scheme`: how clients reach the edge, or the proxy before it.
    pub public_scheme: Scheme,
    /// `public_port`: the port that they name; `None`: "auto", see [`EdgeConfig::port`].
    pub public_port: Option<u16>,
    /// `templates`: a folder whose files replace the built-in templates of the same name.
    pub templates: Option<PathBuf>,
    /// `user`: who nginx's workers run as when acc is root; `None`: as acc. What was not set is chosen from the accounts of the host.
    pub user: Option<String>,
}

/// `[idle]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleConfig {
    /// `timeout`: quiet for this long is idle.
    pub timeout: Duration,
    /// `min_awake`: not put to sleep sooner than this after a wake.
    pub min_awake: Duration,
    /// `check_every`: pause between two passes of the server's own monitor; `None`: "off".
    pub check_every: Option<Duration>,
    /// `silent_connections`: a WebSocket without traffic for longer is not use any more; `None`: "never".
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
    /// `drain`: how long an operator's stop waits for what is in flight.
    pub drain: Duration,
    /// `drain_streams`: how long it waits for WebSockets and event streams, which do not end by themselves.
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

/// `[limits]`: what one instance may use of the host. `None` in each: no limit of its own.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct LimitsConfig {
    /// `open_files`: files that a process of it may have open at once; `None`: "auto", as many as acc was booted with.
    pub open_files: Option<u64>,
    /// `processes`: processes and threads at once, all of the instance together.
    pub processes: Option<u64>,
    /// `memory`: bytes, all of the instance together.
    pub memory: Option<u64>,
    /// `file_size`: bytes in a file that it writes.
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
    /// `user`: who instances run as when acc is root; `None`: as acc.
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

/// Whether acc was booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Booted {
    /// No, or it was halted.
    No,
    /// By `acc boot`: acc itself brings back what dies.
    InBackground,
    /// By `acc boot --foreground`, or its server was started by hand: whoever did that (systemd) brings the first process back.
    InForeground,
}

impl Booted {
    /// The text of the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "",
            Self::InBackground => "background",
            Self::InForeground => "foreground",
        }
    }

    /// Was what has this run folder booted? What cannot be read was not written by acc.
    #[must_use]
    pub fn in_run(run: &Path) -> Self {
        match regular::read_to_string(&booted_file(run)).as_deref().map(str::trim) {
            Ok("background") => Self::InBackground,
            Ok("foreground") => Self::InForeground,
            _ => Self::No,
        }
    }
}

fn booted_file(run: &Path) -> PathBuf {
    run.join("booted")
}

/// The settings in force, as the server of this run folder has written them down; not there after `halt`.
#[must_use]
pub fn in_force_file(run: &Path) -> PathBuf {
    run.join("in-force.toml")
}

/// Where things are. Everything below `home` and `run` is named here and nowhere else.
impl Config {
    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.home.join("acc.db")
    }
    /// Models.
    #[must_use]
    pub fn models(&self) -> PathBuf {
        self.home.join("models")
    }
    /// An instance's folder.
    #[must_use]
    pub fn instance_dir(&self, name: &str) -> PathBuf {
        self.home.join("instances").join(name)
    }
    /// An instance's lasting data.
    #[must_use]
    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.instance_dir(name).join("data")
    }
    /// Standard output and error of an instance.
    #[must_use]
    pub fn app_log(&self, name: &str) -> PathBuf {
        self.instance_dir(name).join("log/app.log")
    }
    /// The folders of the access logs, one for each instance.
    #[must_use]
    pub fn access_logs(&self) -> PathBuf {
        self.home.join("log/access")
    }
    /// The access logs of an instance: for the edge alone, the instance's user has no right there.
    #[must_use]
    pub fn access_dir(&self, name: &str) -> PathBuf {
        self.access_logs().join(name)
    }
    /// Requests to an instance that count as use, a line each.
    #[must_use]
    pub fn access_log(&self, name: &str) -> PathBuf {
        self.access_dir(name).join("access.log")
    }
    /// Requests to an instance that do not count as use.
    #[must_use]
    pub fn uncounted_log(&self, name: &str) -> PathBuf {
        self.access_dir(name).join("uncounted.log")
    }
    /// Who writes the access logs when acc is root: the user of nginx's workers; `None`: acc itself.
    #[must_use]
    pub fn access_logs_user(&self) -> Option<&str> {
        self.edge.user.as_deref().filter(|_| self.edge.kind == EdgeKind::Nginx)
    }
    /// What was moved out of the way to be removed, of what lies in home: for acc alone.
    #[must_use]
    pub fn trash(&self) -> PathBuf {
        self.home.join("trash")
    }
    /// The same of what lies in run.
    #[must_use]
    pub fn run_trash(&self) -> PathBuf {
        self.run.join("trash")
    }
    /// Log of acc's own parts.
    #[must_use]
    pub fn own_log(&self, part: &str) -> PathBuf {
        self.home.join("log").join(format!("{part}.log"))
    }
    /// Logs of instances that could not be created.
    #[must_use]
    pub fn failed_logs(&self) -> PathBuf {
        self.home.join("log/failed")
    }
    /// nginx's configuration.
    #[must_use]
    pub fn nginx_dir(&self) -> PathBuf {
        self.home.join("nginx")
    }
    /// supervisord's configuration.
    #[must_use]
    pub fn supervisor_dir(&self) -> PathBuf {
        self.home.join("supervisor")
    }
    /// Says that acc was booted and how; not there after `halt` and after a reboot.
    #[must_use]
    pub fn booted_file(&self) -> PathBuf {
        booted_file(&self.run)
    }
    /// How many files acc was allowed to have open when it was booted.
    #[must_use]
    pub fn open_files_file(&self) -> PathBuf {
        self.run.join("open-files")
    }
    /// Was acc booted, and who brings its supervisor back?
    #[must_use]
    pub fn booted(&self) -> Booted {
        Booted::in_run(&self.run)
    }
    /// Held by whoever runs verbs.
    #[must_use]
    pub fn owner_lock(&self) -> PathBuf {
        self.run.join("owner.lock")
    }
    /// Held by the server's keeper.
    #[must_use]
    pub fn server_lock(&self) -> PathBuf {
        self.run.join("server.lock")
    }
    /// Held by whoever runs verbs, beside [`Self::owner_lock`]: no cleaner of temporary folders comes here, and two installations
    /// with the same home meet here.
    #[must_use]
    pub fn home_owner_lock(&self) -> PathBuf {
        self.home.join("owner.lock")
    }
    /// Held by the server's keeper beside [`Self::server_lock`].
    #[must_use]
    pub fn home_server_lock(&self) -> PathBuf {
        self.home.join("server.lock")
    }
    /// The control socket of the server.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }
    /// Where nginx sends what it cannot serve.
    #[must_use]
    pub fn wake_socket(&self) -> PathBuf {
        self.run.join("wake.sock")
    }
    /// Notes of which requests were sent on, see `proxy::replay_notes`.
    #[must_use]
    pub fn sent_dir(&self) -> PathBuf {
        self.run.join("sent")
    }
    /// supervisord's XML-RPC socket.
    #[must_use]
    pub fn supervisor_socket(&self) -> PathBuf {
        self.run.join("supervisor.sock")
    }
    /// supervisord's pid file.
    #[must_use]
    pub fn supervisord_pid(&self) -> PathBuf {
        self.run.join("supervisord.pid")
    }
    /// Gates.
    #[must_use]
    pub fn gate_dir(&self) -> PathBuf {
        self.run.join("gate")
    }
    /// The folder of an instance's own socket.
    #[must_use]
    pub fn socket_dir(&self, name: &str) -> PathBuf {
        self.run.join("sock").join(name)
    }
    /// An instance's own socket.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.socket_dir(name).join("app.sock")
    }
    /// Where an instance says that it is ready, if it says so.
    #[must_use]
    pub fn notify_socket(&self, name: &str) -> PathBuf {
        self.run.join("notify").join(format!("{name}.sock"))
    }
    /// Pid files of the builtin supervisor.
    #[must_use]
    pub fn pid_dir(&self) -> PathBuf {
        self.run.join("pid")
    }
}
