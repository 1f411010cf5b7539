//! `server`: takes the lock, takes charge of what runs, listens, and looks around now and then until it is told to end.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Drivers, lock, open_store, places, world, wrong_templates};
use crate::config::{Config, EdgeKind};

use crate::driver::host::{fs, listen};
use crate::interface::control;
use crate::proxy::access_log::AccessLog;
use crate::proxy::listen::Listener;
use crate::proxy::{self, Front, Proxy, ProxySettings};
use crate::render::pages::Pages;
use crate::service::error::{ServiceError, chain};
use crate::service::outcome::Outcome;
use crate::service::request::Request;
use crate::service::world::World;
use crate::service::{self, recover};

/// Runs the server until SIGTERM or SIGINT. `reload` reads the settings again at SIGHUP.
pub async fn serve(config: Config, reload: impl Fn() -> Result<Config, ServiceError> + Send + Sync + 'static) -> Result<(), ServiceError> {
    places::prepare(&config)?;
    let _owner = lock::take(&config).await?;
    let drivers = Drivers::new(&config)?;
    let world = world(&config, &drivers, open_store(&config)?)?;
    let shutdown = CancellationToken::new();
    let control = control::bind(&config.control_socket()).map_err(|e| {
        let hint = "check `run` in the config: is it short enough, writable, on a local disk?";
        ServiceError::because(format!("could not listen on `{}`", config.control_socket().display()), &e, hint)
    })?;
    let (proxy, log) = front(&world, &drivers, &config)?;
    let listeners = listeners(&config)?;

    recover::recover(&world).await?;
    let adopted = recover::adopt(&world)?;
    start_edge(&world, &drivers).await?;

    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(control::serve(control, Arc::new(Verbs(world.clone())), shutdown.clone()));
    let grace = config.wake.timeout + Duration::from_secs(5);
    let (served, token) = (proxy.clone(), shutdown.clone());
    tasks.spawn(async move {
        let report = proxy::serve::serve(listeners, served, token, grace).await;
        info!(accepted = report.accepted, cut = report.cut, "the edge ended");
    });
    tasks.spawn(look_around(world.clone(), shutdown.clone()));

    info!(pid = std::process::id(), adopted, edge = drivers.edge.kind(), supervisor = drivers.supervisor.kind(), "acc's server is up");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    follow_signals(&world, &proxy, &drivers, &reload).await;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    info!("ending: no new work, what is held is finished");
    shutdown.cancel();
    while tasks.join_next().await.is_some() {}
    drop(proxy);
    if let Some(log) = log {
        let _ = log.await;
    }
    let _ = fs::remove_file(&config.control_socket());
    Ok(())
}

/// Verbs that come over the control socket.
struct Verbs(Arc<World>);

#[async_trait]
impl control::Handler for Verbs {
    async fn handle(&self, request: Request) -> Result<Outcome, ServiceError> {
        service::handle(&self.0, request).await
    }
}

/// The proxy and, where acc itself is the edge, the task that writes access logs.
fn front(world: &Arc<World>, drivers: &Drivers, config: &Config) -> Result<(Arc<Proxy>, Option<JoinHandle<()>>), ServiceError> {
    let pages = Pages::new(drivers.templates.clone()).map_err(|e| wrong_templates(&e))?;
    let (log, task) = match config.edge.kind {
        EdgeKind::Nginx => (None, None),
        EdgeKind::Builtin => {
            let places = config.clone();
            let path = move |name: &str, counts| if counts { places.access_log(name) } else { places.uncounted_log(name) };
            let (log, task) = AccessLog::start(Box::new(path));
            (Some(log), Some(task))
        }
    };
    let door = Arc::new(world.clone());
    Ok((Arc::new(Proxy::new(door, drivers.upstreams.clone(), ProxySettings::new(config), pages, log)), task))
}

fn listeners(config: &Config) -> Result<Vec<Listener>, ServiceError> {
    let failed = |e: &dyn std::error::Error| {
        let hint = "end the other program, or choose another address in `edge.listen`; below port 1024 root is needed";
        ServiceError::failed(chain(e), hint)
    };
    if config.edge.kind == EdgeKind::Nginx {
        let listener = listen::unix(&config.wake_socket(), 0o600).map_err(|e| failed(&e))?;
        places::give_to_edge(config, &config.wake_socket())?;
        return Ok(vec![Listener::from_unix(listener, Front::Wake).map_err(|e| failed(&e))?]);
    }
    let mut tcp = Vec::new();
    let mut given = listenfd::ListenFd::from_env();
    for n in 0..given.len() {
        tcp.extend(given.take_tcp_listener(n).ok().flatten());
    }
    if tcp.is_empty() {
        for address in &config.edge.listen {
            tcp.push(listen::tcp(*address).map_err(|e| failed(&e))?);
        }
    }
    tcp.into_iter().map(|l| Listener::from_tcp(l, Front::Public).map_err(|e| failed(&e))).collect()
}

