//! One supervisord of acc: its settings, and what acc keeps about it in memory.
//!
//! It asks and starts nothing itself. The files beside it do: for instances (`mod.rs`) and for
//! services (`services`, `orphans`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::launcher;
use super::super::locks::Locks;
use super::super::members::InstanceMembers;
use super::super::{SupervisorError, pid_file};
use super::daemon::Daemon;
use super::group::ProgramGroup;
use super::reread::Rereads;
use super::rpc::RpcClient;
use super::sections::Sections;
use crate::domain::instance::Process;
use crate::domain::name::InstanceName;
use crate::host::fs::make_dir;
use crate::host::process;
use crate::render::Templates;

/// How long supervisord may take to answer a call.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// How long a killed service may take to disappear.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// Where a supervisord of acc has its files.
#[derive(Debug, Clone)]
pub struct SupervisordSettings {
    /// Its configuration: `supervisord.conf`, `services/`, `programs/` (what it will read),
    /// `loaded/` (what it has read), and `launch/`, the requests for launchers.
    pub dir: PathBuf,
    /// Its XML-RPC socket.
    pub socket: PathBuf,
    /// Its pid file.
    pub pid_file: PathBuf,
    /// Its own log.
    pub log: PathBuf,
    /// acc's pid files of instances.
    pub pid_dir: PathBuf,
    /// Logs of instances are rotated beyond this many bytes.
    pub log_max: u64,
    /// How many sections of sleeping instances to keep: to wake one of these, the configuration
    /// need not be reread.
    pub keep: usize,
    /// What replaces the launcher where none can be installed: program and first arguments. The
    /// last argument is the file with the request. It calls [`super::super::launch`].
    pub launcher: Vec<String>,
    /// The program; `None`: `supervisord` on the fixed path.
    pub program: Option<PathBuf>,
    /// Templates of its configuration.
    pub templates: Arc<Templates>,
}

/// supervisord.
#[derive(Debug)]
pub struct Supervisord {
    pub(super) settings: SupervisordSettings,
    pub(super) daemon: Daemon,
    pub(super) programs: Rereads,
    pub(super) services: Rereads,
    /// The requests for the launchers of instances.
    pub(super) specs: Sections,
    pub(super) launcher: Mutex<Option<Vec<String>>>,
    pub(super) locks: Locks,
    pub(super) members: InstanceMembers,
    /// When each name was last started, as a counter of starts: decides which sections to drop
    /// first.
    pub(super) used: Mutex<(u64, HashMap<String, u64>)>,
    /// Processes started here and not waited for yet. They are held so that their exit status is
    /// known, although supervisord reaps them.
    pub(super) held: Mutex<HashMap<InstanceName, process::HeldProcess>>,
    /// The master of the server that uses this supervisor.
    pub(super) master: Mutex<Option<Process>>,
}

impl Supervisord {
    /// Makes a supervisor with these settings; reads and writes nothing yet.
    #[must_use]
    pub fn new(settings: SupervisordSettings) -> Self {
        Self {
            daemon: Daemon {
                config: settings.dir.join("supervisord.conf"),
                pid_file: settings.pid_file.clone(),
                client: RpcClient::new(settings.socket.clone(), CALL_LIMIT),
                program: settings.program.clone(),
            },
            programs: Rereads::once(settings.dir.join("loaded"), settings.dir.join("programs")),
            services: Rereads::lasting(settings.dir.join("services")),
            specs: Sections::of_specs(settings.dir.join("launch")),
            launcher: Mutex::default(),
            locks: Locks::default(),
            members: InstanceMembers::of(&settings.pid_dir),
            used: Mutex::default(),
            held: Mutex::default(),
            master: Mutex::default(),
            settings,
        }
    }

    /// Uses this way to find the processes of instances.
    #[cfg(test)]
    pub(in super::super) fn with_members(mut self, members: InstanceMembers) -> Self {
        self.members = members;
        self
    }

    pub(super) fn group<'a>(&'a self, name: &'a InstanceName) -> ProgramGroup<'a> {
        ProgramGroup {
            client: &self.daemon.client,
            sections: &self.programs,
            name: name.as_str(),
            shown: name.as_str(),
        }
    }

    pub(super) fn pid_path(&self, name: &InstanceName) -> PathBuf {
        pid_file::instance_file(&self.settings.pid_dir, name)
    }

    pub(super) fn write_record(
        &self,
        path: &Path,
        process: Process,
        log: &Path,
    ) -> Result<(), SupervisorError> {
        let dir = path.parent().unwrap_or(&self.settings.pid_dir);
        make_dir(dir, 0o700).map_err(|source| SupervisorError::File {
            action: "make",
            path: dir.to_owned(),
            source,
        })?;
        pid_file::replace(path, pid_file::text(process, log).as_bytes(), 0o600)
    }

    /// The launcher's command. It is installed by a boot, or by the first start after an upgrade.
    pub(super) fn launcher(&self) -> Result<Vec<String>, SupervisorError> {
        let mut known = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*known {
            return Ok(known.clone());
        }
        let command = launcher::place::ensure(self.specs.dir(), &self.settings.launcher)?;
        Ok(known.insert(command).clone())
    }

    pub(super) fn held(&self) -> MutexGuard<'_, HashMap<InstanceName, process::HeldProcess>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rounded up and at least one: supervisord has no fractions.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

/// The error "could not ask the kernel".
pub(super) fn kernel(name: &str, why: &std::io::Error) -> SupervisorError {
    SupervisorError::Unreachable {
        what: format!("the kernel about `{name}`"),
        why: why.to_string(),
    }
}

/// Waits for an expected end, and kills the process if it does not end in time.
pub(super) async fn end(
    name: &str,
    process: Process,
    patience: Duration,
) -> Result<(), SupervisorError> {
    if tokio::time::timeout(patience, process::ended(process))
        .await
        .is_ok_and(|r| r.is_ok())
    {
        return Ok(());
    }
    process::signal_group(process, libc::SIGKILL).map_err(|e| kernel(name, &e))?;
    match tokio::time::timeout(KILL_WAIT, process::ended(process)).await {
        Ok(result) => result.map(drop).map_err(|e| kernel(name, &e)),
        Err(_) => Err(kernel(
            name,
            &std::io::Error::other("it does not exit, even after SIGKILL"),
        )),
    }
}
