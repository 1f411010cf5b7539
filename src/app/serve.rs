//! The worker behind `keeper`: takes the owner's lock, takes charge of what runs, accepts, and looks around now and then, until
//! it is told to end or to make way for another worker. Once it has made way it decides nothing and only carries on.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::image::Image;
use super::keeper::tether::{Tether, Word};
use super::keeper::{Sockets, Spare};
use super::reload::{Reloader, note_in_force};
use super::{Drivers, lock, open_store_patiently, world, wrong_templates};
use crate::config::{Booted, Config, EdgeKind, SupervisorKind};
use crate::control;
use crate::host::io_threads::IoThreads;
use crate::host::memory;
use crate::host::{append, process};
use crate::proxy::access_log::AccessLog;
use crate::proxy::listen::ProxyListener;
use crate::proxy::replay_notes::ReplayNotes;
use crate::proxy::{self, Front, Proxy, ProxySettings, ServeReport, ShutdownSignals};
use crate::render::pages::Pages;
use crate::service::error::{ServiceError, chain};
use crate::service::handover::retire;
use crate::service::outcome::Outcome;
use crate::service::request::Request;
use crate::service::world::World;
use crate::service::{self, log_bound, monitor, moved, ports, recover, run_watch};

/// How long a server that ends waits for a slow database.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
/// How long an upgrade waits for a moment in which no verb is at work.
const QUIET_WITHIN: Duration = Duration::from_secs(40);

/// How long a verb waits for what was left half-done.
const RECOVERED_WITHIN: Duration = Duration::from_secs(20);

/// How long the end waits for the last lines of the access logs.
const LOG_WITHIN: Duration = Duration::from_secs(5);

/// What a worker is given by its keeper.
pub(super) struct Handed {
    pub(super) sockets: Sockets,
    pub(super) tether: Tether,
    pub(super) lock: OwnedFd,
    pub(super) keeper: Keeper,
}

/// The keeper's process, and who has started it.
pub(super) enum Keeper {
    /// A worker, which may not have lived to tell the supervisor.
    Renewed(u32),
    /// Whoever else, who knows.
    Parent(u32),
}

/// The line to the keeper; another keeper is another line.
type Line = Arc<Mutex<Arc<Tether>>>;

