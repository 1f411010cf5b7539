//! The edge `nginx`: writes its configuration, has it checked, reloads it sparingly, and opens and
//! closes gates.
//!
//! A configuration takes effect in three steps, and after a crash between two of them the next call
//! continues: (1) the new text is written to a second file and checked by `nginx -t`; (2) a marker
//! file says that a reload is due, and the text is renamed into place; (3) nginx reloads and the
//! marker is removed. It never starts or stops nginx (the supervisor does) and never edits a file
//! in place.
//!
//! A late or refused reload loses no request: nginx passes what it does not know to the wake
//! server, which knows every instance.

mod ask;
mod bisect;
mod config_file;
mod gates;
mod limits;
mod master;
mod program;
mod repair;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use self::tests::{for_suite, is_installed};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

pub use self::program::{NginxVersion, OLDEST};
pub use self::repair::faults;
use super::{Edge, EdgeError, Gate, Route};
use crate::config::Config;
use crate::config::accounts::Accounts;
use crate::domain::instance::Process;
use crate::domain::name::InstanceName;
use crate::driver::supervisor::Service;
use crate::host::command_line;
use crate::host::error_chain::chain;
use crate::host::fs::{make_dir, remove_file, write_atomic};
use crate::host::process;
use crate::render::Templates;
use crate::render::nginx::{Allowance, NginxEntry, pid_file, temp_dir, text};

/// What it is called as a kind, a service and a log.
const NAME: &str = "nginx";

/// Least time between two reloads: each leaves a generation of workers behind until their
/// connections end.
const BETWEEN_RELOADS: Duration = Duration::from_secs(1);

/// A worker that has found the gate file of a TCP instance connects in the same iteration of its
/// event loop; this is many iterations.
const MOMENT: Duration = Duration::from_millis(5);

/// What the nginx edge needs to know.
#[derive(Debug, Clone)]
pub struct NginxSettings {
    /// acc's settings: addresses, folders, rules.
    pub config: Arc<Config>,
    /// Folders in which to find the program.
    pub search: Vec<PathBuf>,
    /// How long nginx may take to finish its requests when it is stopped.
    pub stop_timeout: Duration,
}

impl NginxSettings {
    /// Uses acc's settings, and the program from the usual folders.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        let stop_timeout = config.stop.drain;
        Self {
            config,
            search: program::search_path(),
            stop_timeout,
        }
    }
}

/// The newest routes requested, numbered by request.
#[derive(Debug, Default)]
struct DesiredRoutes {
    number: u64,
    routes: Vec<Route>,
}

/// State for one caller at a time.
#[derive(Debug, Default)]
struct AppliedConfig {
    /// The number of the routes in force.
    done: u64,
    /// When the last reload began.
    reloaded: Option<Instant>,
}

/// The nginx edge.
#[derive(Debug)]
pub struct Nginx {
    config: RwLock<Arc<Config>>,
    search: Vec<PathBuf>,
    stop_timeout: Duration,
    allowance: Allowance,
    accounts: Accounts,
    templates: Arc<Templates>,
    gates: gates::Gates,
    desired: Mutex<DesiredRoutes>,
    applied: tokio::sync::Mutex<AppliedConfig>,
}

