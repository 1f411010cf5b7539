//! The worker behind `master`: takes the owner's lock, adopts what runs, accepts clients, and runs
//! the monitor periodically, until it is stopped or another worker takes over. After that it
//! decides nothing and only finishes open requests. If its master is killed it continues to serve,
//! and the next master takes it over.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::drivers::{Drivers, wrong_templates};
use super::edge::{accepting, front, io_threads, no_sockets, start_edge};
use super::installation::open_store_patiently;
use super::lock::{self, OwnerLock};
use super::master::{Channel, Inheritance, MasterChannel, Sockets, Word, current};
use super::reload::{Reloader, note_in_force};
use super::signals::ServerSignals;
use super::verbs::ControlVerbs;
use super::world::world;
use crate::config::{Booted, Config};
use crate::control;
use crate::driver::supervisor::SERVER;
use crate::host::reclaim;
use crate::host::{append, process};
use crate::interface::cli::Reload;
use crate::proxy::{self, ServeReport, ShutdownSignals};
use crate::render::pages::Pages;
use crate::service::error::ServiceError;
use crate::service::handler::{EntryPoint, RequestCaller};
use crate::service::handover::retire;
use crate::service::monitor::{self, listeners, log_bound, run_watch};
use crate::service::request::Request;
use crate::service::world::World;
use crate::service::{self, moved, recover};

/// How long a server that ends waits for a slow database.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

/// How much longer than the longest wait of a request a shutdown gives clients.
const GRACE: Duration = Duration::from_secs(5);

/// How long a server that ends waits for the last lines of the access logs.
const LOG_WITHIN: Duration = Duration::from_secs(5);

/// What a worker gets from its master.
pub(super) struct Handed {
    pub(super) sockets: Sockets,
    pub(super) channel: Channel,
    pub(super) lock: OwnedFd,
    /// Its process id.
    pub(super) master: i32,
}

/// Why serving ends.
enum ServeEnd {
    /// Requested by the host, the operator or the supervisor.
    Shutdown,
    /// Another worker takes over.
    Retire,
}

/// Runs until SIGTERM or SIGINT, or until another worker takes over and all requests have ended.
/// `reload` reloads the settings at SIGHUP.
pub(super) async fn serve(
    config: Config,
    handed: Handed,
    reload: Reload,
) -> Result<(), ServiceError> {
    let inheritance = Inheritance::new(&handed.sockets, handed.lock).map_err(no_sockets)?;
    let channel: MasterChannel = Arc::new(Mutex::new(Arc::new(handed.channel)));
    let mut signals = ServerSignals::new()?;
    let drivers = Drivers::new(&config)?;
    let pages = Pages::new(drivers.templates.clone()).map_err(|e| wrong_templates(&e))?;
    let (control, listeners) = accepting(handed.sockets, &config)?;
    let owner = take_over(&config, &channel).await?;
    let world = serving_world(&config, &drivers).await?;
    let (proxy, log) = front(&world, &drivers, &config, pages)?;
    let adopted = take_charge(&world, &drivers, handed.master).await?;

    let reloader = Arc::new(Reloader::new(&world, &proxy, &drivers, reload));
    let (recovering, recovered) = watch::channel(false);
    let verbs = Arc::new(ControlVerbs::new(&world, &channel, &reloader, recovered));
    let (ends, decided) = (ShutdownSignals::default(), CancellationToken::new());
    // Before the first connection is accepted: the master's death would cut it.
    outlive_master();
    let control = tokio::spawn(control::serve(control, verbs.clone(), decided.clone()));
    let monitoring = tokio::spawn(run_monitor(world.clone(), decided.clone(), recovering));
    let watching = watch_over(&world, &decided);
    let serve = proxy::serve::serve;
    let grace = config.wake.timeout + GRACE;
    let serving = serve(listeners, proxy.clone(), io_threads()?, ends.clone(), grace);
    let serving = tokio::spawn(serving);
    report_up(&drivers, adopted);
    note_in_force(&world, &config);
    current(&channel).say(Word::Ready);
    let end = until_the_end(&world, &reloader, &mut signals, (&channel, &inheritance)).await;
    // Until this is dropped, the next process that waits for the lock waits for this worker as
    // well.
    let mut inheritance = Some(inheritance);
    if matches!(end, ServeEnd::Retire) {
        inheritance = None;
        verbs.until_quiet().await;
    } else {
        shut_down(&ends);
    }
    decided.cancel();
    let _ = tokio::join!(control, monitoring, join_all(watching));
    if matches!(end, ServeEnd::Retire) {
        ends.hand_over.cancel();
        hand_over(&world, &drivers, owner).await;
        finish(serving, &ends, &mut signals, &current(&channel)).await;
    } else {
        report_end(serving.await);
    }
    drop((proxy, verbs, reloader));
    finish_writing(log, &world).await;
    drop(inheritance);
    Ok(())
}

