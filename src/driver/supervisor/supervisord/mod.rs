//! supervisord as the supervisor: acc's own daemon, with a section for each service and for each
//! instance that is or recently was awake.
//!
//! acc decides what starts and when; supervisord starts it, keeps its log and keeps services
//! running. Each start is recorded in a pid file, so that the children of a killed supervisord are
//! found and not started twice. acc never asks about all programs while a request waits: with
//! thousands of them that takes seconds.

mod daemon;
mod group;
mod handle;
mod orphans;
mod reread;
mod rpc;
mod sections;
mod services;
mod xmlrpc;

use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use acc_launch::LaunchRequest;
use async_trait::async_trait;

use crate::domain::account::Account;
use crate::domain::instance::{Exit, Process, RunId};
use crate::domain::name::InstanceName;
use crate::host::fs::make_dir;
use crate::host::spawn::UserIds;
use crate::host::{process, rotate};
use crate::render::supervisord::{ProgramText, program as program_text};

use super::launcher;
use super::members::{FirstProcess, Membership};
use super::{Capabilities, Program, Runner, SupervisorError, pid_file, preflight, process_of};
use group::{ENDED_AT_ONCE, Info, Launched, ProgramGroup, state, unreachable};
pub use handle::{Supervisord, SupervisordSettings};
use handle::{kernel, whole_seconds};
use rpc::RpcError;
use sections::SectionMatch;
use xmlrpc::Value;

/// Parses an answer of supervisord as acc does, for tests with invalid input. Returns the value or
/// the fault as text.
///
/// # Errors
/// It is not an XML-RPC answer.
pub fn read_answer(text: &str) -> Result<String, String> {
    match xmlrpc::response(text) {
        Ok(Ok(value)) => Ok(format!("{value:?}")),
        Ok(Err(fault)) => Ok(fault.to_string()),
        Err(malformed) => Err(malformed.to_string()),
    }
}

/// How often to ask supervisord for an exit status that the kernel does not have.
const REPORT_LIMIT: usize = 100;

impl Supervisord {
    /// Writes the request for the launcher, after all checks that are possible before a start.
    /// Returns the text of the section.
    fn prepare(&self, p: &Program, entry: &Membership) -> Result<String, SupervisorError> {
        let program = preflight::executable(p)?;
        let user = preflight::user(p)?;
        // The log is made and given to the user here, before any process writes to it.
        rotate::open(&p.log, self.settings.log_max, user.as_ref()).map_err(|source| {
            SupervisorError::File {
                action: "open",
                path: p.log.clone(),
                source,
            }
        })?;
        let name = p.name.as_str();
        let pid = self.pid_path(&p.name);
        let spec = self.request(p, &program, user.as_ref(), entry, &pid);
        let spec = spec
            .map(|spec| spec.text())
            .map_err(|e| SupervisorError::NotStarted {
                name: name.to_owned(),
                why: e.to_string(),
            })?;
        let dir = &self.settings.pid_dir;
        make_dir(dir, 0o700).map_err(|source| SupervisorError::File {
            action: "make",
            path: dir.clone(),
            source,
        })?;
        // It names a former process and must not be taken for the new one's.
        pid_file::remove(&pid)?;
        if self.specs.compare(name, &spec)? != SectionMatch::Same {
            self.specs.write(name, &spec)?;
        }
        let text = ProgramText {
            name,
            launcher: &self.launcher()?,
            spec: &self.specs.path(name),
            stop_signal: p.stop_signal,
            stop_wait: whole_seconds(p.stop_timeout),
        };
        program_text(&self.settings.templates, &text).map_err(|e| SupervisorError::NotStarted {
            name: name.to_owned(),
            why: e.to_string(),
        })
    }

    /// The request for the launcher.
    fn request(
        &self,
        p: &Program,
        program: &Path,
        user: Option<&UserIds>,
        entry: &Membership,
        pid: &Path,
    ) -> io::Result<LaunchRequest> {
        let args = p.argv.get(1..).unwrap_or_default();
        let plain = launcher::request(program, args, &entry.environment(&p.env), &p.log)?;
        let noted = launcher::noted(plain, pid, pid_file::this_boot())?;
        let run = self.settings.pid_dir.parent();
        launcher::instance(noted, p, user, &entry.join, run)
    }

