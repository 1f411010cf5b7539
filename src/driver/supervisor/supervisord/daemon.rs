//! supervisord itself: finds it, checks its version, starts it, ends it.
//!
//! A supervisord that runs but does not answer is reported and left alone: it may hold the
//! processes of every instance. One whose socket was removed can never be reached again: acc
//! replaces it, and its programs continue.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::instance::Process;
use crate::domain::model::one_line;
use crate::host::command::{self, PATH};
use crate::host::error_chain::chain;
use crate::host::fs::{make_dir, remove_file, write_atomic};
use crate::host::lockfile::{self, Held};
use crate::host::process;

use super::super::SupervisorError;
use super::group::unreachable;
use super::rpc::{RpcClient, RpcError};
use super::xmlrpc::fault;

/// The oldest major version that acc supports: the first on Python 3.
const OLDEST: u32 = 4;
/// How long Python may take to load it.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two checks of a lock that another process holds.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// How long its programs may take to end; it stops one after the other.
const END_LIMIT: Duration = Duration::from_secs(180);
/// How long it must be without its socket before it is replaced. It makes the socket before it goes
/// into the background, and removes it when it ends.
const DEAF: Duration = Duration::from_millis(300);
/// How long a killed one may take to disappear.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// Limit of open files of the daemon: two for each process it runs.
const DESCRIPTORS: u64 = 65_536;

/// Where the daemon is, and the connection to it.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) config: PathBuf,
    pub(super) pid_file: PathBuf,
    pub(super) client: RpcClient,
    /// The program; `None`: searched for.
    pub(super) program: Option<PathBuf>,
}

/// Whether it can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It answers.
    Answers,
    /// It is certain that it does not run.
    Gone,
    /// It runs, but its socket was removed: it can never be reached again.
    Deaf(Process),
}

impl Daemon {
    /// Finds the process by its pid file; a file with the pid of another program is stale. If a
    /// cleaner removed the file, searches all processes.
    pub(super) fn process(&self) -> Result<Option<Process>, SupervisorError> {
        let text = match std::fs::read_to_string(&self.pid_file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return self.search(),
            Err(source) => {
                return Err(SupervisorError::File {
                    action: "read",
                    path: self.pid_file.clone(),
                    source,
                });
            }
        };
        let Some(pid) = text.trim().parse().ok().filter(|pid: &i32| *pid > 1) else {
            return Ok(None);
        };
        let Some(found) = process::by_pid(pid).map_err(|e| kernel(&pid.to_string(), &e))? else {
            return Ok(None);
        };
        Ok(self.is_ours(pid).then_some(found))
    }

    /// Whether it was started with our configuration.
    fn is_ours(&self, pid: i32) -> bool {
        let config = self.config.as_os_str().as_encoded_bytes();
        words(pid).iter().any(|word| word == config)
    }

    /// Searches for a supervisord of this user with our configuration. Ignores a child of it that
    /// has yet to become its program.
    fn search(&self) -> Result<Option<Process>, SupervisorError> {
        let found: Vec<i32> = process::pids()
            .map_err(|e| kernel("all processes", &e))?
            .filter(|pid| self.is_daemon(*pid))
            .collect();
        let parent = |pid: i32| process::stat(pid).ok().flatten().map(|seen| seen.parent);
        let first = found
            .iter()
            .find(|pid| parent(**pid).is_none_or(|parent| !found.contains(&parent)));
        first.map_or(Ok(None), |pid| {
            process::by_pid(*pid).map_err(|e| kernel(&pid.to_string(), &e))
        })
    }

