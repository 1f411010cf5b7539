//! All processes of an instance: in a control group of its own where possible, else found by a
//! census.
//!
//! Both supervisors use it: a start joins the group, the stop signal and the kill go to all
//! processes, and an end is reported only when none is left. Groups and marks contain the name of
//! this installation: acc never touches those of others.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::Instant;

use super::locks::Locks;
use super::{Program, SupervisorError, pid_file};
use crate::domain::account::Account;
use crate::domain::instance::Process;
use crate::domain::name::InstanceName;
use crate::host::cgroup::{Cgroups, Group, hash};
use crate::host::{census, process};

/// How long killed processes may take to disappear, before a start or at a removal.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// Shortest and longest pause between two checks for remaining processes.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// How often, and how many times, to check for the end of a killed process that a debugger holds.
const TRACED_PAUSE: Duration = Duration::from_millis(250);
const TRACED_CHECKS: u32 = 40;
/// How often a census is repeated until all processes it finds are stopped. A process that keeps
/// forking loses the race, or the next kill continues.
const CENSUSES: u32 = 20;

/// What a supervisor knows about the first process of an instance.
#[async_trait]
pub(super) trait FirstProcess: Sync {
    /// Whether it runs, even if it has not written its pid file yet.
    async fn runs(&self, name: &InstanceName) -> Result<bool, SupervisorError>;
}

/// How a process joins an instance.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Membership {
    /// Files to which it writes `0` before its program starts.
    pub(super) join: Vec<PathBuf>,
    /// A further environment variable.
    pub(super) env: Option<(String, String)>,
}

impl Membership {
    /// The environment with this variable added.
    pub(super) fn environment<'a>(
        &self,
        given: &'a [(String, String)],
    ) -> Cow<'a, [(String, String)]> {
        match &self.env {
            None => Cow::Borrowed(given),
            Some(more) => given.iter().chain([more]).cloned().collect(),
        }
    }
}

/// The processes of the instances of one installation.
#[derive(Debug)]
pub(super) struct InstanceMembers {
    run: PathBuf,
    pid_dir: PathBuf,
    cgroups: OnceLock<Option<Cgroups>>,
    /// Without control groups: the users among whose processes leftovers of another acc were
    /// searched for.
    searched: AsyncMutex<HashSet<u32>>,
    /// First processes that were asked to end: the processes they leave get time to end as well.
    asked: Mutex<HashSet<Process>>,
    /// Notified at each kill.
    killed: Notify,
    /// Without control groups: killed processes that may not have ended. A process at its end has
    /// lost its mark.
    dying: Mutex<Vec<(InstanceName, Process)>>,
}

impl InstanceMembers {
    /// For the installation with these pid files, which are in its `run` folder.
    pub(super) fn of(pid_dir: &Path) -> Self {
        Self {
            run: pid_dir.parent().unwrap_or(pid_dir).to_owned(),
            pid_dir: pid_dir.to_owned(),
            cgroups: OnceLock::new(),
            searched: AsyncMutex::default(),
            asked: Mutex::default(),
            killed: Notify::new(),
            dying: Mutex::default(),
        }
    }

    /// The same with these groups instead of those of the host.
    #[cfg(test)]
    pub(super) fn in_groups(pid_dir: &Path, cgroups: Option<Cgroups>) -> Self {
        Self {
            cgroups: OnceLock::from(cgroups),
            ..Self::of(pid_dir)
        }
    }

