//! The worker behind `keeper`: takes the owner's lock, takes charge of what runs, accepts, and looks around now and then, until
//! it is told to end or to make way for another worker. Once it has made way it decides nothing and only carries on.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::image::Image;
use super::keeper::Sockets;
use super::keeper::tether::{Tether, Word};
use super::{Drivers, lock, open_store, world, wrong_templates};
use crate::config::{Config, EdgeKind};
use crate::driver::host::lanes::Lanes;
use crate::driver::host::sent::Sent;
use crate::interface::control;
use crate::proxy::access_log::AccessLog;
use crate::proxy::listen::Listener;
use crate::proxy::{self, Ends, Front, Proxy, ProxySettings, ServeReport};
use crate::render::pages::Pages;
use crate::service::error::{ServiceError, chain};
use crate::service::outcome::Outcome;
use crate::service::request::Request;
use crate::service::retire::retire;
use crate::service::world::World;
use crate::service::{self, recover};

/// How long an upgrade waits for a moment in which no verb is at work.
const QUIET_WITHIN: Duration = Duration::from_secs(40);

/// What a worker is given by its keeper.
pub(super) struct Handed {
    pub(super) sockets: Sockets,
    pub(super) tether: Tether,
}

/// Why serving ends.
enum End {
    /// The host, the operator or the supervisor wants it.
    Shutdown,
    /// Another worker takes over.
    Retire,
}

/// Runs until SIGTERM or SIGINT, or until the keeper says that another worker takes over and all that is carried has ended.
/// `reload` reads the settings again at SIGHUP.
pub(super) async fn serve(config: Config, handed: Handed, reload: super::Reload) -> Result<(), ServiceError> {
    let Handed { sockets, tether } = handed;
    let tether = Arc::new(tether);
    let mut signals =
        Followed::new().map_err(|e| ServiceError::because("could not follow signals", &e, "is the limit of open files reached?"))?;
    let drivers = Drivers::new(&config)?;
    let pages = Pages::new(drivers.templates.clone()).map_err(|e| wrong_templates(&e))?;
    let (control, listeners) = accepting(sockets, &config)?;
    tether.say(Word::Prepared);

    let owner = lock::take(&config).await?;
    let world = world(&config, &drivers, open_store(&config)?)?;
    world.set_serving();
    let (proxy, log) = front(&world, &drivers, &config, pages)?;
    recover::recover(&world).await?;
    let adopted = recover::adopt(&world)?;
    start_edge(&world, &drivers).await?;

    let verbs = Arc::new(Verbs { world: world.clone(), tether: tether.clone(), image: Image::own(), at_work: watch::Sender::new(0) });
    let (ends, decided) = (Ends::default(), CancellationToken::new());
    let control = tokio::spawn(control::serve(control, verbs.clone(), decided.clone()));
    let looking = tokio::spawn(look_around(world.clone(), decided.clone()));
    let grace = config.wake.timeout + Duration::from_secs(5);
    let lanes = Lanes::start()
        .map_err(|e| ServiceError::because("could not start the threads of the edge", &e, "is the limit of processes reached?"))?;
    let serving = tokio::spawn(proxy::serve::serve(listeners, proxy.clone(), lanes, ends.clone(), grace));

    info!(pid = std::process::id(), adopted, edge = drivers.edge.kind(), supervisor = drivers.supervisor.kind(), "acc's server is up");
    tether.say(Word::Ready);
    let end = until_the_end(&world, &proxy, &drivers, &reload, &mut signals, &tether).await;
    match end {
        End::Shutdown => {
            info!("ending: no new work, what is held is finished");
            ends.shutdown.cancel();
        }
        End::Retire => verbs.until_quiet().await,
    }
    decided.cancel();
    let _ = tokio::join!(control, looking);
    if matches!(end, End::Retire) {
        ends.hand_over.cancel();
        retire(&world).await;
        drivers.upstreams.retire();
        info!("another worker takes over: what is carried is finished");
        drop(owner);
        finish(serving, &ends, &mut signals, &tether).await;
    } else {
        report_end(serving.await);
    }
    drop((proxy, verbs));
    if let Some(log) = log {
        let _ = log.await;
    }
    Ok(())
}

/// Carries to its end what was there when another worker took over, and collects the instances this one had started.
async fn finish(mut serving: JoinHandle<ServeReport>, ends: &Ends, signals: &mut Followed, tether: &Tether) {
    loop {
        tokio::select! {
            report = &mut serving => return report_end(report),
            _ = signals.term.recv() => ends.shutdown.cancel(),
            _ = signals.int.recv() => ends.shutdown.cancel(),
            _ = signals.child.recv() => while waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)).is_ok_and(|s| s != WaitStatus::StillAlive) {},
            None = tether.hear(), if !ends.shutdown.is_cancelled() => ends.shutdown.cancel(),
        }
    }
}

