//! `boot`: folders, database, configurations, supervisor, server. A second boot repairs what is
//! missing.

use std::path::Path;
use std::time::Duration;

use tracing::warn;

use super::dispatch::ask_server;
use super::drivers::{Drivers, own_service};
use super::installation::{note_boot, open_store};
use super::lock;
use super::world::world;
use crate::config::env::Env;
use crate::config::reload::{NEED_RESTART, differences};
use crate::config::{Booted, Config, parse};
use crate::driver::edge::EdgeError;
use crate::driver::supervisor::{Ensured, SERVER, Service};
use crate::host::{fs, listen, process};
use crate::models::install_shipped;
use crate::service::error::{ServiceError, chain};
use crate::service::outcome::{BootReport, MonitorAction, Outcome};
use crate::service::recover;
use crate::service::request::Request;
use crate::service::{access_logs, moved, places};
use crate::store::sqlite::SqliteStore;
use crate::store::{InstanceStore, Store};

/// Time limit for the server to answer.
const UP_WITHIN: Duration = Duration::from_secs(60);
/// How long to wait for another command to end.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(20);
/// How long a server whose socket was removed may take to notice it by itself.
const BY_ITSELF: Duration = Duration::from_secs(3);
/// How long the workers of a killed nginx may take to close the ports.
const LEFT_WITHIN: Duration = Duration::from_secs(3);

/// Boots acc.
pub async fn boot(config: &Config, foreground: bool) -> Result<BootReport, ServiceError> {
    // Before anything is made: a running server's settings take precedence over the config file.
    places::ours(config)?;
    lock::refuse_elsewhere(config)?;
    let running = running(config).await?;
    if let Ok(store) = SqliteStore::open_readonly(&config.database()) {
        moved::refuse_other_places(config, &store)?;
    }
    places::prepare(config)?;
    let mut report = first_report(running.as_ref(), config);
    let owner = owner_unless_served(config).await?;
    let runs = owner.is_none();
    let drivers = Drivers::new(config)?;
    if foreground && runs {
        refuse_beside_background(config, &drivers).await?;
    }
    let mut services = drivers.services()?;
    services.push(own_service(config));
    let listens = runs && drivers.edge.is_up().await.map_err(|e| edge_unusable(&e))?;
    if let Some(owner) = owner {
        prepare(config, &drivers, &mut report).await?;
        drop(owner);
    }
    // In the foreground the builtin edge may be given its sockets, which are then not free: it
    // tells by itself.
    let reported_by_server = foreground && !drivers.edge.has_program();
    if !(listens || reported_by_server || foreground && runs) {
        addresses_are_free(config, &drivers).await?;
    }
    // If systemd runs it, that stays so when `acc boot` only repairs it.
    if foreground || !runs || config.booted() == Booted::No {
        note_boot(
            config,
            if foreground {
                Booted::InForeground
            } else {
                Booted::InBackground
            },
        )?;
    }
    if foreground {
        report.exec = Some(foreground_argv(config, &drivers, &services).await?);
        return Ok(report);
    }
    if runs {
        repair(config, &mut report).await?;
    }
    bring_up(config, &drivers, &services, &mut report).await?;
    bring_up_to_date(config, runs, &mut report).await?;
    wait_for_edge(config, &drivers).await?;
    report.already = runs && report.did.is_empty();
    Ok(report)
}

/// Lists where clients are served, and which changes wait for the next boot; does nothing yet.
fn first_report(running: Option<&Config>, config: &Config) -> BootReport {
    let waiting = running
        .map(|running| waiting(running, config))
        .unwrap_or_default();
    let listen = running
        .unwrap_or(config)
        .edge
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    BootReport {
        waiting,
        listen,
        ..BootReport::default()
    }
}

/// Which changes of the config take effect only when a running server is booted again.
fn waiting(running: &Config, config: &Config) -> Vec<String> {
    let all = differences(&running.to_toml(), &config.to_toml()).unwrap_or_default();
    all.into_iter()
        .map(|difference| difference.key)
        .filter(|key| NEED_RESTART.contains(&key.as_str()))
        .collect()
}

/// The settings of the server that runs in this run folder. Refused if it was booted with another
/// home.
async fn running(config: &Config) -> Result<Option<Config>, ServiceError> {
    let Some(Ok(Outcome::Settings { toml })) = ask_server(config, &Request::Settings).await? else {
        return Ok(None);
    };
    let bare = Env::bare(rustix::process::geteuid().as_raw(), "/");
    let Ok(running) = parse(&toml, None, &bare) else {
        return Ok(None);
    };
    if running.home == config.home {
        return Ok(Some(running));
    }
    let (run, before, now) = (
        config.run.display(),
        running.home.display(),
        config.home.display(),
    );
    let message =
        format!("acc runs in `{run}` with home `{before}`, but the config has home `{now}`");
    let hint = format!(
        "set `home = \"{before}\"` in the config; a second installation also needs its own `run`"
    );
    Err(ServiceError::new(
        crate::service::error::ErrorKind::Denied,
        message,
        hint,
    ))
}