fn tether(line: &Line) -> Arc<Tether> {
    line.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Why serving ends.
enum End {
    /// The host, the operator or the supervisor wants it.
    Shutdown,
    /// Another worker takes over.
    Retire,
}

/// A descriptor could not be had.
fn no_descriptor(what: &str, error: &std::io::Error) -> ServiceError {
    ServiceError::because(what, error, "is the limit of open files reached?")
}

/// Runs until SIGTERM or SIGINT, or until the keeper says that another worker takes over and all that is carried has ended.
/// `reload` reads the settings again at SIGHUP.
pub(super) async fn serve(config: Config, handed: Handed, reload: super::Reload) -> Result<(), ServiceError> {
    let Handed { sockets, tether: line, lock, keeper } = handed;
    let spare = Spare::new(&sockets, lock).map_err(|e| no_descriptor("could not use the sockets of the keeper", &e))?;
    let line: Line = Arc::new(Mutex::new(Arc::new(line)));
    let mut signals = Followed::new().map_err(|e| no_descriptor("could not follow signals", &e))?;
    let drivers = Drivers::new(&config)?;
    let pages = Pages::new(drivers.templates.clone()).map_err(|e| wrong_templates(&e))?;
    let (control, listeners) = accepting(sockets, &config)?;
    // The one that serves makes way at the next word: only for one that has its turn.
    let place = lock::Place::at_head(&config).await?;
    tether(&line).say(Word::Prepared);
    let owner = place.take(&config).await?;
    let world = serving_world(&config, &drivers).await?;
    let (proxy, log) = front(&world, &drivers, &config, pages)?;
    world.mind_run_folder(vec![config.wake_socket(), config.control_socket()], held_files(&config));
    match keeper {
        Keeper::Renewed(pid) => note_keeper(&world, pid).await,
        Keeper::Parent(pid) => world.set_parent(i32::try_from(pid).ok().and_then(|pid| process::by_pid(pid).ok().flatten())),
    }
    recover::tidy(&world)?;
    let adopted = recover::adopt(&world)?;
    start_edge(&world, &drivers).await?;

    let reloader = Arc::new(Reloader::new(&world, &proxy, &drivers, reload));
    let (recovering, recovered) = watch::channel(false);
    let verbs = Arc::new(Verbs::new(&world, &line, &reloader, recovered));
    let (ends, decided) = (ShutdownSignals::default(), CancellationToken::new());
    // Before the first connection is accepted: its death would cut it.
    outlive_keeper();
    let control = tokio::spawn(control::serve(control, verbs.clone(), decided.clone()));
    let looking = tokio::spawn(look_around(world.clone(), decided.clone(), recovering));
    let watching = watch_over(&world, &decided);
    let grace = config.wake.timeout + Duration::from_secs(5);
    let serving = tokio::spawn(proxy::serve::serve(listeners, proxy.clone(), io_threads()?, ends.clone(), grace));
    info!(pid = std::process::id(), adopted, edge = drivers.edge.kind(), supervisor = drivers.supervisor.kind(), "acc's server is up");
    note_in_force(&world, &config);
    tether(&line).say(Word::Ready);
    let end = until_the_end(&world, &reloader, &mut signals, (&line, spare)).await;
    if matches!(end, End::Retire) {
        verbs.until_quiet().await;
    } else {
        info!("ending: no new work, what is held is finished");
        ends.shutdown.cancel();
    }
    decided.cancel();
    let _ = tokio::join!(control, looking, join_all(watching));
    if matches!(end, End::Retire) {
        ends.hand_over.cancel();
        retire(&world).await;
        drivers.upstreams.retire();
        info!("another worker takes over: what is carried is finished");
        drop(owner);
        finish(serving, &ends, &mut signals, &tether(&line)).await;
    } else {
        report_end(serving.await);
    }
    drop((proxy, verbs, reloader));
    let _ = tokio::join!(finish_log(log), tokio::time::timeout(WRITTEN_WITHIN, world.written()));
    Ok(())
}

/// What is looked at all the time: logs, listeners, and what lies in the run folder.
fn watch_over(world: &Arc<World>, until: &CancellationToken) -> [JoinHandle<()>; 3] {
    [
        tokio::spawn(log_bound::watch(world.clone(), until.clone())),
        tokio::spawn(ports::watch(world.clone(), until.clone())),
        tokio::spawn(run_watch::watch(world.clone(), until.clone())),
    ]
}

/// Lets the last lines of the access logs be written, but does not wait for a disk that takes too long.
async fn finish_log(log: Option<JoinHandle<()>>) {
    if let Some(log) = log
        && tokio::time::timeout(LOG_WITHIN, log).await.is_err()
    {
        warn!("the last lines of the access logs could not be written: the disk takes too long");
    }
}

/// Until it serves it dies with its keeper; from now on it makes another one.
fn outlive_keeper() {
    if let Err(error) = rustix::process::set_parent_process_death_signal(None) {
        warn!(%error, "it dies with its keeper");
    }
}

/// Carries to its end what was there when another worker took over, and collects the instances this one had started.
async fn finish(mut serving: JoinHandle<ServeReport>, ends: &ShutdownSignals, signals: &mut Followed, tether: &Tether) {
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
    line: Line,
    image: Image,
    reloader: Arc<Reloader>,
    at_work: watch::Sender<usize>,
    /// What was left half-done has been taken up.
    recovered: watch::Receiver<bool>,
}

impl Verbs {
    fn new(world: &Arc<World>, line: &Line, reloader: &Arc<Reloader>, recovered: watch::Receiver<bool>) -> Self {
        let (world, line, reloader) = (world.clone(), line.clone(), reloader.clone());
        Self { world, line, image: Image::own(), reloader, at_work: watch::Sender::new(0), recovered }
    }

    /// Lets what was left half-done come to its end first, but does not wait for it for long.
    async fn until_recovered(&self) {
        let _ = tokio::time::timeout(RECOVERED_WITHIN, self.recovered.clone().wait_for(|done| *done)).await;
    }

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
                tether(&self.line).say(Word::Upgrade);
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
        self.until_recovered().await;
        self.at_work.send_modify(|n| *n += 1);
        let outcome = match request {
            Request::Reload => self.reloader.run().await.map(Outcome::Reloaded),
            request => service::handle(&self.world, request).await,
        };
        self.at_work.send_modify(|n| *n -= 1);
        outcome
    }
}

/// The threads that serve clients.
fn io_threads() -> Result<IoThreads, ServiceError> {
    IoThreads::start()
        .map_err(|e| ServiceError::because("could not start the threads of the edge", &e, "is the limit of processes reached?"))
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
        EdgeKind::Nginx => proxy.noting(ReplayNotes::begin(&config.sent_dir()).map_err(|e| {
            ServiceError::because(format!("could not use `{}`", config.sent_dir().display()), &e, "check space, owner and mode")
        })?),
        EdgeKind::Builtin => proxy,
    };
    Ok((Arc::new(proxy), task))
}

/// The sockets, ready to accept from.
fn accepting(sockets: Sockets, config: &Config) -> Result<(tokio::net::UnixListener, Vec<ProxyListener>), ServiceError> {
    if config.edge.kind == EdgeKind::Builtin && sockets.tcp.is_empty() {
        let hint = "`acc halt`, then `acc boot`";
        return Err(ServiceError::failed("the kind of the edge was changed while acc ran", hint));
    }
    let unusable =
        |e: std::io::Error| ServiceError::because("could not use the sockets of the keeper", &e, "is the limit of open files reached?");
    sockets.control.set_nonblocking(true).map_err(unusable)?;
    let control = tokio::net::UnixListener::from_std(sockets.control).map_err(unusable)?;
    let wake = ProxyListener::from_unix(sockets.wake, Front::Wake).map_err(unusable)?;
    let mut listeners = vec![wake.only_for(speakers(config)?)];
    for listener in sockets.tcp {
        listeners.push(ProxyListener::from_tcp(listener, Front::Public).map_err(unusable)?);
    }
    Ok((control, listeners))
}

