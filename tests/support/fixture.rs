//! A fixture: one acc installation in a folder and on ports of its own, ended and removed with the
//! value.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

use super::http::{Ask, Reply};
use super::wait::{holds, wait_until};
use super::{need, processes, run, ws};

/// The binary under test.
pub const ACC: &str = env!("CARGO_BIN_EXE_acc");
/// Longest any command may take.
pub const COMMAND: Duration = Duration::from_secs(60);
/// Longest any change may take to be seen.
pub const SOON: Duration = Duration::from_secs(20);

/// One of the four ways to put acc together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Combination {
    /// `edge.kind`.
    pub edge: &'static str,
    /// `supervisor.kind`.
    pub supervisor: &'static str,
}

impl Combination {
    /// nginx and supervisord.
    pub const REAL: Self = Self {
        edge: "nginx",
        supervisor: "supervisord",
    };
    /// Nothing but acc.
    pub const BUILTIN: Self = Self {
        edge: "builtin",
        supervisor: "builtin",
    };
    /// All four.
    pub const ALL: [Self; 4] = [
        Self::REAL,
        Self {
            edge: "nginx",
            supervisor: "builtin",
        },
        Self {
            edge: "builtin",
            supervisor: "supervisord",
        },
        Self::BUILTIN,
    ];

    /// True when its programs are installed; else the test is skipped.
    #[track_caller]
    pub fn possible(self) -> bool {
        let mut names = Vec::new();
        if self.edge == "nginx" {
            names.push("nginx");
        }
        if self.supervisor == "supervisord" {
            names.push("supervisord");
        }
        need::programs(&names)
    }
}

/// The settings that tests vary; each is written to the config as it is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `idle.timeout`.
    pub idle: &'static str,
    /// `idle.min_awake`.
    pub min_awake: &'static str,
    /// `idle.check_every`.
    pub check_every: &'static str,
    /// `idle.silent_connections`.
    pub silent_connections: &'static str,
    /// `wake.timeout`.
    pub wake_timeout: &'static str,
    /// `wake.page_after`.
    pub page_after: &'static str,
    /// `wake.max_waiting`.
    pub max_waiting: u32,
    /// `stop.drain`.
    pub drain: &'static str,
    /// `stop.timeout`.
    pub stop_timeout: &'static str,
    /// `edge.max_body`.
    pub max_body: &'static str,
    /// More lines of `[edge]`.
    pub edge: String,
    /// Lines before the first section, such as `user = "nobody"`.
    pub top: String,
    /// Sections after the last, such as `[[rules]]`.
    pub rules: String,
    /// `ports.range`; empty: the fixture's own.
    pub ports: String,
    /// `run` is in memory, as `/run` of a usual host is.
    pub run_in_memory: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            idle: "1s",
            min_awake: "0s",
            check_every: "off",
            silent_connections: "never",
            wake_timeout: "20s",
            page_after: "2s",
            max_waiting: 1000,
            drain: "10s",
            stop_timeout: "5s",
            max_body: "1GiB",
            edge: String::new(),
            top: String::new(),
            rules: String::new(),
            ports: String::new(),
            run_in_memory: false,
        }
    }
}

/// The demo application with a log of its own in its data folder; `{delay}` is what `--set
/// start_delay=` gives.
const TESTER: &str = r#"description = "the demo application, with a log of what it was asked"
listen = "LISTEN"
command = ["{{ acc }}", "demo-app", ADDRESS, "--name", "{{ name }}", "--log", "{{ data }}/demo.log", "--start-delay", "{{ params.start_delay }}"]
health = "/health"

[params.start_delay]
default = "0ms"
description = "pause before it listens"
"#;

/// A block of ports that no other fixture uses while this one lives, below the range the kernel
/// takes ports of clients from.
struct Ports {
    first: u16,
    _lock: Flock<fs::File>,
}

impl Ports {
    const SIZE: u16 = 20;

    /// Claims a block all of whose ports are free now.
    fn claim() -> Self {
        let dir = std::env::temp_dir().join("acc-test-ports");
        fs::create_dir_all(&dir).unwrap();
        let _ = fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777));
        let start = std::process::id() % 500;
        for n in 0..500 {
            let first = 20_000 + u16::try_from((start + n * 7) % 500).unwrap() * Self::SIZE;
            let path = dir.join(format!("{first}.lock"));
            let Ok(file) = fs::OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
            else {
                continue;
            };
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
                continue;
            };
            let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
            if (first..first + Self::SIZE).all(free) {
                return Self { first, _lock: lock };
            }
        }
        panic!(
            "no {} free ports in a row between 20000 and 29999",
            Self::SIZE
        );
    }
}