/// Adopts the run folder, the running instances and nginx. Returns how many instances run.
async fn take_charge(
    world: &Arc<World>,
    drivers: &Drivers,
    master: i32,
) -> Result<usize, ServiceError> {
    let config = world.config();
    world.mind_run_folder(
        vec![config.wake_socket(), config.control_socket()],
        vec![config.owner_lock(), config.server_lock()],
    );
    know_master(world, master);
    recover::tidy(world)?;
    let adopted = recover::adopt(world).await?;
    start_edge(world, drivers).await?;
    Ok(adopted)
}

fn report_up(drivers: &Drivers, adopted: usize) {
    info!(
        pid = std::process::id(),
        adopted,
        edge = drivers.edge.kind(),
        supervisor = drivers.own_services.kind(),
        "acc's server is up"
    );
}

/// Accepts no new work from now on.
fn shut_down(ends: &ShutdownSignals) {
    info!("stopping: finishing held requests, accepting no new ones");
    ends.shutdown.cancel();
}

/// Takes the owner's lock once the former worker, if any, has released it.
async fn take_over(config: &Config, channel: &MasterChannel) -> Result<OwnerLock, ServiceError> {
    // The serving worker gives way at the next message, so only the head of the queue may send it.
    let queue = lock::OwnerLockQueue::at_head(config).await?;
    current(channel).say(Word::Prepared);
    queue.take(config).await
}

/// Another worker takes over: this one decides nothing any more.
async fn hand_over(world: &Arc<World>, drivers: &Drivers, owner: OwnerLock) {
    retire(world).await;
    drivers.upstreams.retire();
    info!("another worker takes over: finishing open requests");
    drop(owner);
}

/// Tells the service and the supervisor which process is the master.
fn know_master(world: &World, pid: i32) {
    if let Ok(Some(master)) = process::by_pid(pid) {
        world.set_master(master);
    }
}

/// Starts the permanent checks: logs, listeners, and the files in the run folder.
fn watch_over(world: &Arc<World>, until: &CancellationToken) -> [JoinHandle<()>; 3] {
    [
        tokio::spawn(log_bound::watch(world.clone(), until.clone())),
        tokio::spawn(listeners::watch(world.clone(), until.clone())),
        tokio::spawn(run_watch::watch(world.clone(), until.clone())),
    ]
}

/// Waits a limited time for the database and the access logs.
async fn finish_writing(log: Option<JoinHandle<()>>, world: &World) {
    let written = tokio::time::timeout(WRITTEN_WITHIN, world.written());
    let _ = tokio::join!(finish_log(log), written);
}

/// Lets the last lines of the access logs be written, but does not wait for a disk that takes too
/// long.
async fn finish_log(log: Option<JoinHandle<()>>) {
    if let Some(log) = log
        && tokio::time::timeout(LOG_WITHIN, log).await.is_err()
    {
        warn!("could not write the last lines of the access logs: the disk is too slow");
    }
}

/// A worker dies with its master until it serves; from now on it waits for the next master instead.
fn outlive_master() {
    if let Err(error) = rustix::process::set_parent_process_death_signal(None) {
        warn!(%error, "cannot survive the death of the master");
    }
}

