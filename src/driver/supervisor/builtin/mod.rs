//! acc itself as the supervisor: each process runs in its own session, logs to a file, and is found
//! again by its pid file.
//!
//! Processes outlive acc: the next acc with the same folder of pid files finds them. It restarts
//! nothing by itself, and reading changes nothing, so another acc may read at the same time.

mod launched;
mod services;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use acc_launch::LaunchRequest;
use async_trait::async_trait;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::domain::account::Account;
use crate::domain::instance::{Exit, Process, RunId};
use crate::domain::name::InstanceName;
use crate::host::fs::make_dir;
use crate::host::process;
use crate::host::rotate;
use crate::host::spawn::UserIds;

use super::launcher;
use super::locks::Locks;
use super::members::{FirstProcess, InstanceMembers, Membership};
use super::{
    Capabilities, Program, Runner, SupervisorError, pid_file, preflight, process_of, program_path,
};

/// How long a launcher without a waiting task may take to become its program, and the pause between
/// two checks.
const CLAIM_LIMIT: Duration = Duration::from_secs(5);
const CLAIM_PAUSE: Duration = Duration::from_millis(2);
/// When to check whether such a launcher was stopped.
const STOPPED_AFTER: Duration = Duration::from_secs(1);
/// How long a killed service may take to disappear.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// The builtin supervisor.
#[derive(Debug)]
pub struct Builtin {
    pid_dir: PathBuf,
    log_max: u64,
    /// What replaces the launcher where files in memory must not be executed: program and first
    /// arguments.
    standin: Vec<String>,
    members: InstanceMembers,
    locks: Locks,
}

/// What the start of an instance and of a service have in common.
struct Start<'a> {
    name: &'a str,
    pid_path: PathBuf,
    program: PathBuf,
    args: &'a [String],
    env: &'a [(String, String)],
    log: &'a Path,
    user: Option<UserIds>,
    /// `None`: a service.
    instance: Option<(&'a Program, &'a Membership)>,
}

impl Builtin {
    /// Makes a supervisor with its pid files in `pid_dir` (made when first needed), which rotates
    /// logs beyond `log_max` bytes. `standin`: a command that calls [`super::launch`] with its last
    /// argument, for hosts where the launcher itself must not be executed.
    #[must_use]
    pub fn new(pid_dir: PathBuf, log_max: u64, standin: Vec<String>) -> Self {
        Self {
            members: InstanceMembers::of(&pid_dir),
            pid_dir,
            log_max,
            standin,
            locks: Locks::default(),
        }
    }

    /// Uses this way to find the processes of instances.
    #[cfg(test)]
    pub(super) fn with_members(mut self, members: InstanceMembers) -> Self {
        self.members = members;
        self
    }

    /// Starts the launcher, completes the pid file, and waits until the launcher has become the
    /// program.
    async fn spawn(&self, start: &Start<'_>) -> Result<Process, SupervisorError> {
        let file_error = |action, path: &Path| {
            let path = path.to_owned();
            move |source| SupervisorError::File {
                action,
                path,
                source,
            }
        };
        // The log is made and given to the user here; the launcher opens it again.
        rotate::open(start.log, self.log_max, start.user.as_ref())
            .map_err(file_error("open", start.log))?;
        let pid_file =
            claim_pid_file(&start.pid_path).map_err(file_error("write", &start.pid_path))?;
        let not_started = |why: String| {
            let _ = pid_file::remove(&start.pid_path);
            SupervisorError::NotStarted {
                name: start.name.to_owned(),
                why,
            }
        };
        let started = self
            .request(start)
            .and_then(|request| launched::start(&request.text(), &pid_file, &self.standin));
        let (process, report) = started
            .map_err(|source| not_started(format!("could not start its launcher: {source}")))?;
        // Overwrites the pid that the launcher writes first: a reader sees the short form or all of
        // it.
        if let Err(source) = pid_file.write_all_at(pid_file::text(process, start.log).as_bytes(), 0)
        {
            // To the caller it was never started.
            let _ = process::signal_group(process, libc::SIGKILL);
            return Err(file_error("write", &start.pid_path)(source));
        }
        // If the caller stops waiting, the pid file is complete, and the process becomes its
        // program or is ended by the launcher.
        launched::became_program(process, report)
            .await
            .map_err(not_started)?;
        Ok(process)
    }

