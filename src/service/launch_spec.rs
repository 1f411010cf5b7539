//! From a row to what can be run: the instance, its program, what to wait for. A launch is made
//! from the model once and kept: it is never made again from what the model has become, but for a
//! change of its port (`ground`).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::config::Config;
use crate::domain::account::Account;
use crate::domain::instance::{Instance, Launch, Listen, RunnerKind};
use crate::domain::model::{ListenKind, Model, Ready};
use crate::domain::name::{HostName, InstanceId, InstanceName};
use crate::driver::probe::ProbeTarget;
use crate::driver::supervisor::Program;
use crate::host::limits::{GroupLimits, OpenFiles, ProcessLimits, UNLIMITED};
use crate::models::{ModelError, find_model};
use crate::render::{self, RenderError};
use crate::service::context::Context;
use crate::service::error::{ErrorKind, ServiceError, chain};
use crate::service::instance::handle::Handle;
use crate::service::moved;
use crate::store::Row;

/// What stands for a launch's places, see [`moved`].
pub(super) fn key(ctx: &Context) -> String {
    let config = ctx.config();
    format!(
        "{} {} {}",
        config.home.display(),
        config.run.display(),
        ctx.acc.display()
    )
}

/// All hosts of an instance: the further ones first, as given, then NAME.domain.
pub(super) fn hosts(config: &Config, name: &InstanceName, further: &[HostName]) -> Vec<HostName> {
    let own = HostName::on_domain(name, &config.domain);
    further
        .iter()
        .filter(|h| **h != own)
        .cloned()
        .chain([own.clone()])
        .collect()
}

/// Where an instance listens.
pub(super) fn listen(config: &Config, name: &InstanceName, port: Option<u16>) -> Listen {
    match port {
        Some(port) => Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => Listen::Unix(config.socket(name.as_str())),
    }
}

/// Where a browser reaches a host.
pub(crate) fn url(config: &Config, host: &HostName) -> String {
    config.edge.url(host.as_str())
}

/// What the templates of a model see.
pub(super) fn context(
    ctx: &Context,
    name: &InstanceName,
    id: InstanceId,
    further: &[HostName],
    port: Option<u16>,
    params: &std::collections::BTreeMap<String, String>,
) -> render::instance::InstanceVariables {
    let config = ctx.config();
    let hosts = hosts(&config, name, further);
    let text = |path: std::path::PathBuf| path.display().to_string();
    render::instance::InstanceVariables {
        name: name.to_string(),
        id: id.0,
        host: hosts.first().map(ToString::to_string).unwrap_or_default(),
        url: hosts.first().map(|h| url(&config, h)).unwrap_or_default(),
        hosts: hosts.iter().map(ToString::to_string).collect(),
        socket: port.is_none().then(|| text(config.socket(name.as_str()))),
        port,
        dir: text(config.instance_dir(name.as_str())),
        data: text(config.data_dir(name.as_str())),
        params: params.clone(),
        acc: text(ctx.acc.clone()),
    }
}

/// Renders a launch.
pub(super) fn make(
    model: &Model,
    context: &render::instance::InstanceVariables,
) -> Result<Launch, ServiceError> {
    let said = |e: &RenderError| format!("could not use model `{}`: {}", model.name, chain(e));
    render::instance::launch(model, context).map_err(|e| cannot_render(model, said(&e), &e))
}

/// Is the model wrong, or the host? A text that cannot be rendered is for the model's author, a
/// file that cannot be written is for the operator.
pub(super) fn cannot_render(model: &Model, message: String, e: &RenderError) -> ServiceError {
    let file = |name: &str| {
        model
            .dir
            .parent()
            .unwrap_or(&model.dir)
            .join(name.split(": ").next().unwrap_or(name))
    };
    match e {
        // Its name begins with the model's: `shop/model.toml: env.A`, `shop/files/app.conf.tera`.
        RenderError::Template { name, .. } => {
            let hint = format!(
                "fix `{}`; docs/models.md lists the variables of templates",
                file(name).display()
            );
            ServiceError::new(ErrorKind::Invalid, message, hint)
        }
        RenderError::Command { .. } => {
            let hint = format!(
                "install that program, or fix `command` in `{}`",
                model.dir.join("model.toml").display()
            );
            ServiceError::new(ErrorKind::Invalid, message, hint)
        }
        RenderError::Read { .. } | RenderError::Write { .. } => ServiceError::failed(
            message,
            "check free space, owner and mode of that path, then try again",
        ),
    }
}