    fn note_use(&self, name: &InstanceName) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.0 += 1;
        let count = used.0;
        used.1.insert(name.to_string(), count);
    }

    /// Takes over a process that supervisord runs under this name and acc has not recorded: it was
    /// started just before a crash.
    fn adopt(&self, name: &InstanceName, info: &Info) -> Result<Option<Process>, SupervisorError> {
        let asked = |why: std::io::Error| SupervisorError::Unreachable {
            what: format!("the kernel about process {}", info.pid),
            why: why.to_string(),
        };
        let Some(process) = process::by_pid(info.pid).map_err(asked)? else {
            return Ok(None);
        };
        self.write_record(&self.pid_path(name), process, Path::new(""))?;
        Ok(Some(process))
    }

    /// Records a running process that has written no pid file, or not yet.
    fn record_started(
        &self,
        program: &Program,
        pid: i32,
        path: &std::path::Path,
    ) -> Result<Process, SupervisorError> {
        // Alive or zombie.
        let seen = if pid == ENDED_AT_ONCE {
            None
        } else {
            process::stat(pid).map_err(|e| kernel(program.name.as_str(), &e))?
        };
        let Some(seen) = seen else {
            return Ok(Process { pid, start_time: 0 });
        };
        let process = Process {
            pid,
            start_time: seen.start_time,
        };
        self.write_record(path, process, &program.log)?;
        Ok(process)
    }

    /// What supervisord knows about the end of the last run: an exit code, or that a signal ended
    /// it.
    async fn reported_exit(&self, name: &InstanceName) -> Exit {
        for _ in 0..REPORT_LIMIT {
            match self.group(name).info().await {
                // Not noticed yet; the call makes it check.
                Ok(Some(info)) if info.pid > 0 => {
                    tokio::time::sleep(Duration::from_millis(5)).await
                }
                Ok(Some(info))
                    if info.ran && matches!(info.state, state::EXITED | state::STOPPED) =>
                {
                    return i32::try_from(info.exit_status)
                        .ok()
                        .filter(|code| *code >= 0)
                        .map_or(Exit::Unknown, Exit::Code);
                }
                _ => return Exit::Unknown,
            }
        }
        Exit::Unknown
    }

    /// What supervisord reports as running, among those that have a section.
    async fn unrecorded(
        &self,
        recorded: &[InstanceName],
    ) -> Result<Vec<(InstanceName, RunId)>, SupervisorError> {
        let all = match self
            .daemon
            .client
            .call("supervisor.getAllProcessInfo", &[])
            .await
        {
            Ok(Value::Array(all)) => all,
            Ok(other) => {
                return Err(unreachable(
                    &self.daemon.client,
                    &RpcError::Broken(format!("a list expected, got {other:?}")),
                ));
            }
            Err(error) => return self.daemon.gone_after(&error).map(|()| Vec::new()),
        };
        let mut found = Vec::new();
        for value in &all {
            let Some(name) = value
                .str("name")
                .and_then(|name| InstanceName::parse(name).ok())
            else {
                continue;
            };
            let info = Info::read(value).map_err(|e| unreachable(&self.daemon.client, &e))?;
            if info.pid > 0
                && !recorded.contains(&name)
                && let Some(process) = self.adopt(&name, &info)?
            {
                found.push((name, process.into()));
            }
        }
        Ok(found)
    }

    /// Removes the section of an instance, in supervisord and on disk; `false`: it runs, so the
    /// section stays.
    async fn drop_section(&self, name: &str) -> Result<bool, SupervisorError> {
        let group = ProgramGroup {
            client: &self.daemon.client,
            sections: &self.programs,
            name,
            shown: name,
        };
        match group.take_out().await {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => self.daemon.gone_after(&error)?,
        }
        self.programs.remove(name)?;
        self.specs.remove(name)?;
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .remove(name);
        Ok(true)
    }
}

fn signal(name: &InstanceName, process: Process, signal: i32) -> Result<(), SupervisorError> {
    process::signal_group(process, signal).map_err(|e| kernel(name.as_str(), &e))
}

#[async_trait]
impl FirstProcess for Supervisord {
    async fn runs(&self, name: &InstanceName) -> Result<bool, SupervisorError> {
        if pid_file::living(&self.pid_path(name))?.is_some() {
            return Ok(true);
        }
        match self.group(name).info().await {
            Ok(info) => Ok(info.is_some_and(|info| info.pid > 0)),
            Err(error) => self.daemon.gone_after(&error).map(|()| false),
        }
    }
}

#[async_trait]
impl Runner for Supervisord {
    fn capabilities(&self) -> Capabilities {
        Capabilities::LAUNCHED
    }

    async fn start(&self, program: &Program) -> Result<RunId, SupervisorError> {
        let _held = self.locks.lock(program.name.as_str()).await;
        let pid_path = self.pid_path(&program.name);
        if let Some(running) = pid_file::living(&pid_path)? {
            return Ok(running.into());
        }
        let entry = self.members.enter(program, self).await?;
        let text = self.prepare(program, &entry)?;
        let (Launched::Already(pid) | Launched::Started(pid)) = self
            .group(&program.name)
            .launch(&text, Some(&pid_path))
            .await?;
        self.note_use(&program.name);
        let process = match pid_file::process(&pid_path)? {
            // Recorded by its launcher, even if it has ended: that number identifies the processes
            // it left.
            Some(noted) if noted.pid == pid || pid == ENDED_AT_ONCE => noted,
            _ => self.record_started(program, pid, &pid_path)?,
        };
        let held = process::hold(process).map_err(|e| kernel(program.name.as_str(), &e))?;
        self.held().insert(program.name.clone(), held);
        Ok(process.into())
    }

