//! Makes the drivers of an installation from its settings, and the services that its supervisor
//! runs.
//!
//! It starts nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::binary::own_binary;
use super::installation::accounts;
use super::launch::standin;
use crate::config::accounts::Accounts;
use crate::config::{Config, EdgeKind, SupervisorKind};
use crate::driver::edge::Edge;
use crate::driver::edge::builtin::BuiltinEdge;
use crate::driver::edge::nginx::{Nginx, NginxSettings};
use crate::driver::listener::Listeners;
use crate::driver::supervisor::builtin::Builtin;
use crate::driver::supervisor::supervisord::{Supervisord, SupervisordSettings};
use crate::driver::supervisor::{OwnServices, Runner, Runners, SERVER, Service};
use crate::driver::upstream::Upstreams;
use crate::host::rotate::LOG_MAX;
use crate::render::{RenderError, Templates};
use crate::service::error::{ServiceError, chain};

/// How many sections of sleeping instances supervisord keeps: to wake one of these needs no
/// `reloadConfig`, which takes 3 ms. supervisord checks all its sections in every iteration of its
/// loop, so more would cost CPU time.
const SECTIONS_KEPT: usize = 64;

/// The drivers of one installation.
pub(super) struct Drivers {
    pub(super) accounts: Accounts,
    pub(super) runners: Runners,
    pub(super) own_services: Arc<dyn OwnServices>,
    pub(super) edge: Arc<dyn Edge>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) listeners: Listeners,
    pub(super) templates: Arc<Templates>,
}

impl Drivers {
    /// The drivers of these settings.
    ///
    /// # Errors
    /// Templates, accounts or nginx cannot be used.
    pub(super) fn new(config: &Config) -> Result<Self, ServiceError> {
        let templates =
            Templates::new(config.edge.templates.as_deref()).map_err(|e| wrong_templates(&e))?;
        let templates = Arc::new(templates);
        // Behind nginx, acc carries only requests that were held: a pool would only obscure which
        // instances are in use.
        let accounts = accounts(config)?;
        let pooling = config.edge.kind == EdgeKind::Builtin;
        let listeners = Listeners::default();
        let upstreams = Arc::new(Upstreams::sharing(listeners.clone(), pooling));
        let edge: Arc<dyn Edge> = match config.edge.kind {
            EdgeKind::Builtin => Arc::new(BuiltinEdge::new(upstreams.clone())),
            EdgeKind::Nginx => {
                let settings = NginxSettings::new(Arc::new(config.clone()));
                let nginx = Nginx::new(settings, templates.clone());
                Arc::new(nginx.map_err(|e| ServiceError::failed(chain(&e), "run `acc doctor`"))?)
            }
        };
        let (runners, own_services) = match config.supervisor {
            SupervisorKind::Builtin => both(Builtin::new(config.pid_dir(), LOG_MAX, standin())),
            SupervisorKind::Supervisord => {
                both(Supervisord::new(supervisord(config, templates.clone())))
            }
        };
        Ok(Self {
            accounts,
            runners,
            own_services,
            edge,
            upstreams,
            listeners,
            templates,
        })
    }

    /// The services that acc needs besides its own server.
    pub(super) fn services(&self) -> Result<Vec<Service>, ServiceError> {
        let hint = "install nginx, or set `edge.kind = \"builtin\"` in the config";
        let service = self.edge.service();
        let service = service.map_err(|e| ServiceError::failed(chain(&e), hint))?;
        Ok(service.into_iter().collect())
    }
}

/// A supervisor runs instances and acc's own services.
fn both<T: Runner + OwnServices + 'static>(supervisor: T) -> (Runners, Arc<dyn OwnServices>) {
    let supervisor = Arc::new(supervisor);
    (Runners::of_processes(supervisor.clone()), supervisor)
}

/// A template of the operator's cannot be used.
pub(super) fn wrong_templates(e: &RenderError) -> ServiceError {
    ServiceError::because(
        "could not use the templates",
        e,
        "fix the file, or remove `edge.templates` from the config",
    )
}

/// acc's own server as a service of a supervisor. Supervisors clear the environment, so settings
/// from it are passed as options.
pub(super) fn own_service(config: &Config) -> Service {
    let file = config
        .file
        .clone()
        .unwrap_or_else(|| PathBuf::from("/dev/null"));
    Service {
        name: SERVER,
        argv: vec![
            "/usr/bin/env".into(),
            format!("ACC_HOME={}", config.home.display()),
            format!("ACC_RUN={}", config.run.display()),
            own_binary().display().to_string(),
            "--config".into(),
            file.display().to_string(),
            "server".into(),
        ],
        log: config.own_log(SERVER),
        stop_signal: 15,
        stop_timeout: config.wake.timeout + Duration::from_secs(10),
    }
}

/// Where supervisord has its files.
fn supervisord(config: &Config, templates: Arc<Templates>) -> SupervisordSettings {
    SupervisordSettings {
        dir: config.supervisor_dir(),
        socket: config.supervisor_socket(),
        pid_file: config.supervisord_pid(),
        log: config.own_log("supervisord"),
        pid_dir: config.pid_dir(),
        log_max: LOG_MAX,
        keep: SECTIONS_KEPT,
        launcher: standin(),
        program: None,
        templates,
    }
}