/// The model of this name, checked.
pub(super) fn model(config: &Config, name: &str) -> Result<Model, ServiceError> {
    find_model(&config.models(), name).map_err(|e| {
        let error = bad_model(name, &e);
        match error.kind {
            ErrorKind::NotFound => ServiceError {
                hint: format!("{} in {}", error.hint, config.models().display()),
                ..error
            },
            _ => error,
        }
    })
}

/// Refuses a model whose runner is not there, or cannot do what it needs.
pub(super) fn check_runner(ctx: &Context, model: &Model) -> Result<(), ServiceError> {
    let refused = |why: String| {
        ServiceError::new(
            ErrorKind::Invalid,
            format!("could not create from model `{}`: {why}", model.name),
            "choose another model; `acc models` lists the models",
        )
    };
    let runner = ctx.runners.of(&model.runner);
    let can = runner.map_err(|e| refused(chain(&e)))?.capabilities();
    let needs = [
        (
            can.local_processes,
            true,
            "run it as a process of this host",
        ),
        (
            can.handed_socket,
            model.listen == ListenKind::Fd,
            "hand its socket over",
        ),
        (
            can.notify,
            model.ready == Ready::Notify,
            "hear from it that it is ready",
        ),
    ];
    match needs.iter().find(|(can, needed, _)| *needed && !can) {
        None => Ok(()),
        Some((_, _, what)) => Err(refused(format!(
            "its runner `{}` cannot {what}",
            model.runner
        ))),
    }
}

/// The error for a model that cannot be used.
pub(crate) fn bad_model(name: &str, e: &ModelError) -> ServiceError {
    let (kind, message, hint) = match e {
        ModelError::Missing { .. } => (
            ErrorKind::NotFound,
            chain(e),
            "`acc models` lists the models",
        ),
        ModelError::Wrong { .. } => (
            ErrorKind::Invalid,
            chain(e),
            "fix that file and try again; docs/models.md explains every key",
        ),
        ModelError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => (
            ErrorKind::Invalid,
            format!("model `{name}` is incomplete: {}", chain(e)),
            "a model needs a `model.toml`: see docs/models.md",
        ),
        ModelError::Read { .. } => (
            ErrorKind::Failed,
            format!("model `{name}` cannot be used: {}", chain(e)),
            "check its owner and mode",
        ),
    };
    ServiceError::new(kind, message, hint)
}

/// The instance of a row, as it was made. Where that is not possible (it was made for other places,
/// or its model is gone), what the row has must do, and the reason is said: it can be stopped and
/// removed, and [`make_fit`] is what a start begins with.
///
/// # Errors
/// The database.
pub(super) fn entered(
    ctx: &Context,
    row: &Row,
) -> Result<(Instance, Option<String>), ServiceError> {
    match launch_of(ctx, row)? {
        Ok(launch) => Ok((with(ctx, row, launch), None)),
        Err(why) => Ok((
            with(ctx, row, row.launch.clone().unwrap_or_else(nothing)),
            Some(why.message),
        )),
    }
}

/// Before a start: one that could not be started when its task began may be startable by now. Says
/// why not.
pub(super) fn make_fit(ctx: &Context, handle: &Handle) -> Result<(), String> {
    if handle.is_fit() {
        return Ok(());
    }
    let read = |e: ServiceError| e.message;
    let row = ctx
        .store
        .by_id(handle.instance.id)
        .map_err(|e| read(crate::service::error::store(e)))?;
    let row = row.ok_or_else(|| {
        read(crate::service::error::no_instance(
            handle.instance.name.as_str(),
        ))
    })?;
    let launch = launch_of(ctx, &row).map_err(read)?.map_err(read)?;
    handle.relaunch(with(ctx, &row, launch));
    handle.set_fit();
    Ok(())
}

/// How it is run. What was made at creation stays; of that only the places follow, where acc's
/// program or an acc of before has moved. The outer error is the database's.
fn launch_of(ctx: &Context, row: &Row) -> Result<Result<Launch, ServiceError>, ServiceError> {
    let key = key(ctx);
    let launch = match &row.launch {
        Some(launch) if row.launch_key == key => return Ok(Ok(launch.clone())),
        Some(launch) if !row.launch_key.is_empty() => {
            match moved::carried(launch, &row.launch_key, &key) {
                Some(carried) => carried,
                None => {
                    let why = format!(
                        "it was created for other folders (`{}`, now `{key}`)",
                        row.launch_key
                    );
                    return Ok(Err(ServiceError::failed(why, "create it again")));
                }
            }
        }
        // From an acc that kept none.
        _ => {
            let made = model(&ctx.config(), &row.model).and_then(|model| {
                make(
                    &model,
                    &context(ctx, &row.name, row.id, &row.hosts, row.port, &row.params),
                )
            });
            match made {
                Ok(launch) => launch,
                Err(e) => return Ok(Err(e)),
            }
        }
    };
    ctx.store
        .relaunch(row.id, &launch, &key)
        .map_err(crate::service::error::store)?;
    if row.launch.as_ref().is_some_and(|before| *before != launch) {
        moved::tell(ctx, row, &key);
    }
    Ok(Ok(launch))
}