    /// Ends all processes of this installation, at the end of a test.
    #[cfg(test)]
    #[expect(
        clippy::disallowed_methods,
        reason = "a test ends where there is no runtime to wait with"
    )]
    pub(super) fn end_all(&self) {
        for (name, account) in self.names(&[Account::SameAsAcc]).unwrap_or_default() {
            for _ in 0..1000 {
                if self.kill(&name, &account, None).is_ok()
                    && self
                        .all(&name, &account, None)
                        .is_ok_and(|left| left.is_empty())
                {
                    break;
                }
                std::thread::sleep(POLL.0);
            }
            let _ = self.group(&name).map(|group| group.remove());
        }
        self.close();
    }

    /// Removes acc's control groups when acc is shut down.
    pub(super) fn close(&self) {
        if let Some(cgroups) = self.cgroups() {
            cgroups.close();
        }
    }

    fn cgroups(&self) -> Option<&Cgroups> {
        self.cgroups
            .get_or_init(|| {
                Cgroups::find(&self.run)
                    .inspect_err(|why| tracing::info!("no control groups: {why}"))
                    .ok()
            })
            .as_ref()
    }

    fn group(&self, name: &InstanceName) -> Option<Group> {
        Some(self.cgroups()?.group(name.as_str()))
    }

    /// The environment variable that marks every process of the instance where there are no control
    /// groups.
    fn mark(&self, name: &str) -> String {
        format!(
            "{:016x}/{name}",
            hash(self.run.as_os_str().as_encoded_bytes())
        )
    }

    /// Prepares a start: ends what an earlier run left, so that a new process can join. Asks
    /// `first` whether the first process of this instance runs after all, because an acc may have
    /// died before it recorded the process.
    pub(super) async fn enter(
        &self,
        program: &Program,
        first: &dyn FirstProcess,
    ) -> Result<Membership, SupervisorError> {
        let (name, limits) = (&program.name, &program.group);
        let Some(cgroups) = self.cgroups() else {
            // A census takes milliseconds, so only once for each user: later leftovers are of runs
            // whose end this acc has seen.
            let mut searched = self.searched.lock().await;
            if !searched.contains(&user_of(&program.account)) {
                self.clear_unrecorded(&program.account, first).await?;
                searched.insert(user_of(&program.account));
            }
            return Ok(Membership {
                join: Vec::new(),
                env: Some((census::MARK.to_owned(), self.mark(name.as_str()))),
            });
        };
        let group = cgroups.group(name.as_str());
        let failed = |source| SupervisorError::File {
            action: "make",
            path: cgroups.dir().join(name.as_str()),
            source,
        };
        // Usually the group is missing, because the end of a run removes it.
        if !cgroups.make(name.as_str(), limits).map_err(failed)? && !first.runs(name).await? {
            self.clear(name, &program.account, None).await?;
            cgroups.make(name.as_str(), limits).map_err(failed)?;
        }
        Ok(Membership {
            join: group.join_files(limits),
            env: None,
        })
    }

    /// All living processes of the instance to which this first process belongs or belonged.
    pub(super) fn all(
        &self,
        name: &InstanceName,
        account: &Account,
        first: Option<Process>,
    ) -> io::Result<Vec<Process>> {
        let Some(group) = self.group(name) else {
            let mut all = census::members(first, &self.mark(name.as_str()), user_of(account))?;
            let dying = self.dying(name);
            all.extend(dying.into_iter().filter(|process| Some(*process) != first));
            all.sort_unstable_by_key(|process| process.pid);
            all.dedup();
            return Ok(all);
        };
        // A process that cannot be read is not gone.
        group
            .processes()?
            .into_iter()
            .filter_map(|pid| process::by_pid(pid).transpose())
            .collect()
    }

    /// Sends the stop signal to all processes outside the first process's group.
    pub(super) fn ask_others(&self, program: &Program, first: Process) {
        let name = &program.name;
        self.asked().insert(first);
        let others = self.all(name, &program.account, Some(first));
        let others = others.unwrap_or_else(|error| {
            tracing::warn!(instance = %name, %error, "could not list its processes");
            Vec::new()
        });
        for other in others {
            let elsewhere =
                matches!(process::stat(other.pid), Ok(Some(seen)) if seen.group != first.pid);
            if elsewhere && let Err(error) = process::signal_one(other, program.stop_signal) {
                tracing::warn!(instance = %name, pid = other.pid, %error, "could not signal one of its processes");
            }
        }
    }

    /// Resolves when a killed process has ended although its debugger keeps the kernel from
    /// reporting it: checked after each kill.
    pub(super) async fn ended_under_a_tracer(&self, first: Process) {
        loop {
            self.killed.notified().await;
            for _ in 0..TRACED_CHECKS {
                tokio::time::sleep(TRACED_PAUSE).await;
                if process::is_same(first).is_ok_and(|same| !same) {
                    return;
                }
            }
        }
    }

    /// Kills all of them without waiting for their end.
    pub(super) fn kill(
        &self,
        name: &InstanceName,
        account: &Account,
        first: Option<Process>,
    ) -> io::Result<()> {
        if let Some(first) = first {
            self.asked().remove(&first);
        }
        let killed = match self.group(name) {
            Some(group) => group.kill(),
            None => self.kill_counted(name, account, first),
        };
        self.killed.notify_waiters();
        killed
    }

    /// Stops all of them first, then kills each: the next census finds what was forked meanwhile.
    fn kill_counted(
        &self,
        name: &InstanceName,
        account: &Account,
        first: Option<Process>,
    ) -> io::Result<()> {
        let mut stopped: HashSet<Process> = HashSet::new();
        for _ in 0..CENSUSES {
            let found = census::members(first, &self.mark(name.as_str()), user_of(account))?;
            let new: Vec<Process> = found
                .into_iter()
                .filter(|process| !stopped.contains(process))
                .collect();
            if new.is_empty() {
                break;
            }
            for process in &new {
                process::signal_one(*process, libc::SIGSTOP)?;
            }
            stopped.extend(new);
        }
        let mut dying = self.dying.lock().unwrap_or_else(PoisonError::into_inner);
        dying.extend(stopped.iter().map(|process| (name.clone(), *process)));
        drop(dying);
        stopped
            .iter()
            .try_for_each(|process| process::signal_one(*process, libc::SIGKILL))
    }

    /// Processes of this instance that were killed and have not ended.
    fn dying(&self, name: &InstanceName) -> Vec<Process> {
        let mut dying = self.dying.lock().unwrap_or_else(PoisonError::into_inner);
        dying.retain(|(_, process)| process::is_same(*process).unwrap_or(false));
        dying
            .iter()
            .filter(|(of, _)| of == name)
            .map(|(_, process)| *process)
            .collect()
    }

    /// Resolves when nothing is left of an instance whose first process has ended. If that was
    /// asked to end, the others have until the caller's kill; otherwise they are killed at once.
    pub(super) async fn gone(
        &self,
        name: &InstanceName,
        account: &Account,
        first: Process,
    ) -> io::Result<()> {
        let mut pause = POLL.0;
        loop {
            let left = self.all(name, account, Some(first))?;
            if left.is_empty() {
                break;
            }
            // Not a run that was started under this name since.
            let current = pid_file::living(&pid_file::instance_file(&self.pid_dir, name))
                .ok()
                .flatten();
            if current.is_some_and(|current| current != first) {
                return Ok(());
            }
            if !self.asked().contains(&first) {
                if pause == POLL.0 {
                    tracing::info!(instance = %name, "it has ended; killing {} of its processes", left.len());
                }
                self.kill(name, account, Some(first))?;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL.1);
        }
        Ok(())
    }

    /// Removes the group of an ended run, so that a sleeping instance has none. The caller holds
    /// the lock of the name. `last`: no later run is recorded, which would use the group and may
    /// not have joined it yet.
    pub(super) fn leave(&self, name: &InstanceName, first: Process, last: bool) {
        self.asked().remove(&first);
        if let Some(Err(error)) = self
            .group(name)
            .filter(|_| last)
            .map(|group| group.remove())
        {
            // The next start uses the group as it is.
            tracing::debug!(instance = %name, %error, "could not remove its control group");
        }
    }

    /// Kills what an earlier run left and waits until it is gone; returns how many there were.
    pub(super) async fn clear(
        &self,
        name: &InstanceName,
        account: &Account,
        first: Option<Process>,
    ) -> Result<usize, SupervisorError> {
        let asked = |why: &dyn ToString| SupervisorError::Unreachable {
            what: format!("the kernel for orphan processes of `{name}`"),
            why: why.to_string(),
        };
        let deadline = Instant::now() + KILL_WAIT;
        let (mut pause, mut most) = (POLL.0, 0);
        loop {
            let left = self.all(name, account, first).map_err(|e| asked(&e))?;
            if left.is_empty() {
                break;
            }
            most = most.max(left.len());
            if Instant::now() >= deadline {
                let pids: Vec<String> = left.iter().map(|p| p.pid.to_string()).collect();
                return Err(asked(&format!(
                    "process {} does not exit, even after SIGKILL",
                    pids.join(", ")
                )));
            }
            self.kill(name, account, first).map_err(|e| asked(&e))?;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL.1);
        }
        if let Some(Err(error)) = self.group(name).map(|group| group.remove()) {
            tracing::debug!(instance = %name, %error, "could not remove its control group");
        }
        Ok(most)
    }

    /// Ends leftovers of instances under these accounts that are not live; returns how many processes of which.
    pub(super) async fn sweep(
        &self,
        live: &[InstanceName],
        accounts: &[Account],
        first: &dyn FirstProcess,
        locks: &Locks,
    ) -> Result<Vec<(InstanceName, usize)>, SupervisorError> {
        let mut ended = Vec::new();
        for (name, account) in self.names(accounts).map_err(|e| census_failed(&e))? {
            let _held = locks.lock(name.as_str()).await;
            // Started just now, or another task handles its end.
            if live.contains(&name) || first.runs(&name).await? {
                continue;
            }
            let count = self
                .clear(
                    &name,
                    &account,
                    pid_file::process(&pid_file::instance_file(&self.pid_dir, &name))?,
                )
                .await?;
            if count > 0 {
                ended.push((name.clone(), count));
            }
        }
        Ok(ended)
    }

    async fn clear_unrecorded(
        &self,
        account: &Account,
        first: &dyn FirstProcess,
    ) -> Result<(), SupervisorError> {
        let names = self.names(std::slice::from_ref(account));
        for (name, account) in names.map_err(|e| census_failed(&e))? {
            // A process that cannot be ended blocks only its own instance.
            if !first.runs(&name).await?
                && let Err(error) = self
                    .clear(
                        &name,
                        &account,
                        pid_file::process(&pid_file::instance_file(&self.pid_dir, &name))?,
                    )
                    .await
            {
                tracing::warn!(instance = %name, %error, "could not end its orphan processes");
            }
        }
        Ok(())
    }

    /// The instances that have an empty group, or processes of one of these accounts: each with its
    /// account, which counts only where there are no groups.
    pub(super) fn names(&self, accounts: &[Account]) -> io::Result<Vec<(InstanceName, Account)>> {
        let named = |name: &str, account: &Account| {
            Some((InstanceName::parse(name).ok()?, account.clone()))
        };
        if let Some(cgroups) = self.cgroups() {
            let names = cgroups.names()?;
            let names = names.iter();
            return Ok(names
                .filter_map(|name| named(name, &Account::SameAsAcc))
                .collect());
        }
        let (begin, mut found) = (self.mark(""), Vec::new());
        for account in accounts {
            let marks = census::marks(&begin, user_of(account))?;
            let names = marks.iter().filter_map(|mark| mark.strip_prefix(&begin));
            found.extend(names.filter_map(|name| named(name, account)));
        }
        Ok(found)
    }

    fn asked(&self) -> MutexGuard<'_, HashSet<Process>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The user that the processes of an instance run as.
fn user_of(account: &Account) -> u32 {
    account
        .uid()
        .unwrap_or_else(|| rustix::process::geteuid().as_raw())
}

/// The error if the processes of instances cannot be determined.
fn census_failed(why: &io::Error) -> SupervisorError {
    SupervisorError::Unreachable {
        what: "the kernel for orphan processes".to_owned(),
        why: why.to_string(),
    }
}