    fn is_daemon(&self, pid: i32) -> bool {
        let words = words(pid);
        let config = self.config.as_os_str().as_encoded_bytes();
        let Some(at) = words
            .iter()
            .position(|word| word == config)
            .filter(|at| *at >= 2)
        else {
            return false;
        };
        let named = self
            .program
            .as_deref()
            .and_then(Path::file_name)
            .unwrap_or("supervisord".as_ref());
        let own = rustix::process::geteuid().as_raw();
        words.get(at - 1).is_some_and(|word| word == b"-c")
            && words
                .iter()
                .take(at)
                .any(|word| Path::new(OsStr::from_bytes(word)).file_name() == Some(named))
            && std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|data| data.uid() == own)
    }

    /// Rewrites its pid file if it was removed.
    pub(super) fn note(&self) -> Result<(), SupervisorError> {
        let path = || self.pid_file.clone();
        match self.process()? {
            Some(process) if !self.pid_file.exists() => {
                let text = format!("{}\n", process.pid);
                write_atomic(&self.pid_file, text.as_bytes(), 0o644).map_err(|source| {
                    SupervisorError::File {
                        action: "write",
                        path: path(),
                        source,
                    }
                })
            }
            _ => Ok(()),
        }
    }

    /// Kills one that cannot be reached any more. Its programs continue, and the next supervisord
    /// takes them over.
    pub(super) async fn end_deaf(&self, process: Process) -> Result<(), SupervisorError> {
        tracing::warn!(pid = process.pid, socket = %self.client.socket().display(), "supervisord has lost its socket; starting another one");
        process::signal_one(process, libc::SIGKILL)
            .map_err(|e| kernel(&process.pid.to_string(), &e))?;
        match tokio::time::timeout(KILL_WAIT, process::ended(process)).await {
            Ok(ended) => ended
                .map(drop)
                .map_err(|e| kernel(&process.pid.to_string(), &e)),
            Err(_) => Err(kernel(
                &process.pid.to_string(),
                &std::io::Error::other("it does not exit, even after SIGKILL"),
            )),
        }
    }

    /// Waits at most a second until a child that supervisord has just forked has become its
    /// program. Until then it has supervisord's signal handlers and may not lead its group yet, so
    /// a stop signal would be lost.
    pub(super) async fn settled(&self, process: Process) {
        for _ in 0..1000 {
            if !self.is_ours(process.pid) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Checks that it answers or certainly does not run; an error in all other cases.
    pub(super) async fn presence(&self) -> Result<Presence, SupervisorError> {
        // An open connection may still work, but a new one would fail.
        if let Some(process) = self.deaf().await? {
            return Ok(Presence::Deaf(process));
        }
        match self.client.call("supervisor.getState", &[]).await {
            Ok(_) => Ok(Presence::Answers),
            Err(error) => self.gone_after(&error).map(|()| Presence::Gone),
        }
    }

    /// Finds one that has run without its socket for longer than at its start or end. One in the
    /// foreground is left alone: the process that runs it restarts it, with all it runs.
    async fn deaf(&self) -> Result<Option<Process>, SupervisorError> {
        let without = || std::fs::symlink_metadata(self.client.socket()).is_err();
        let Some(process) = (if without() { self.process()? } else { None }) else {
            return Ok(None);
        };
        if words(process.pid).iter().any(|word| word == b"-n") {
            return Ok(None);
        }
        tokio::time::sleep(DEAF).await;
        Ok(if without() {
            self.process()?.filter(|now| *now == process)
        } else {
            None
        })
    }

    /// Succeeds if this error proves that supervisord does not run.
    pub(super) fn gone_after(&self, error: &RpcError) -> Result<(), SupervisorError> {
        if !matches!(error, RpcError::Absent(_)) {
            return Err(unreachable(&self.client, error));
        }
        match self.process()? {
            None => Ok(()),
            Some(process) => Err(SupervisorError::Unreachable {
                what: format!("supervisord on `{}`", self.client.socket().display()),
                why: format!(
                    "process {} is running but does not listen there; if this persists, restart it",
                    process.pid
                ),
            }),
        }
    }

    /// Whether another process, or another task of this one, is starting it.
    pub(super) fn is_starting(&self) -> Result<bool, SupervisorError> {
        Ok(self.try_start_lock()?.is_none())
    }

    /// Held during a start: two starts at once would remove each other's socket.
    pub(super) async fn alone(&self) -> Result<Held, SupervisorError> {
        let mut waited = Duration::ZERO;
        loop {
            match self.try_start_lock()? {
                Some(lock) => return Ok(lock),
                None if waited < START_LIMIT * 2 => {}
                None => return Err(self.not_locked(std::io::ErrorKind::TimedOut.into())),
            }
            tokio::time::sleep(LOCK_PAUSE).await;
            waited += LOCK_PAUSE;
        }
    }

    fn start_lock(&self) -> PathBuf {
        self.pid_file.with_extension("lock")
    }

    fn not_locked(&self, source: std::io::Error) -> SupervisorError {
        SupervisorError::File {
            action: "lock",
            path: self.start_lock(),
            source,
        }
    }

    fn try_start_lock(&self) -> Result<Option<Held>, SupervisorError> {
        let path = self.start_lock();
        if let Some(dir) = path.parent() {
            make_dir(dir, 0o755).map_err(|e| self.not_locked(e))?;
        }
        lockfile::try_hold(&path).map_err(|e| self.not_locked(e))
    }

    /// Starts it and returns once it answers. Its configuration must be complete; only supervisord
    /// checks it.
    pub(super) async fn start(&self) -> Result<(), SupervisorError> {
        let program = self.find_program()?;
        self.clear()?;
        let argv = [
            program.display().to_string(),
            "-c".to_owned(),
            self.config.display().to_string(),
        ];
        let output = command::run(&argv, START_LIMIT)
            .await
            .map_err(|e| unusable(&format!("supervisord does not start: {}", chain(&e))))?;
        if !output.success() {
            let said = one_line(&format!("{} {}", output.stderr, output.stdout));
            return Err(unusable(&format!("supervisord does not start: {said}")));
        }
        self.wait_for_answer().await?;
        if let Some(process) = self.process()?
            && let Err(error) = raise_descriptors(process)
        {
            tracing::warn!(%error, "could not raise supervisord's limit of open files; it can run only a few hundred instances at once");
        }
        Ok(())
    }

    async fn wait_for_answer(&self) -> Result<(), SupervisorError> {
        let mut pause = Duration::from_millis(2);
        let mut waited = Duration::ZERO;
        loop {
            match self.client.call("supervisor.getState", &[]).await {
                // It writes the pid file last.
                Ok(_) if self.process()?.is_some() || waited >= START_LIMIT => return Ok(()),
                Err(error) if waited >= START_LIMIT => {
                    return Err(unreachable(&self.client, &error));
                }
                _ => {}
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn find_program(&self) -> Result<PathBuf, SupervisorError> {
        let found = self
            .program
            .clone()
            .or_else(|| command::find_program("supervisord"));
        found.ok_or_else(|| {
            unusable("supervisord is not installed: install the package `supervisor`, or set `kind = \"builtin\"` under `[supervisor]`")
        })
    }

    /// Finds the program and checks its version.
    pub(super) async fn program(&self) -> Result<PathBuf, SupervisorError> {
        let program = self.find_program()?;
        let argv = [program.display().to_string(), "--version".to_owned()];
        let output = command::run(&argv, START_LIMIT)
            .await
            .map_err(|e| unusable(&chain(&e)))?;
        let version = one_line(&output.stdout);
        match major(&version) {
            Some(major) if major >= OLDEST => Ok(program),
            Some(_) => Err(unusable(&format!(
                "supervisord is version {version}, acc needs {OLDEST}.0 or later"
            ))),
            None => Err(unusable(&format!(
                "`{}` does not report its version: {}",
                program.display(),
                one_line(&output.stderr)
            ))),
        }
    }

    /// Makes its folders and removes what an earlier one left.
    pub(super) fn clear(&self) -> Result<(), SupervisorError> {
        for path in [self.client.socket(), &self.pid_file] {
            if let Some(dir) = path.parent() {
                make_dir(dir, 0o755).map_err(|source| SupervisorError::File {
                    action: "make",
                    path: dir.to_owned(),
                    source,
                })?;
            }
            remove_file(path).map_err(|source| SupervisorError::File {
                action: "remove",
                path: path.to_owned(),
                source,
            })?;
        }
        Ok(())
    }

    /// Ends it and its programs, and waits for the end. If it is not running, that is success.
    pub(super) async fn halt(&self) -> Result<(), SupervisorError> {
        let process = self.process()?;
        match self.client.call("supervisor.shutdown", &[]).await {
            Ok(_) => {}
            Err(error) if error.code() == Some(fault::SHUTDOWN) => {}
            Err(error) => match self.deaf().await? {
                // SIGTERM ends it like a shutdown by RPC.
                Some(process) => process::signal_one(process, libc::SIGTERM)
                    .map_err(|e| kernel(&process.pid.to_string(), &e))?,
                None => return self.gone_after(&error),
            },
        }
        let Some(process) = process else {
            return Ok(());
        };
        let ended = tokio::time::timeout(END_LIMIT, process::ended(process)).await;
        match ended {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(SupervisorError::Unreachable {
                what: format!("the kernel about process {}", process.pid),
                why: e.to_string(),
            }),
            Err(_) => Err(SupervisorError::Unreachable {
                what: format!("supervisord on `{}`", self.client.socket().display()),
                why: format!("it did not exit within {} s", END_LIMIT.as_secs()),
            }),
        }
    }

    /// The command that runs it in the foreground, for systemd, with an environment of its own.
    pub(super) fn foreground_argv(&self) -> Vec<String> {
        let program = self
            .program
            .clone()
            .or_else(|| command::find_program("supervisord"))
            .unwrap_or_else(|| PathBuf::from("supervisord"));
        let env = command::find_program("env").unwrap_or_else(|| PathBuf::from("/usr/bin/env"));
        let text = |path: &Path| path.display().to_string();
        let path = format!("PATH={PATH}");
        [
            &text(&env),
            "-i",
            &path,
            "LC_ALL=C.UTF-8",
            &text(&program),
            "-n",
            "-c",
            &text(&self.config),
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

/// The arguments of a process's command line.
fn words(pid: i32) -> Vec<Vec<u8>> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|b| *b == 0).map(<[u8]>::to_vec).collect()
}

fn kernel(what: &str, why: &std::io::Error) -> SupervisorError {
    SupervisorError::Unreachable {
        what: format!("the kernel about process {what}"),
        why: why.to_string(),
    }
}

fn raise_descriptors(process: Process) -> std::io::Result<()> {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = Pid::from_raw(process.pid);
    let own = rustix::process::getrlimit(Resource::Nofile);
    let most = own
        .maximum
        .map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    prlimit(
        pid,
        Resource::Nofile,
        Rlimit {
            current: Some(most),
            maximum: own.maximum,
        },
    )?;
    Ok(())
}

fn unusable(text: &str) -> SupervisorError {
    SupervisorError::Unusable(text.to_owned())
}

/// `4.2.5` -> 4.
fn major(version: &str) -> Option<u32> {
    version.split(['.', ' ']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, expected) in [
            ("4.2.5", Some(4)),
            ("3.3.1", Some(3)),
            ("5", Some(5)),
            ("", None),
            ("usage: x", None),
        ] {
            assert_eq!(major(text), expected, "{text}");
        }
    }
}