/// Of one that cannot be started.
fn nothing() -> Launch {
    Launch {
        runner: RunnerKind::default(),
        argv: Vec::new(),
        env: Vec::new(),
        handed: false,
        notifies: false,
        health: None,
        stop_signal: libc::SIGTERM,
        start_timeout: None,
        stop_timeout: None,
    }
}

/// The instance of a row that can be started.
#[cfg(test)]
pub(super) fn instance(ctx: &Context, row: &Row) -> Result<Instance, ServiceError> {
    Ok(entered(ctx, row)?.0)
}

fn with(ctx: &Context, row: &Row, launch: Launch) -> Instance {
    let config = ctx.config();
    Instance {
        id: row.id,
        name: row.name.clone(),
        model: row.model.clone(),
        hosts: hosts(&config, &row.name, &row.hosts),
        listen: listen(&config, &row.name, row.port),
        launch,
        account: account(ctx),
        owner: row.owner.clone(),
        idle_timeout: row.idle,
        created_at: row.created_at,
        last_wake_at: row.last_wake_at,
        last_active_at: row.last_active_at,
        wakes: row.wakes,
    }
}

/// The account that an instance runs under: nothing else decides it. Today all instances of an
/// installation have the one of its setting `user`.
pub(super) fn account(ctx: &Context) -> Account {
    ctx.account.clone()
}

/// All accounts that instances of this installation run under.
pub(super) fn accounts(ctx: &Context) -> Vec<Account> {
    vec![account(ctx)]
}

/// What runs the instance of a row.
pub(super) fn runner_kind(row: &Row) -> RunnerKind {
    let launch = row.launch.as_ref();
    launch.map_or_else(RunnerKind::default, |launch| launch.runner.clone())
}

/// What the supervisor gets.
pub(super) fn program(ctx: &Context, instance: &Instance) -> Program {
    let config = ctx.config();
    let name = instance.name.as_str();
    Program {
        name: instance.name.clone(),
        argv: instance.launch.argv.clone(),
        env: env(&config, instance),
        dir: config.instance_dir(name),
        log: config.app_log(name),
        stop_signal: instance.launch.stop_signal,
        // acc kills by itself, a little earlier; this is for a supervisor that is left alone.
        stop_timeout: ctx.limits(instance).stop + Duration::from_secs(5),
        socket: match &instance.listen {
            Listen::Unix(path) if instance.launch.handed => Some(path.clone()),
            Listen::Unix(_) | Listen::Tcp(_) => None,
        },
        account: instance.account.clone(),
        // With a user of its own, what it makes is for that and its group. The group of a socket is
        // that of the edge, which must be able to connect.
        umask: match &instance.account {
            Account::User { .. } => 0o007,
            Account::SameAsAcc => 0o022,
        },
        limits: limits(ctx, &config),
        group: GroupLimits {
            processes: config.limits.processes,
            memory: config.limits.memory,
        },
    }
}

/// What each of its processes may use.
fn limits(ctx: &Context, config: &Config) -> ProcessLimits {
    let limits = &config.limits;
    ProcessLimits {
        open_files: Some(
            limits
                .open_files
                .map_or_else(|| ctx.open_files(), OpenFiles::exactly),
        ),
        file_size: limits.file_size,
        core: Some(limits.core.unwrap_or(UNLIMITED)),
    }
}

/// The environment of the row, and where to say that it is ready.
fn env(config: &Config, instance: &Instance) -> Vec<(String, String)> {
    let mut env = instance.launch.env.clone();
    if instance.launch.notifies {
        env.push((
            "NOTIFY_SOCKET".to_owned(),
            config
                .notify_socket(instance.name.as_str())
                .display()
                .to_string(),
        ));
    }
    env
}

/// What the probe waits for.
pub(super) fn probe_target(ctx: &Context, instance: &Instance) -> ProbeTarget {
    ProbeTarget {
        listen: instance.listen.clone(),
        handed: instance.launch.handed,
        notify: instance
            .launch
            .notifies
            .then(|| ctx.config().notify_socket(instance.name.as_str())),
        health: instance.launch.health.clone(),
        host: instance
            .hosts
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
        account: instance.account.clone(),
    }
}