/// Who may ask for what nginx cannot serve: its workers, and acc itself (an earlier worker, and root).
fn speakers(config: &Config) -> Result<Vec<u32>, ServiceError> {
    let edge = super::accounts(config)?.edge.map(|owner| owner.uid);
    Ok(edge.into_iter().chain([0, rustix::process::geteuid().as_raw()]).collect())
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
    // One that runs and whose record was taken away is not started twice.
    if let Some(running) = drivers.edge.process().await.map_err(failed)? {
        let kept = drivers.supervisor.keep_record("nginx", running).await;
        kept.map_err(|e| ServiceError::because("could not write down which process nginx is", &e, "check space, owner and mode"))?;
    }
    let started = drivers.supervisor.ensure_service(&service).await;
    started.map(drop).map_err(|e| ServiceError::because("could not start nginx", &e, "run `acc doctor`"))
}

/// The server's own monitor: takes up what was left half-done, then one pass at once, and one every `idle.check_every`.
async fn look_around(world: Arc<World>, shutdown: CancellationToken, recovering: watch::Sender<bool>) {
    tokio::select! {
        () = shutdown.cancelled() => return,
        taken_up = recover::take_up(&world) => if let Err(e) = taken_up {
            warn!("what was left half-done could not be taken up: {e}");
        },
    }
    recovering.send_replace(true);
    let mut starting = true;
    loop {
        let pass = service::handle(&world, Request::Monitor { dry_run: false, thorough: false });
        tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = pass => monitor::report(outcome),
        }
        let _ = tokio::task::spawn_blocking(memory::give_back).await;
        if std::mem::take(&mut starting) {
            memory::let_go_of_program();
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

/// Returns when serving shall end; SIGHUP puts changed settings in force.
async fn until_the_end(world: &Arc<World>, reloader: &Reloader, signals: &mut Followed, (line, mut spare): (&Line, Spare)) -> End {
    loop {
        let tether = tether(line);
        tokio::select! {
            _ = signals.term.recv() => return End::Shutdown,
            _ = signals.int.recv() => return End::Shutdown,
            word = tether.hear() => match word {
                Some(Word::Retire) => return End::Retire,
                Some(_) => {}
                None => if !another_keeper(world, line, &mut spare).await {
                    return End::Shutdown;
                },
            },
            // The keeper makes them, and gives them to the next worker.
            () = world.sockets_wanted() => tether.say(Word::Upgrade),
            _ = signals.hup.recv() => if let Err(e) = reloader.run().await {
                error!("the settings were not changed: {e}");
            },
        }
    }
}

/// The keeper has died: another one takes its place, and nobody is refused meanwhile. `false`: there shall be none, because acc
/// was halted, or because the keeper was run by somebody who sees it die and decides.
async fn another_keeper(world: &World, line: &Line, spare: &mut Spare) -> bool {
    let config = world.config();
    let wanted = match config.booted() {
        Booted::No => false,
        Booted::InBackground => true,
        Booted::InForeground => config.supervisor == SupervisorKind::Supervisord,
    };
    if !wanted {
        return false;
    }
    // What it wrote to may have been read by whoever read the words of the one that died.
    if let Err(error) = append::take_output(&config.own_log("server")) {
        warn!(%error, "could not open its own log");
    }
    let (tether, pid) = match spare.start() {
        Ok(started) => started,
        Err(error) => {
            error!(%error, "the keeper has died, and another one could not be started: ending");
            return false;
        }
    };
    warn!(pid, "the keeper has died: another one takes its place");
    *line.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(tether);
    note_keeper(world, pid).await;
    true
}

/// The parts of a server.
async fn serving_world(config: &Config, drivers: &Drivers) -> Result<Arc<World>, ServiceError> {
    let mut store = open_store_patiently(config).await?;
    moved::refuse_other_places(config, &store)?;
    store.write_back_beside().map_err(crate::service::error::store)?;
    let world = world(config, drivers, store)?;
    world.set_serving();
    world.write_beside().map_err(|e| {
        ServiceError::because("could not start the thread that writes to the database", &e, "raise the limit of processes of this user")
    })?;
    Ok(world)
}

/// Files of the run folder that this worker or its keeper holds open, and that are of no use to the next one without their names.
fn held_files(config: &Config) -> Vec<PathBuf> {
    let notes = (config.edge.kind == EdgeKind::Nginx).then(|| ReplayNotes::file_of_this_process(&config.sent_dir()));
    [config.owner_lock(), config.server_lock()].into_iter().chain(notes).collect()
}

/// Has the supervisor know this keeper, which it has not started.
async fn note_keeper(world: &World, pid: u32) {
    let found = i32::try_from(pid).map_err(std::io::Error::other).and_then(process::by_pid);
    match found {
        Ok(Some(keeper)) => {
            if let Err(e) = world.set_keeper(keeper).await {
                warn!("could not write down which process keeps this server: {}", chain(&e));
            }
        }
        Ok(None) | Err(_) => warn!(pid, "the new keeper has ended already"),
    }
}