    /// The request for the launcher.
    fn request(&self, start: &Start<'_>) -> io::Result<LaunchRequest> {
        let plain = launcher::request(&start.program, start.args, start.env, start.log)?;
        let Some((program, entry)) = start.instance else {
            return Ok(plain);
        };
        let (user, run) = (start.user.as_ref(), self.pid_dir.parent());
        launcher::instance(plain, program, user, &entry.join, run)
    }

    /// Returns the process of this pid file once no start is under way. An acc that was killed
    /// right after it started a launcher leaves one that has yet to write its pid and to become its
    /// program. If it was stopped meanwhile, it is killed.
    async fn living(what: &str, path: &Path) -> Result<Option<Process>, SupervisorError> {
        let mut waited = Duration::ZERO;
        loop {
            let text = unclaimed(path).map_err(|source| SupervisorError::File {
                action: "read",
                path: path.to_owned(),
                source,
            })?;
            if let Some(text) = text {
                return pid_file::living_by(&text);
            }
            if waited == STOPPED_AFTER {
                launched::kill_stopped(path);
            }
            if waited >= CLAIM_LIMIT {
                return Err(unreachable(what, "its start does not finish"));
            }
            tokio::time::sleep(CLAIM_PAUSE).await;
            waited += CLAIM_PAUSE;
        }
    }

    fn pid_path(&self, name: &InstanceName) -> PathBuf {
        pid_file::instance_file(&self.pid_dir, name)
    }

    /// Waits for an expected end, and kills the process if it does not end in time.
    async fn end(what: &str, process: Process, patience: Duration) -> Result<(), SupervisorError> {
        if tokio::time::timeout(patience, ended(what, process))
            .await
            .is_ok_and(|r| r.is_ok())
        {
            return Ok(());
        }
        signal(what, process, libc::SIGKILL)?;
        match tokio::time::timeout(KILL_WAIT, ended(what, process)).await {
            Ok(result) => result.map(drop),
            Err(_) => Err(unreachable(what, "it does not exit, even after SIGKILL")),
        }
    }
}

/// Makes an empty, locked pid file. The launcher holds the lock too, until it has become its
/// program.
fn claim_pid_file(path: &Path) -> io::Result<Flock<File>> {
    let open = || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
    };
    let file = match open() {
        // The first start since the host booted.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            make_dir(path.parent().unwrap_or(Path::new("/")), 0o700)?;
            open()?
        }
        other => other?,
    };
    // No start is under way; a reader may hold the lock briefly.
    let file =
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
    // Not if it is empty: when a truncated file is closed, ext4 writes its data to disk, which
    // takes longer than a spawn.
    if file.metadata()?.len() > 0 {
        file.set_len(0)?;
    }
    Ok(file)
}