impl Nginx {
    /// Resolves the user of the workers; changes no file.
    pub fn new(settings: NginxSettings, templates: Arc<Templates>) -> Result<Self, EdgeError> {
        let accounts =
            Accounts::of(&settings.config).map_err(|fault| EdgeError::Unusable(fault.message))?;
        let allowance = limits::of_host(settings.config.edge.user.as_deref())?;
        let gates = gates::Gates::new(
            settings.config.gate_dir(),
            accounts.edge.map(|owner| owner.gid),
        );
        let NginxSettings {
            config,
            search,
            stop_timeout,
        } = settings;
        let config = RwLock::new(config);
        let (desired, applied) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self {
            config,
            search,
            stop_timeout,
            allowance,
            accounts,
            templates,
            gates,
            desired,
            applied,
        })
    }

    /// The version of the program that would be run.
    pub async fn version(&self) -> Result<NginxVersion, EdgeError> {
        program::version(&self.program()?).await
    }

    /// The pid of the running master process, started by any process; `None`: none runs with this
    /// configuration.
    pub fn running(&self) -> Result<Option<i32>, EdgeError> {
        Ok(self.master()?.map(|m| m.pid))
    }

    /// The configuration file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.config().nginx_dir().join("nginx.conf")
    }

    fn config(&self) -> Arc<Config> {
        self.config
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn program(&self) -> Result<PathBuf, EdgeError> {
        program::find(&self.search)
    }

    fn master(&self) -> Result<Option<master::NginxMaster>, EdgeError> {
        let path = pid_file(&self.config());
        master::find(&path, &self.file()).map_err(|e| failed("read", &path, e))
    }

    fn render(&self, routes: &[Route]) -> Result<String, EdgeError> {
        let entries: Vec<NginxEntry<'_>> = routes
            .iter()
            .map(|r| NginxEntry {
                name: &r.name,
                hosts: &r.hosts,
                tcp: r.tcp,
            })
            .collect();
        text(&self.templates, &self.config(), &self.allowance, &entries)
            .map_err(|e| EdgeError::Unusable(chain(&e)))
    }

    /// Folders that nginx does not make by itself.
    fn make_folders(&self) -> Result<(), EdgeError> {
        let log = self.config().own_log("nginx-error");
        for dir in [
            self.config().nginx_dir(),
            temp_dir(&self.config()),
            log.parent().unwrap_or(log.as_path()).to_path_buf(),
        ] {
            make_dir(&dir, 0o755).map_err(|e| failed("make", &dir, e))?;
        }
        self.gates.make()
    }

    /// Writes the text to the second file and has nginx check it; the file stays. If it is refused,
    /// finds the instance at fault.
    async fn check(&self, text: &str, routes: &[Route]) -> Result<(), EdgeError> {
        let program = self.program()?;
        let Err(why) = self.read_beside(&program, text).await? else {
            return Ok(());
        };
        // The culprit may remain unknown; the refusal stands.
        let culprit = self.culprit(&program, routes).await.ok().flatten();
        let _ = remove_file(&self.beside());
        Err(EdgeError::Refused { culprit, why })
    }

    /// Finds the first route with which the configuration is refused.
    async fn culprit(&self, program: &Path, routes: &[Route]) -> Result<Option<String>, EdgeError> {
        let mut search = bisect::Bisection::new(routes.len());
        while let Some(count) = search.next() {
            let refused = self
                .read_beside(program, &self.render(&routes[..count])?)
                .await?
                .is_err();
            search.answer(count, refused);
        }
        Ok(search
            .found()
            .and_then(|place| routes.get(place))
            .map(|route| route.name.to_string()))
    }

    async fn read_beside(
        &self,
        program: &Path,
        text: &str,
    ) -> Result<Result<(), String>, EdgeError> {
        let beside = self.beside();
        write_atomic(&beside, text.as_bytes(), 0o644).map_err(|e| failed("write", &beside, e))?;
        program::check(program, &beside).await
    }

    /// Replaces the desired routes by these and returns their number.
    fn desire(&self, routes: &[Route]) -> u64 {
        let mut desired = self.desired.lock().unwrap_or_else(PoisonError::into_inner);
        desired.number += 1;
        desired.routes = routes.to_vec();
        desired.number
    }

    fn newest_desired(&self) -> (u64, Vec<Route>) {
        let desired = self.desired.lock().unwrap_or_else(PoisonError::into_inner);
        (desired.number, desired.routes.clone())
    }

    /// Whether these routes are in force already.
    fn in_force(&self, routes: &[Route]) -> Result<bool, EdgeError> {
        Ok(!self.due().exists()
            && self.present()?.as_deref() == Some(self.render(routes)?.as_str()))
    }

    /// Checks the text, puts it in place and reloads. If the reload fails, restores the old text.
    async fn change(&self, routes: &[Route], applied: &mut AppliedConfig) -> Result<(), EdgeError> {
        let text = self.render(routes)?;
        let before = self.present()?;
        self.make_folders()?;
        self.check(&text, routes).await?;
        let Some(master) = self.master()? else {
            // Every supervisor starts nginx with this file.
            self.put_in_place()?;
            return self.unmark_due();
        };
        self.mark_due()?;
        self.put_in_place()?;
        applied.reloaded = Some(Instant::now());
        if let Err(why) = master.reload(&self.config().own_log("nginx-error")).await {
            if let Some(before) = before {
                let file = self.file();
                write_atomic(&file, before.as_bytes(), 0o644)
                    .map_err(|e| failed("write", &file, e))?;
            }
            self.unmark_due()?;
            return Err(EdgeError::Refused { culprit: None, why });
        }
        tracing::info!(instances = routes.len(), "nginx runs with new routes");
        self.unmark_due()
    }
}