/// Finishes what was in progress when another worker took over, and reaps the instances that this
/// one started.
async fn finish(
    mut serving: JoinHandle<ServeReport>,
    ends: &ShutdownSignals,
    signals: &mut ServerSignals,
    channel: &Channel,
) {
    loop {
        tokio::select! {
            report = &mut serving => return report_end(report),
            _ = signals.term.recv() => ends.shutdown.cancel(),
            _ = signals.int.recv() => ends.shutdown.cancel(),
            _ = signals.child.recv() => while waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)).is_ok_and(|s| s != WaitStatus::StillAlive) {},
            None = channel.hear(), if !ends.shutdown.is_cancelled() => ends.shutdown.cancel(),
        }
    }
}

fn report_end(report: Result<ServeReport, tokio::task::JoinError>) {
    match report {
        Ok(report) => info!(
            accepted = report.accepted,
            cut = report.cut,
            "the edge ended"
        ),
        Err(error) => error!(%error, "the edge ended with an error"),
    }
}

/// The server's own monitor: finishes interrupted verbs, then does one run at once and one every
/// `idle.check_every`.
async fn run_monitor(
    world: Arc<World>,
    shutdown: CancellationToken,
    recovering: watch::Sender<bool>,
) {
    tokio::select! {
        () = shutdown.cancelled() => return,
        taken_up = recover::take_up(&world) => if let Err(e) = taken_up {
            warn!("could not finish interrupted verbs: {e}");
        },
    }
    recovering.send_replace(true);
    let caller = RequestCaller::own(EntryPoint::Timer);
    loop {
        let pass = service::handle(
            &world,
            &caller,
            Request::Monitor {
                dry_run: false,
                thorough: false,
            },
        );
        tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = pass => monitor::report(outcome),
        }
        let _ = tokio::task::spawn_blocking(reclaim::give_back).await;
        if !pause(&world, &shutdown).await {
            return;
        }
    }
}

/// Waits between two monitor runs, by the current settings; for ever if they say "off". `false`:
/// the server ends.
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

/// Returns when serving must end. SIGHUP puts changed settings in force. If the master dies, the
/// next one replaces it.
async fn until_the_end(
    world: &Arc<World>,
    reloader: &Reloader,
    signals: &mut ServerSignals,
    (channel, inheritance): (&MasterChannel, &Inheritance),
) -> ServeEnd {
    let mut orphaned = false;
    loop {
        let (current, config) = (current(channel), world.config());
        tokio::select! {
            _ = signals.term.recv() => return ServeEnd::Shutdown,
            _ = signals.int.recv() => return ServeEnd::Shutdown,
            word = current.hear(), if !orphaned => match word {
                Some(Word::Retire) => return ServeEnd::Retire,
                Some(_) => {}
                None if config.booted() == Booted::No => return ServeEnd::Shutdown,
                None => {
                    orphaned = true;
                    report_orphaned(&config);
                }
            },
            (new, master) = inheritance.claimed(&config), if orphaned => {
                orphaned = false;
                info!(pid = master, "another master has taken over this worker");
                *channel.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                know_master(world, master);
            }
            // The master makes the sockets again and passes them to the next worker.
            () = world.sockets_wanted() => current.say(Word::Upgrade),
            _ = signals.hup.recv() => {
                append::keep_log(&config.own_log(SERVER));
                if let Err(e) = reloader.run().await {
                    error!("could not reload the settings: {e}");
                }
            }
        }
    }
}

/// The master has died: this worker continues to serve and waits for the next one.
fn report_orphaned(config: &Config) {
    // Its output may go to a pipe whose reader died with the master.
    if let Err(error) = append::take_output(&config.own_log(SERVER)) {
        warn!(%error, "could not open the server's log");
    }
    warn!("the master has died: this worker continues to serve until another one takes it over");
}

/// Makes the service's context.
async fn serving_world(config: &Config, drivers: &Drivers) -> Result<Arc<World>, ServiceError> {
    let mut store = open_store_patiently(config).await?;
    moved::refuse_other_places(config, &store)?;
    store
        .write_back_beside()
        .map_err(crate::service::error::store)?;
    let world = world(config, drivers, store);
    world.set_serving();
    world.start_store_threads().map_err(|e| {
        ServiceError::because(
            "could not start the thread that writes to the database",
            &e,
            "raise the process limit of this user",
        )
    })?;
    Ok(world)
}