/// Reads a pid file, "" if there is none; `None`: a start with it is under way.
fn unclaimed(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(String::new())),
        Err(e) => return Err(e),
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(file) => io::read_to_string(&*file).map(Some),
        Err((_, Errno::EAGAIN)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

fn unreachable(what: &str, why: impl ToString) -> SupervisorError {
    SupervisorError::Unreachable {
        what: format!("the kernel about `{what}`"),
        why: why.to_string(),
    }
}

fn signal(name: &str, process: Process, signal: i32) -> Result<(), SupervisorError> {
    process::signal_group(process, signal).map_err(|e| unreachable(name, e))
}

async fn ended(name: &str, process: Process) -> Result<Exit, SupervisorError> {
    process::ended(process)
        .await
        .map_err(|e| unreachable(name, e))
}

#[async_trait]
impl FirstProcess for Builtin {
    async fn runs(&self, name: &InstanceName) -> Result<bool, SupervisorError> {
        Ok(Self::living(name.as_str(), &self.pid_path(name))
            .await?
            .is_some())
    }
}

#[async_trait]
impl Runner for Builtin {
    fn capabilities(&self) -> Capabilities {
        Capabilities::LAUNCHED
    }

    async fn start(&self, program: &Program) -> Result<RunId, SupervisorError> {
        let _held = self.locks.lock(program.name.as_str()).await;
        let pid_path = self.pid_path(&program.name);
        if let Some(running) = Self::living(program.name.as_str(), &pid_path).await? {
            return Ok(running.into());
        }
        let entry = self.members.enter(program, self).await?;
        let env = entry.environment(&program.env);
        let start = Start {
            name: program.name.as_str(),
            pid_path,
            program: program_path::path(program)?,
            args: program.argv.get(1..).unwrap_or_default(),
            env: &env,
            log: &program.log,
            user: preflight::user(program)?,
            instance: Some((program, &entry)),
        };
        // Look for the cause only after a failed start: nearly all succeed, and each check costs
        // wake time.
        let failed = |why| SupervisorError::NotStarted {
            name: program.name.to_string(),
            why,
        };
        self.spawn(&start)
            .await
            .map(RunId::from)
            .map_err(|e| preflight::explain(program).map_or(e, failed))
    }

    async fn find(&self, name: &InstanceName) -> Result<Option<RunId>, SupervisorError> {
        let _held = self.locks.lock(name.as_str()).await;
        let living = Self::living(name.as_str(), &self.pid_path(name)).await?;
        Ok(living.map(RunId::from))
    }

    async fn running(&self) -> Result<Vec<(InstanceName, RunId)>, SupervisorError> {
        let mut found = Vec::new();
        for name in pid_file::instances(&self.pid_dir)? {
            if let Some(run_id) = self.find(&name).await? {
                found.push((name, run_id));
            }
        }
        Ok(found)
    }

    async fn terminate(&self, program: &Program, run_id: &RunId) -> Result<(), SupervisorError> {
        let process = process_of(&program.name, run_id)?;
        let name = &program.name;
        // By now its group may be the next run's.
        if !process::is_same(process).map_err(|e| unreachable(name.as_str(), e))? {
            return Ok(());
        }
        self.members.ask_others(program, process);
        signal(name.as_str(), process, program.stop_signal)
    }

    async fn kill(
        &self,
        name: &InstanceName,
        account: &Account,
        run_id: &RunId,
    ) -> Result<(), SupervisorError> {
        let process = process_of(name, run_id)?;
        signal(name.as_str(), process, libc::SIGKILL)?;
        let _held = self.locks.lock(name.as_str()).await;
        // Never a process that was started under this name since.
        if Self::living(name.as_str(), &self.pid_path(name))
            .await?
            .is_some_and(|now| now != process)
        {
            return Ok(());
        }
        self.members
            .kill(name, account, Some(process))
            .map_err(|e| unreachable(name.as_str(), e))
    }

    async fn wait(
        &self,
        name: &InstanceName,
        account: &Account,
        run_id: &RunId,
    ) -> Result<Exit, SupervisorError> {
        let process = process_of(name, run_id)?;
        let asked = |e: io::Error| unreachable(name.as_str(), e);
        let held = process::hold(process).map_err(asked)?;
        let exit = tokio::select! {
            exit = held.exited() => exit.map_err(asked)?,
            () = self.members.ended_under_a_tracer(process) => Exit::Signal(libc::SIGKILL),
        };
        self.members
            .gone(name, account, process)
            .await
            .map_err(asked)?;
        let _held = self.locks.lock(name.as_str()).await;
        let pid_path = self.pid_path(name);
        let last = Self::living(name.as_str(), &pid_path).await?.is_none();
        self.members.leave(name, process, last);
        if pid_file::is_of(&pid_path, process)? {
            pid_file::remove(&pid_path)?;
        }
        Ok(exit)
    }

    async fn sweep(
        &self,
        live: &[InstanceName],
        accounts: &[Account],
    ) -> Result<Vec<(InstanceName, usize)>, SupervisorError> {
        self.members.sweep(live, accounts, self, &self.locks).await
    }

    async fn explain(&self, program: &Program) -> Option<String> {
        preflight::explain(program)
    }

    async fn forget(&self, name: &InstanceName, account: &Account) -> Result<(), SupervisorError> {
        let _held = self.locks.lock(name.as_str()).await;
        let pid_path = self.pid_path(name);
        if Self::living(name.as_str(), &pid_path).await?.is_some() {
            // Without the pid file no acc would find it again.
            return Err(unreachable(name.as_str(), "it is still running"));
        }
        self.members
            .clear(name, account, pid_file::process(&pid_path)?)
            .await?;
        pid_file::remove(&pid_path)
    }

    async fn tidy(&self, _live: &[InstanceName]) -> Result<(), SupervisorError> {
        Ok(())
    }

    async fn restore_record(
        &self,
        name: &InstanceName,
        run_id: &RunId,
        log: &Path,
    ) -> Result<bool, SupervisorError> {
        let process = process_of(name, run_id)?;
        let _held = self.locks.lock(name.as_str()).await;
        pid_file::restore(&self.pid_path(name), process, log)
    }
}
