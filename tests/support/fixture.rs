//! A fixture: one acc installation in its own folder and on its own ports, ended and removed when
//! the value is dropped.

mod end;
mod ports;
mod server;
mod settings;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::http::{Ask, Reply};
use super::wait::{holds, wait_until};
use super::{need, processes, run, ws};
use ports::Ports;
pub use settings::{Combination, Settings};

/// The binary under test.
pub const ACC: &str = env!("CARGO_BIN_EXE_acc");
/// Longest time a command may take.
pub const COMMAND: Duration = Duration::from_secs(60);
/// Longest time until a change is visible.
pub const SOON: Duration = Duration::from_secs(20);

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

/// One acc installation.
pub struct Fixture {
    /// Its folder; a short path, because unix sockets are below it.
    pub dir: PathBuf,
    /// Its edge and supervisor.
    pub combination: Combination,
    /// The binary its commands run.
    pub acc: PathBuf,
    /// The user (and group) id that runs its commands, if not the caller.
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

    /// A booted fixture whose instances run as the user `nobody`, with the binary in a place where
    /// that user can run it. Only as root.
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

    /// The address on which its edge listens.
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
        // acc refuses a home that others can write to; the caller's umask might allow that.
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

    /// Creates an instance of this model and checks that it was awake: with a short idle timeout
    /// the instance may sleep again by now.
    #[track_caller]
    pub fn create(&self, name: &str, model: &str) -> Value {
        self.acc(&["create", name, "--model", model]).ok();
        let info = self.info(name);
        assert_eq!(info["wakes"], 1, "{info}");
        info
    }

    /// The output of `acc info`.
    #[track_caller]
    pub fn info(&self, name: &str) -> Value {
        self.json(&["info", name])
    }

    /// Runs `acc monitor`, repeatedly while a monitor run of the server is in progress.
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

    /// The process id of an awake instance. Its row may be a little behind the answer to a request.
    #[track_caller]
    pub fn pid(&self, name: &str) -> i32 {
        let mut pid = None;
        wait_until(&format!("`{name}` has a pid"), SOON, || {
            let info = self.info(name);
            pid = info["pid"].as_i64();
            holds(pid.is_some(), info)
        });
        i32::try_from(pid.unwrap()).unwrap()
    }

    /// Waits until the instance is in this phase.
    #[track_caller]
    pub fn wait_phase(&self, name: &str, phase: &str) {
        wait_until(&format!("`{name}` is {phase}"), SOON, || {
            let info = self.info(name);
            holds(info["phase"] == phase, info)
        });
    }

    /// Runs `acc monitor` until the instance has been put to sleep.
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
}

/// A folder in memory that every user may enter; `None`: this host has no place for one.
pub fn in_memory() -> Option<tempfile::TempDir> {
    let dir = tempfile::Builder::new()
        .prefix("acc")
        .rand_bytes(5)
        .tempdir_in("/dev/shm")
        .ok()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).ok()?;
    Some(dir)
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