/// One acc installation.
pub struct Fixture {
    /// Its folder; a short path, for unix sockets live below it.
    pub dir: PathBuf,
    /// How it is put together.
    pub combination: Combination,
    /// The binary its commands run.
    pub acc: PathBuf,
    /// Who runs its commands (user and group id), when not the caller.
    pub user: Option<u32>,
    ports: Ports,
    keep: bool,
    _memory: Option<tempfile::TempDir>,
}

impl Fixture {
    /// A booted fixture with the usual settings, or `None` when its programs are missing (the test
    /// is then skipped).
    #[track_caller]
    pub fn new(combination: Combination) -> Option<Self> {
        Self::with(combination, |_| {})
    }

    /// A booted fixture with these settings.
    #[track_caller]
    pub fn with(combination: Combination, change: impl FnOnce(&mut Settings)) -> Option<Self> {
        let fixture = Self::unbooted(combination, change)?;
        fixture.acc(&["boot"]).ok();
        Some(fixture)
    }

    /// A fixture with config and models, nothing running.
    #[track_caller]
    pub fn unbooted(combination: Combination, change: impl FnOnce(&mut Settings)) -> Option<Self> {
        if !combination.possible() {
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("acc")
            .rand_bytes(5)
            .tempdir_in("/tmp")
            .unwrap()
            .keep();
        // Instances may run as another user and must reach their folders through this one.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let mut settings = Settings::default();
        change(&mut settings);
        let memory = if settings.run_in_memory {
            in_memory()
        } else {
            None
        };
        if let Some(memory) = &memory {
            std::os::unix::fs::symlink(memory.path(), dir.join("run")).unwrap();
        }
        let fixture = Self {
            dir,
            combination,
            acc: PathBuf::from(ACC),
            user: None,
            ports: Ports::claim(),
            keep: false,
            _memory: memory,
        };
        fixture.configure(&settings);
        let tester = |listen: &str, address: &str| {
            TESTER.replace("LISTEN", listen).replace("ADDRESS", address)
        };
        fixture.model("tester", &tester("unix", r#""--socket", "{{ socket }}""#));
        fixture.model("tester-tcp", &tester("tcp", r#""--port", "{{ port }}""#));
        Some(fixture)
    }

    /// A booted one whose instances run as the user `nobody`, with the binary where that user may
    /// run it. As root only.
    pub fn of_tenants(
        combination: Combination,
        change: impl FnOnce(&mut Settings),
    ) -> Option<Self> {
        let mut fixture = Self::unbooted(combination, |settings| {
            settings.top = "user = \"nobody\"".into();
            change(settings);
        })?;
        let theirs = fixture.dir.join("acc");
        fs::copy(&fixture.acc, &theirs).unwrap();
        fixture.acc = theirs;
        fixture.acc(&["boot"]).ok();
        Some(fixture)
    }

    /// Writes the config.
    pub fn configure(&self, settings: &Settings) {
        let Settings {
            idle,
            min_awake,
            check_every,
            silent_connections,
            wake_timeout,
            page_after,
            max_waiting,
            drain,
            stop_timeout,
            max_body,
            edge: more,
            top,
            rules,
            ports,
            run_in_memory: _,
        } = settings;
        let (dir, listen) = (self.dir.display(), self.address());
        let Combination { edge, supervisor } = self.combination;
        let own = format!(
            "{}-{}",
            self.ports.first + 1,
            self.ports.first + Ports::SIZE - 1
        );
        let ports = if ports.is_empty() { &own } else { ports };
        let text = format!(
            r#"home = "{dir}/home"
run = "{dir}/run"
domain = "apps.localhost"
{top}
[edge]
kind = "{edge}"
listen = ["{listen}"]
max_body = "{max_body}"
{more}
[supervisor]
kind = "{supervisor}"
[idle]
timeout = "{idle}"
min_awake = "{min_awake}"
check_every = "{check_every}"
silent_connections = "{silent_connections}"
[wake]
timeout = "{wake_timeout}"
page_after = "{page_after}"
max_waiting = {max_waiting}
[stop]
drain = "{drain}"
timeout = "{stop_timeout}"
[ports]
range = "{ports}"
{rules}
"#
        );
        fs::write(self.config(), text).unwrap();
    }

    /// Its config file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("acc.toml")
    }

    /// `home`.
    pub fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    /// `run`.
    pub fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Where its edge listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.first))
    }

    /// First of the ports it may give to instances.
    pub fn first_port(&self) -> u16 {
        self.ports.first + 1
    }

    /// Adds or replaces a model.
    pub fn model(&self, name: &str, text: &str) -> PathBuf {
        let dir = self.home().join("models").join(name);
        fs::create_dir_all(&dir).unwrap();
        // acc refuses a home that others can write to, whatever the umask of whoever runs the
        // tests.
        let _ = fs::set_permissions(self.home(), fs::Permissions::from_mode(0o755));
        fs::write(dir.join("model.toml"), text).unwrap();
        dir
    }

    /// An acc command on this fixture, not yet run; its environment is empty but for a usual
    /// `PATH`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        #[expect(
            clippy::disallowed_methods,
            reason = "coverage and sanitizers pass their settings to the binary this way"
        )]
        let passed = std::env::var_os("LLVM_PROFILE_FILE");
        let mut command = Command::new(&self.acc);
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", &self.dir);
        command.envs(passed.map(|v| ("LLVM_PROFILE_FILE", v)));
        command
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            .current_dir(&self.dir);
        if let Some(id) = self.user {
            command.uid(id).gid(id);
        }
        command
    }

    /// Runs an acc command to its end.
    #[track_caller]
    pub fn acc(&self, arguments: &[&str]) -> run::Done {
        run::run(&mut self.command(arguments), COMMAND)
    }

    /// Runs a command with `--json` and reads what it prints.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let done = self.acc(&[arguments, &["--json"]].concat()).ok();
        serde_json::from_str(&done.out)
            .unwrap_or_else(|e| panic!("`{}` prints no JSON ({e}): {}", done.what, done.out))
    }

    /// Creates an instance of this model and checks that it was awake: with a short idle timeout it
    /// may sleep again by now.
    #[track_caller]
    pub fn create(&self, name: &str, model: &str) -> Value {
        self.acc(&["create", name, "--model", model]).ok();
        let info = self.info(name);
        assert_eq!(info["wakes"], 1, "{info}");
        info
    }

    /// What `acc info` says.
    #[track_caller]
    pub fn info(&self, name: &str) -> Value {
        self.json(&["info", name])
    }

    /// `acc monitor`, again while a monitor run of the server is in progress.
    #[track_caller]
    pub fn monitor(&self) -> super::run::Done {
        wait_until("a monitor run", SOON, || {
            let done = self.acc(&["monitor"]).ok();
            if done.err.contains("is in progress") {
                Err(done.err)
            } else {
                Ok(done)
            }
        })
    }

    /// The phase.
    #[track_caller]
    pub fn phase(&self, name: &str) -> String {
        self.info(name)["phase"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The process id of an awake instance.
    #[track_caller]
    pub fn pid(&self, name: &str) -> i32 {
        let info = self.info(name);
        i32::try_from(
            info["pid"]
                .as_i64()
                .unwrap_or_else(|| panic!("no pid: {info}")),
        )
        .unwrap()
    }

    /// Waits until the instance is in this phase.
    #[track_caller]
    pub fn wait_phase(&self, name: &str, phase: &str) {
        wait_until(&format!("`{name}` is {phase}"), SOON, || {
            let info = self.info(name);
            holds(info["phase"] == phase, info)
        });
    }

    /// Runs monitor passes until the instance has been put to sleep.
    #[track_caller]
    pub fn monitor_until_asleep(&self, name: &str) {
        wait_until(
            &format!("`acc monitor` puts `{name}` to sleep"),
            SOON,
            || {
                let done = self.acc(&["monitor"]).ok();
                let info = self.info(name);
                holds(
                    info["phase"] == "asleep",
                    format!("{info} {}{}", done.out, done.err),
                )
            },
        );
    }

    /// The host of an instance, with the port, as a browser sends it.
    pub fn host(&self, name: &str) -> String {
        format!("{name}.apps.localhost:{}", self.ports.first)
    }

    /// A request to an instance.
    pub fn ask(&self, method: &str, name: &str, target: &str) -> Ask {
        Ask::new(method, &self.host(name), target)
    }

    /// Sends a request.
    #[track_caller]
    pub fn send(&self, ask: &Ask) -> Reply {
        ask.send(self.address())
            .unwrap_or_else(|e| panic!("no answer to {ask:.200?}: {e}"))
    }

    /// GETs a target of an instance.
    #[track_caller]
    pub fn get(&self, name: &str, target: &str) -> Reply {
        self.send(&self.ask("GET", name, target))
    }

    /// Opens a WebSocket to an instance.
    #[track_caller]
    pub fn web_socket(&self, name: &str) -> ws::Socket {
        ws::Socket::open(self.address(), &self.host(name))
    }

    /// The folder of an instance.
    pub fn instance(&self, name: &str) -> PathBuf {
        self.home().join("instances").join(name)
    }

    /// Lines of the tester's own log that begin with this word (`START`, `REQ`, `TERM`, `EXIT`).
    pub fn told(&self, name: &str, word: &str) -> Vec<String> {
        let text =
            fs::read_to_string(self.instance(name).join("data/demo.log")).unwrap_or_default();
        text.lines()
            .filter(|l| l.split(' ').next() == Some(word))
            .map(str::to_owned)
            .collect()
    }

    /// The process of `acc server`.
    pub fn server(&self) -> Option<processes::Seen> {
        let acc = self.acc.file_name().unwrap().to_str().unwrap();
        let found = processes::of(&self.dir).into_iter().filter(|p| {
            p.command
                .split(' ')
                .next()
                .is_some_and(|c| c.rsplit('/').next() == Some(acc))
        });
        found
            .into_iter()
            .find(|p| p.command.split(' ').any(|w| w == "server" || w == "serve"))
    }

    /// The process id of the master of the server that works: it writes it into its lock.
    #[track_caller]
    pub fn master(&self) -> i32 {
        wait_until("the master's lock is signed", SOON, || {
            let text = fs::read_to_string(self.run().join("server.lock")).unwrap_or_default();
            text.trim().parse().map_err(|_| text)
        })
    }

    /// Kills the server that works: the master together with its workers, of which it would make
    /// others.
    #[track_caller]
    pub fn kill_server(&self) -> i32 {
        use nix::sys::signal::Signal;
        let master = self.master();
        processes::signal(master, Signal::SIGSTOP);
        let workers: Vec<_> = processes::of(&self.dir)
            .into_iter()
            .filter(|p| p.command.contains(" worker --sockets "))
            .collect();
        // A child of one that has yet to become the program of an instance looks like its parent,
        // and is not meant.
        let meant = workers
            .iter()
            .filter(|p| !workers.iter().any(|parent| parent.pid == p.parent));
        let mut all: Vec<i32> = meant.map(|p| p.pid).collect();
        all.push(master);
        all.iter()
            .for_each(|pid| processes::signal(*pid, Signal::SIGKILL));
        wait_until("the server is dead", SOON, || {
            holds(
                !all.iter().any(|pid| processes::alive(*pid)),
                format!("{all:?}"),
            )
        });
        master
    }

    /// Waits for the server to be up again, with another process id than `before`, and to answer.
    #[track_caller]
    pub fn wait_server(&self, before: Option<i32>) -> i32 {
        wait_until("the server is up", SOON, || {
            let server = self
                .server()
                .filter(|s| Some(s.pid) != before)
                .ok_or("no new server process")?;
            let socket = std::os::unix::net::UnixStream::connect(self.run().join("control.sock"));
            socket
                .map(|_| server.pid)
                .map_err(|_| "nobody listens on its control socket")
        })
    }

    /// Panics when a process of this fixture lives.
    #[track_caller]
    pub fn assert_nothing_runs(&self) {
        wait_until("no process is left", Duration::from_secs(5), || {
            let left = processes::of(&self.dir);
            holds(left.is_empty(), format!("{left:#?}"))
        });
    }

    /// Panics when a file, folder or text below `home` and `run` (database and acc's own logs left
    /// out) names the instance.
    #[track_caller]
    pub fn assert_no_trace_of(&self, name: &str) {
        let mut traces = Vec::new();
        search(&self.home(), name, &mut traces);
        search(&self.run(), name, &mut traces);
        assert!(traces.is_empty(), "left of `{name}`: {traces:#?}");
    }

    /// Halts; what is wrong with that, if anything.
    fn halt_fault(&self) -> Option<String> {
        let done = run::run(&mut self.command(&["halt"]), COMMAND);
        if done.code != Some(0) {
            return Some(format!("`acc halt` failed: {done:?}{}", self.report()));
        }
        let began = super::now();
        loop {
            let left = processes::of(&self.dir);
            if left.is_empty() {
                return None;
            }
            if began.elapsed() > Duration::from_secs(5) {
                return Some(format!("left after `acc halt`: {left:#?}{}", self.report()));
            }
            super::wait::pause(Duration::from_millis(20));
        }
    }

    /// What helps to understand a failure: the ends of all logs and what runs.
    fn report(&self) -> String {
        let mut text = format!(
            "\n==== the fixture {} ({:?})\n",
            self.dir.display(),
            self.combination
        );
        for process in processes::of(&self.dir) {
            text += &format!("{} {}\n", process.pid, process.command);
        }
        let mut logs = Vec::new();
        files(&self.home(), &mut logs);
        for log in logs
            .iter()
            .filter(|p| p.extension().is_some_and(|e| e == "log"))
        {
            let all = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = all.lines().collect();
            let end = &lines[lines.len().saturating_sub(40)..];
            text += &format!("---- {}\n{}\n", log.display(), end.join("\n"));
        }
        text
    }
}

impl Fixture {
    /// Removes the control groups that are left when acc was not halted in order.
    fn remove_groups(&self) {
        let noted = fs::read(self.dir.join("run/cgroup")).unwrap_or_default();
        for path in noted
            .split(|byte| *byte == 0)
            .filter_map(|path| std::str::from_utf8(path).ok())
            .filter(|path| !path.is_empty())
        {
            let groups = fs::read_dir(path)
                .into_iter()
                .flatten()
                .flatten()
                .filter(|entry| entry.path().is_dir());
            groups.for_each(|group| drop(fs::remove_dir(group.path())));
            let _ = fs::remove_dir(path);
        }
    }
}

impl Drop for Fixture {
    /// Halts in order, so that every test also tests that halting leaves nothing behind.
    fn drop(&mut self) {
        let mut fault = None;
        if std::thread::panicking() {
            eprintln!("{}", self.report());
            self.keep = keep_failed();
        } else if self.config().is_file() {
            fault = self.halt_fault();
        }
        processes::end_all(&self.dir);
        self.remove_groups();
        if !self.keep {
            let _ = fs::remove_dir_all(&self.dir);
        }
        if let Some(fault) = fault {
            panic!("{fault}");
        }
    }
}

/// A folder in memory that everybody may pass through; `None`: this host has no place for one.
pub fn in_memory() -> Option<tempfile::TempDir> {
    let dir = tempfile::Builder::new()
        .prefix("acc")
        .rand_bytes(5)
        .tempdir_in("/dev/shm")
        .ok()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).ok()?;
    Some(dir)
}

/// With `ACC_TEST_KEEP` set the folder of a failed fixture stays.
#[expect(
    clippy::disallowed_methods,
    reason = "a switch for people who look into a failure"
)]
fn keep_failed() -> bool {
    std::env::var_os("ACC_TEST_KEEP").is_some()
}

/// All plain files below `dir`; sockets and links are not followed.
pub fn files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path(), into),
            Ok(kind) if kind.is_file() => into.push(entry.path()),
            _ => {}
        }
    }
}

/// Names and texts below `dir` that hold `name`.
fn search(dir: &Path, name: &str, traces: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let own = path.file_name().unwrap().to_string_lossy().into_owned();
        if own.contains(name) {
            traces.push(path.display().to_string());
        }
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        // The database keeps the events, and acc's own logs may tell what happened.
        if own.starts_with("acc.db") || own == "log" || own == "models" || own.ends_with(".log") {
            continue;
        }
        if kind.is_dir() {
            search(&path, name, traces);
        } else if kind.is_file()
            && fs::read(&path).is_ok_and(|b| String::from_utf8_lossy(&b).contains(name))
        {
            traces.push(format!("{} (in its text)", path.display()));
        }
    }
}