    async fn find(&self, name: &InstanceName) -> Result<Option<RunId>, SupervisorError> {
        let _held = self.locks.lock(name.as_str()).await;
        if let Some(running) = pid_file::living(&self.pid_path(name))? {
            return Ok(Some(running.into()));
        }
        match self.group(name).info().await {
            Ok(Some(info)) if info.pid > 0 => Ok(self.adopt(name, &info)?.map(RunId::from)),
            Ok(_) => Ok(None),
            Err(error) => self.daemon.gone_after(&error).map(|()| None),
        }
    }

    async fn running(&self) -> Result<Vec<(InstanceName, RunId)>, SupervisorError> {
        let mut found = Vec::new();
        for name in pid_file::instances(&self.settings.pid_dir)? {
            if let Some(process) = pid_file::living(&self.pid_path(&name))? {
                found.push((name, process.into()));
            }
        }
        let recorded: Vec<InstanceName> = found.iter().map(|(name, _)| name.clone()).collect();
        found.extend(self.unrecorded(&recorded).await?);
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    async fn terminate(&self, program: &Program, run_id: &RunId) -> Result<(), SupervisorError> {
        let process = process_of(&program.name, run_id)?;
        if !process::is_same(process).map_err(|e| kernel(program.name.as_str(), &e))? {
            return Ok(());
        }
        self.daemon.settled(process).await;
        self.members.ask_others(program, process);
        // Through supervisord, so that it kills the process in the end even if acc dies. If
        // supervisord does not run it (its predecessor did) or cannot be reached, signal it here.
        if self.group(&program.name).stop().await.unwrap_or(false) {
            return Ok(());
        }
        signal(&program.name, process, program.stop_signal)
    }

    async fn kill(
        &self,
        name: &InstanceName,
        account: &Account,
        run_id: &RunId,
    ) -> Result<(), SupervisorError> {
        let process = process_of(name, run_id)?;
        self.daemon.settled(process).await;
        signal(name, process, libc::SIGKILL)?;
        let _held = self.locks.lock(name.as_str()).await;
        // Never a process that was started under this name since.
        if pid_file::living(&self.pid_path(name))?.is_some_and(|now| now != process) {
            return Ok(());
        }
        self.members
            .kill(name, account, Some(process))
            .map_err(|e| kernel(name.as_str(), &e))
    }

    async fn wait(
        &self,
        name: &InstanceName,
        account: &Account,
        run_id: &RunId,
    ) -> Result<Exit, SupervisorError> {
        let process = process_of(name, run_id)?;
        // Waits on a copy: a caller that stops waiting must not release the process for the next
        // one.
        let held = self
            .held()
            .get(name)
            .filter(|held| held.process() == process)
            .map(process::HeldProcess::try_clone);
        let held = match held {
            Some(Ok(held)) => held,
            Some(Err(_)) | None => process::hold(process).map_err(|e| kernel(name.as_str(), &e))?,
        };
        let ended = tokio::select! {
            ended = held.exited() => ended,
            () = self.members.ended_under_a_tracer(process) => Ok(Exit::Signal(libc::SIGKILL)),
        };
        self.held()
            .retain(|held_name, held| held_name != name || held.process() != process);
        let mut exit = ended.map_err(|e| kernel(name.as_str(), &e))?;
        self.members
            .gone(name, account, process)
            .await
            .map_err(|e| kernel(name.as_str(), &e))?;
        let _held = self.locks.lock(name.as_str()).await;
        let pid_path = self.pid_path(name);
        let last = pid_file::living(&pid_path)?.is_none();
        self.members.leave(name, process, last);
        if exit == Exit::Unknown && last {
            exit = self.reported_exit(name).await;
        }
        if last && pid_file::is_of(&pid_path, process)? {
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
        self.held().remove(name);
        let had = self.programs.kept.has(name.as_str());
        if !self.drop_section(name.as_str()).await? {
            let why = RpcError::Broken(format!("`{name}` is still running"));
            return Err(unreachable(&self.daemon.client, &why));
        }
        if had {
            // Remove what supervisord has read of the section as well, including secrets. If that
            // fails, the next call removes it.
            let _ = self
                .daemon
                .client
                .call("supervisor.reloadConfig", &[])
                .await;
        }
        let pid_path = self.pid_path(name);
        self.members
            .clear(name, account, pid_file::process(&pid_path)?)
            .await?;
        pid_file::remove(&pid_path)
    }

    async fn tidy(&self, live: &[InstanceName]) -> Result<(), SupervisorError> {
        let mut asleep: Vec<String> = self.programs.kept.names()?;
        asleep.retain(|name| !live.iter().any(|l| l.as_str() == name));
        {
            // The order of the files stands for starts before this process; the stable sort keeps
            // it.
            let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            asleep.sort_by_key(|name| used.1.get(name).copied().unwrap_or(0));
        }
        let surplus = asleep.len().saturating_sub(self.settings.keep);
        for name in asleep.iter().take(surplus) {
            let _held = self.locks.lock(name).await;
            self.drop_section(name).await?;
        }
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