fn report_end(report: Result<ServeReport, tokio::task::JoinError>) {
    match report {
        Ok(report) => info!(accepted = report.accepted, cut = report.cut, "the edge ended"),
        Err(error) => error!(%error, "the edge ended by a fault"),
    }
}

/// The signals it follows.
struct Followed {
    term: Signal,
    int: Signal,
    hup: Signal,
    child: Signal,
}

impl Followed {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            child: signal(SignalKind::child())?,
        })
    }
}

/// Verbs that come over the control socket.
struct Verbs {
    world: Arc<World>,
    tether: Arc<Tether>,
    image: Image,
    at_work: watch::Sender<usize>,
}

impl Verbs {
    /// Waits for a moment in which no verb is at work: a verb cannot be handed over.
    async fn until_quiet(&self) {
        let mut at_work = self.at_work.subscribe();
        let quiet = tokio::time::timeout(QUIET_WITHIN, at_work.wait_for(|n| *n == 0)).await;
        if quiet.is_err() {
            warn!("commands are still at work: new ones wait until they have ended and the upgrade is done");
        }
    }
}

#[async_trait]
impl control::Handler for Verbs {
    async fn handle(&self, request: Request) -> Result<Outcome, ServiceError> {
        match request {
            Request::Upgrade => {
                self.tether.say(Word::Upgrade);
                return Ok(Outcome::Upgrading);
            }
            Request::Ping => {
                return Ok(match service::handle(&self.world, request).await? {
                    Outcome::Pong { pid, version, .. } => Outcome::Pong { pid, version, outdated: self.image.is_outdated() },
                    other => other,
                });
            }
            _ => {}
        }
        self.at_work.send_modify(|n| *n += 1);
        let outcome = service::handle(&self.world, request).await;
        self.at_work.send_modify(|n| *n -= 1);
        outcome
    }
}

/// The proxy and, where acc itself is the edge, the task that writes access logs.
fn front(
    world: &Arc<World>,
    drivers: &Drivers,
    config: &Config,
    pages: Pages,
) -> Result<(Arc<Proxy>, Option<JoinHandle<()>>), ServiceError> {
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
    let proxy = Proxy::new(door, drivers.upstreams.clone(), ProxySettings::new(config), pages, log);
    let proxy = match config.edge.kind {
        // nginx asks again when this process is killed; acc's own clients are gone with it.
        EdgeKind::Nginx => proxy.noting(Sent::begin(&config.sent_dir()).map_err(|e| {
            ServiceError::because(format!("could not use `{}`", config.sent_dir().display()), &e, "check space, owner and mode")
        })?),
        EdgeKind::Builtin => proxy,
    };
    Ok((Arc::new(proxy), task))
}

/// The sockets, ready to accept from.
fn accepting(sockets: Sockets, config: &Config) -> Result<(tokio::net::UnixListener, Vec<Listener>), ServiceError> {
    if config.edge.kind == EdgeKind::Builtin && sockets.tcp.is_empty() {
        let hint = "`acc halt`, then `acc boot`";
        return Err(ServiceError::failed("the kind of the edge was changed while acc ran", hint));
    }
    let unusable =
        |e: std::io::Error| ServiceError::because("could not use the sockets of the keeper", &e, "is the limit of open files reached?");
    sockets.control.set_nonblocking(true).map_err(unusable)?;
    let control = tokio::net::UnixListener::from_std(sockets.control).map_err(unusable)?;
    let mut listeners = vec![Listener::from_unix(sockets.wake, Front::Wake).map_err(unusable)?];
    for listener in sockets.tcp {
        listeners.push(Listener::from_tcp(listener, Front::Public).map_err(unusable)?);
    }
    Ok((control, listeners))
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

/// Returns when serving shall end; SIGHUP puts changed settings in force.
async fn until_the_end(
    world: &Arc<World>,
    proxy: &Proxy,
    drivers: &Drivers,
    reload: &super::Reload,
    signals: &mut Followed,
    tether: &Tether,
) -> End {
    loop {
        tokio::select! {
            _ = signals.term.recv() => return End::Shutdown,
            _ = signals.int.recv() => return End::Shutdown,
            word = tether.hear() => match word {
                Some(Word::Retire) => return End::Retire,
                Some(_) => {}
                // The keeper has died, and with it whoever watches this process.
                None => return End::Shutdown,
            },
            _ = signals.hup.recv() => match reload() {
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