/// nginx: the configuration as it should be now; under the builtin supervisor it is also started.
async fn start_edge(world: &Arc<World>, drivers: &Drivers) -> Result<(), ServiceError> {
    let Some(nginx) = &drivers.nginx else { return Ok(()) };
    let routes = recover::all_routes(world)?;
    let failed = |e| ServiceError::failed(format!("could not prepare nginx: {}", chain(&e)), "run `acc doctor`");
    if drivers.supervisord.is_some() {
        // A refused configuration must not keep the wake server down: the former one is still in force.
        if let Err(e) = drivers.edge.apply(&routes).await {
            error!("could not bring nginx's configuration up to date: {}", chain(&e));
        }
        return Ok(());
    }
    drivers.edge.prepare(&routes).await.map_err(failed)?;
    let service = nginx.service().map_err(failed)?;
    let started = drivers.supervisor.ensure_service(&service).await;
    started.map(drop).map_err(|e| ServiceError::because("could not start nginx", &e, "run `acc doctor`"))
}

/// The server's own monitor: one pass at once, then one every `idle.check_every`.
async fn look_around(world: Arc<World>, shutdown: CancellationToken) {
    loop {
        let pass = service::handle(&world, Request::Monitor { dry_run: false, thorough: false });
        tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = pass => report(outcome),
        }
        if !pause(&world, &shutdown).await {
            return;
        }
    }
}

/// The pause between two passes: as the settings say now, and for ever when they say "off". `false`: the server ends.
async fn pause(world: &World, shutdown: &CancellationToken) -> bool {
    loop {
        let until = async {
            match world.config().idle.check_every {
                Some(every) => tokio::time::sleep(every).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return false,
            () = world.reconfigured() => {}
            () = until => return true,
        }
    }
}

fn report(outcome: Result<Outcome, ServiceError>) {
    match outcome {
        Ok(Outcome::Monitor(pass)) => {
            for line in pass.lines {
                match line.action.as_str() {
                    "error" => warn!(instance = %line.instance, "{}", line.why),
                    action => info!(instance = %line.instance, action, "{}", line.why),
                }
            }
        }
        Ok(_) => {}
        Err(e) => warn!("a monitor pass failed: {e}"),
    }
}

/// Returns at SIGTERM or SIGINT; SIGHUP puts changed settings in force.
async fn follow_signals(world: &Arc<World>, proxy: &Proxy, drivers: &Drivers, reload: &impl Fn() -> Result<Config, ServiceError>) {
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        error!("could not follow signals");
        return;
    };
    loop {
        tokio::select! {
            _ = term.recv() => return,
            _ = int.recv() => return,
            _ = hup.recv() => match reload() {
                Ok(config) => reconfigure(world, proxy, drivers, config).await,
                Err(e) => error!("the settings were not changed: {e}"),
            },
        }
    }
}

async fn reconfigure(world: &Arc<World>, proxy: &Proxy, drivers: &Drivers, new: Config) {
    let old = world.config();
    let fixed =
        |c: &Config| (c.home.clone(), c.run.clone(), c.domain.clone(), c.user.clone(), c.supervisor, c.edge.kind, c.edge.listen.clone());
    if fixed(&old) != fixed(&new) {
        return error!("the settings were not changed: home, run, domain, user, kinds and listen need `acc halt` and `acc boot`");
    }
    proxy.reload(ProxySettings::new(&new));
    if let Some(nginx) = &drivers.nginx {
        nginx.reconfigure(Arc::new(new.clone()));
        match recover::all_routes(world) {
            Ok(routes) => {
                if let Err(e) = drivers.edge.apply(&routes).await {
                    error!("nginx keeps its former configuration: {}", chain(&e));
                }
            }
            Err(e) => error!("nginx keeps its former configuration: {e}"),
        }
    }
    world.reconfigure(new);
    info!("the settings were read again");
}