/// Takes the lock once other commands have ended; `None`: a server is up, or has come up meanwhile.
async fn owner_unless_served(config: &Config) -> Result<Option<lock::OwnerLock>, ServiceError> {
    let patience = tokio::time::sleep(PATIENCE);
    tokio::pin!(patience);
    let mut place = lock::OwnerLockQueue::default();
    let began = tokio::time::Instant::now();
    let mut notified = false;
    loop {
        if ask_server(config, &Request::Ping).await?.is_some() {
            return Ok(None);
        }
        // A server whose socket was removed makes it again by itself, unless it could not be
        // notified of the removal.
        if !notified && began.elapsed() > BY_ITSELF && !fs::exists(&config.control_socket()) {
            notified = notify_server(config);
        }
        if let Some(owner) = place.try_take(config)? {
            return Ok(Some(owner));
        }
        // Hold the lock only briefly: the server makes its socket again with a new worker, which
        // waits in the same queue.
        if lock::serving(config).is_some() {
            place = lock::OwnerLockQueue::default();
        }
        tokio::select! {
            () = &mut patience => return Err(lock::held(config)),
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Makes the running server make its sockets again; `true`: there is one.
fn notify_server(config: &Config) -> bool {
    let Some(master) = lock::serving(config) else {
        return false;
    };
    warn!(
        pid = master.pid,
        "asked the server to create its missing control socket again"
    );
    process::signal_one(master, libc::SIGUSR2).is_ok()
}

/// Refuses to boot in the foreground beside a running server, unless that has outlived the
/// supervisord or master that was run in the foreground.
async fn refuse_beside_background(config: &Config, drivers: &Drivers) -> Result<(), ServiceError> {
    let outlived = if drivers.own_services.has_daemon() {
        let gone = drivers.own_services.is_gone().await;
        gone.map_err(|e| ServiceError::failed(chain(&e), "run `acc doctor`"))?
    } else {
        lock::serving(config).is_none()
    };
    if outlived {
        return Ok(());
    }
    let hint = "stop the running acc with `acc halt`";
    Err(ServiceError::new(
        crate::service::error::ErrorKind::Denied,
        "acc is already running in the background",
        hint,
    ))
}

/// Prepares everything that must be in place before the first process starts. The caller holds the
/// owner's lock.
async fn prepare(
    config: &Config,
    drivers: &Drivers,
    report: &mut BootReport,
) -> Result<(), ServiceError> {
    let store = open_store(config)?;
    store.check().map_err(crate::service::error::store)?;
    moved::refuse_other_places(config, &store)?;
    install_shipped(&config.models()).map_err(|e| {
        ServiceError::because(
            format!(
                "could not install the shipped models in `{}`",
                config.models().display()
            ),
            &e,
            "check free space, owner and mode",
        )
    })?;
    access_logs::make_all(
        config,
        &store.names().map_err(crate::service::error::store)?,
    );
    if drivers.edge.has_program() {
        let world = world(config, drivers, store);
        let routes = recover::all_routes(&world).await?;
        drivers.edge.prepare(&routes).await.map_err(|e| {
            ServiceError::failed(
                format!("could not prepare {}: {}", drivers.edge.kind(), chain(&e)),
                "run `acc doctor`; without nginx, set `edge.kind = \"builtin\"` in the config",
            )
        })?;
    }
    report.did.push(format!(
        "prepared {} and {}",
        config.home.display(),
        config.run.display()
    ));
    Ok(())
}

async fn bring_up(
    config: &Config,
    drivers: &Drivers,
    services: &[Service],
    report: &mut BootReport,
) -> Result<(), ServiceError> {
    know_again(config, drivers).await?;
    let unusable = |e| {
        ServiceError::failed(
            chain(&e),
            "run `acc doctor`; without supervisord, set `supervisor.kind = \"builtin\"` in the config",
        )
    };
    if drivers
        .own_services
        .boot(services)
        .await
        .map_err(unusable)?
        == Ensured::Started
    {
        report
            .did
            .push(format!("started {}", drivers.own_services.kind()));
    }
    for service in services {
        // Without a daemon the server itself starts the others, so that it can watch them.
        if !drivers.own_services.has_daemon() && service.name != SERVER {
            continue;
        }
        if drivers
            .own_services
            .ensure_service(service)
            .await
            .map_err(unusable)?
            == Ensured::Started
        {
            report.did.push(format!("started {}", service.name));
        }
    }
    Ok(())
}

/// Finds a running server and nginx even if their pid files were removed: the server by its lock,
/// nginx by its configuration.
pub(super) async fn know_again(config: &Config, drivers: &Drivers) -> Result<(), ServiceError> {
    let failed = |e| ServiceError::failed(chain(&e), "check free space, owner and mode");
    if let Some(master) = lock::serving(config) {
        drivers
            .own_services
            .restore_service_record(SERVER, master)
            .await
            .map_err(failed)?;
    }
    if let Some(program) = drivers
        .edge
        .process()
        .await
        .map_err(|e| edge_unusable(&e))?
    {
        drivers
            .own_services
            .restore_service_record(drivers.edge.kind(), program)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

/// Waits for the server, and upgrades one that was running with an older program.
async fn bring_up_to_date(
    config: &Config,
    runs: bool,
    report: &mut BootReport,
) -> Result<(), ServiceError> {
    match wait_for_server(config, |_| true).await? {
        Outcome::Pong {
            pid,
            outdated: true,
            ..
        } if runs => upgrade(config, pid, report).await,
        _ => Ok(()),
    }
}

/// Upgrades the server to the new program while it continues to serve.
async fn upgrade(config: &Config, old: u32, report: &mut BootReport) -> Result<(), ServiceError> {
    match ask_server(config, &Request::Upgrade).await? {
        Some(answer) => drop(answer?),
        None => return Ok(()),
    }
    let other = |pong: &Outcome| matches!(pong, Outcome::Pong { pid, .. } if *pid != old);
    let pong = wait_for_server(config, other)
        .await
        .map_err(|e| ServiceError {
            message: "the new program did not start; the server continues with the old program"
                .to_owned(),
            ..e
        })?;
    if let Outcome::Pong { version, .. } = pong {
        report
            .did
            .push(format!("upgraded the server to version {version}"));
    }
    Ok(())
}

fn edge_unusable(e: &EdgeError) -> ServiceError {
    ServiceError::failed(chain(e), "run `acc doctor`")
}

/// Checks the addresses before anything is started, so that the command reports it. Processes of a
/// killed nginx or server get a moment to end.
async fn addresses_are_free(config: &Config, drivers: &Drivers) -> Result<(), ServiceError> {
    let deadline = tokio::time::Instant::now() + LEFT_WITHIN;
    while !drivers.edge.is_up().await.map_err(|e| edge_unusable(&e))? || !drivers.edge.has_program()
    {
        let taken = config
            .edge
            .listen
            .iter()
            .find_map(|address| listen::tcp(*address).err());
        match taken {
            None => break,
            // Its supervisor has restarted our own server meanwhile.
            Some(_) if ask_server(config, &Request::Ping).await?.is_some() => break,
            Some(_) if tokio::time::Instant::now() < deadline => tokio::time::sleep(AGAIN).await,
            Some(e) => {
                let hint = "stop the other program, or choose another address in `edge.listen`; a port below 1024 needs root";
                return Err(ServiceError::failed(chain(&e), hint));
            }
        }
    }
    Ok(())
}

async fn wait_for_edge(config: &Config, drivers: &Drivers) -> Result<(), ServiceError> {
    let deadline = tokio::time::Instant::now() + UP_WITHIN;
    while !drivers.edge.is_up().await.map_err(|e| edge_unusable(&e))? {
        if tokio::time::Instant::now() >= deadline {
            let what = "nginx did not start";
            return Err(too_late(what, &config.own_log("nginx-error"), 1));
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

/// Waits for an acceptable answer of the server.
async fn wait_for_server(
    config: &Config,
    will_do: impl Fn(&Outcome) -> bool,
) -> Result<Outcome, ServiceError> {
    let deadline = tokio::time::sleep(UP_WITHIN);
    tokio::pin!(deadline);
    loop {
        if let Ok(Some(Ok(pong @ Outcome::Pong { .. }))) = ask_server(config, &Request::Ping).await
            && will_do(&pong)
        {
            return Ok(pong);
        }
        tokio::select! {
            () = &mut deadline => break,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
    let what = "acc's server did not answer";
    Err(too_late(what, &config.own_log(SERVER), 3))
}

/// The error of a start that takes too long, with the last `lines` of this log.
fn too_late(what: &str, log: &Path, lines: usize) -> ServiceError {
    let last = fs::last_lines(log, lines).join(" | ");
    let mut hint = format!("see `{}`", log.display());
    if !last.is_empty() {
        hint += &format!("; its last lines: {last}");
    }
    ServiceError::new(
        crate::service::error::ErrorKind::TimedOut,
        format!("{what} within {} s", UP_WITHIN.as_secs()),
        hint,
    )
}

/// acc was already running: one monitor run repairs what is wrong.
async fn repair(config: &Config, report: &mut BootReport) -> Result<(), ServiceError> {
    if let Some(Ok(Outcome::Monitor(pass))) = ask_server(
        config,
        &Request::Monitor {
            dry_run: false,
            thorough: true,
        },
    )
    .await?
    {
        report.did.extend(
            pass.lines
                .iter()
                .filter(|l| l.action != MonitorAction::Sleep)
                .map(|l| format!("{}: {}", l.instance, l.why)),
        );
    }
    Ok(())
}

async fn foreground_argv(
    config: &Config,
    drivers: &Drivers,
    services: &[Service],
) -> Result<Vec<String>, ServiceError> {
    let daemon = drivers.own_services.foreground(services).await;
    let daemon =
        daemon.map_err(|e| ServiceError::failed(chain(&e), "check free space, owner and mode"))?;
    Ok(daemon.unwrap_or_else(|| own_service(config).argv))
}