#[async_trait]
impl Edge for Nginx {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn has_program(&self) -> bool {
        true
    }

    /// In the foreground, ended by SIGQUIT so that requests are finished.
    fn service(&self) -> Result<Option<Service>, EdgeError> {
        let argv = [
            self.program()?.to_string_lossy().into_owned(),
            "-c".into(),
            self.file().to_string_lossy().into_owned(),
            "-g".into(),
            "daemon off;".into(),
        ];
        Ok(Some(Service {
            name: NAME,
            argv: argv.into(),
            log: self.config().own_log(NAME),
            stop_signal: libc::SIGQUIT,
            stop_timeout: self.stop_timeout,
        }))
    }

    fn run_files(&self) -> Vec<PathBuf> {
        vec![pid_file(&self.config())]
    }

    fn needs_replay_notes(&self) -> bool {
        true
    }

    fn access_log(&self, name: &InstanceName) -> Option<PathBuf> {
        Some(self.config().access_log(name.as_str()))
    }

    fn reconfigure(&self, config: Arc<Config>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    async fn prepare(&self, routes: &[Route]) -> Result<(), EdgeError> {
        let _turn = self.applied.lock().await;
        program::require(&self.program()?).await?;
        self.make_folders()?;
        let text = self.render(routes)?;
        self.check(&text, routes).await?;
        let changed = self.present()?.as_deref() != Some(text.as_str());
        // A running nginx gets it with the next `apply`.
        match self.master()? {
            Some(_) if changed => self.mark_due()?,
            Some(_) => {}
            None => self.unmark_due()?,
        }
        self.put_in_place()
    }

    async fn is_up(&self) -> Result<bool, EdgeError> {
        if self.running()?.is_some() {
            return Ok(true);
        }
        let log = self.config().own_log("nginx-error");
        master::end_orphans(&log)
            .map_err(|e| failed("search", std::path::Path::new("/proc"), e))?;
        Ok(false)
    }

    async fn process(&self) -> Result<Option<Process>, EdgeError> {
        let found = match self.master()? {
            Some(master) => process::by_pid(master.pid),
            // It has no title of its own yet while it waits for its port. Without its program it
            // was never begun.
            None => match self.service() {
                Ok(Some(service)) => command_line::find(&service.argv),
                Ok(None) | Err(_) => Ok(None),
            },
        };
        found.map_err(|e| failed("search", Path::new("/proc"), e))
    }

    async fn repair(&self, served: bool) -> Result<Vec<String>, EdgeError> {
        self.repair_nginx(served).await
    }

    async fn apply(&self, routes: &[Route]) -> Result<(), EdgeError> {
        let mine = self.desire(routes);
        let mut applied = self.applied.lock().await;
        if applied.done >= mine {
            // The reload of another caller had newer routes, which include these.
            return Ok(());
        }
        let (mut number, mut newest) = self.newest_desired();
        if !self.in_force(&newest)? {
            let soonest = applied
                .reloaded
                .map(|at| at + BETWEEN_RELOADS)
                .filter(|at| *at > Instant::now());
            if let Some(soonest) = soonest {
                tokio::time::sleep_until(soonest).await;
                (number, newest) = self.newest_desired();
            }
            if !self.in_force(&newest)? {
                self.change(&newest, &mut applied).await?;
            }
        }
        applied.done = number;
        Ok(())
    }

    async fn open(&self, gate: &Gate) -> Result<(), EdgeError> {
        self.gates.open(gate)
    }

    async fn close(&self, gate: &Gate) -> Result<(), EdgeError> {
        if self.gates.close(gate)? == gates::Closed::AfterAMoment {
            tokio::time::sleep(MOMENT).await;
        }
        Ok(())
    }

    async fn open_gates(&self) -> Result<Vec<InstanceName>, EdgeError> {
        self.gates.list()
    }

    fn pooled(&self, _: &Gate) -> u32 {
        // nginx keeps no connection to an instance: a pooled one would bypass a closed gate.
        0
    }

    async fn forget(&self, name: &InstanceName) -> Result<(), EdgeError> {
        self.gates.forget(name).map(|_| ())
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> EdgeError {
    EdgeError::File {
        action,
        path: path.to_owned(),
        source,
    }
}
