//! The parts of a worker that serve clients: the proxy, its listeners and threads, and nginx where
//! that is the edge.
//!
//! It decides nothing about instances and accepts nothing: `serve` does.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tracing::error;

use super::drivers::Drivers;
use super::installation::accounts;
use super::master::Sockets;
use crate::config::Config;
use crate::host::io_threads::IoThreads;
use crate::proxy::access_log::AccessLog;
use crate::proxy::listen::ProxyListener;
use crate::proxy::replay_notes::ReplayNotes;
use crate::proxy::{Front, Proxy, ProxySettings};
use crate::render::pages::Pages;
use crate::service::error::{ServiceError, chain};
use crate::service::recover;
use crate::service::world::World;

/// The threads that serve clients.
pub(super) fn io_threads() -> Result<IoThreads, ServiceError> {
    IoThreads::start().map_err(|e| {
        ServiceError::because(
            "could not start the threads of the edge",
            &e,
            "check the limit of processes",
        )
    })
}

/// The proxy and, where acc itself is the edge, the task that writes access logs.
pub(super) fn front(
    world: &Arc<World>,
    drivers: &Drivers,
    config: &Config,
    pages: Pages,
) -> Result<(Arc<Proxy>, Option<JoinHandle<()>>), ServiceError> {
    let (log, task) = if drivers.edge.has_program() {
        (None, None)
    } else {
        let places = config.clone();
        let path = move |name: &str, counts| {
            if counts {
                places.access_log(name)
            } else {
                places.uncounted_log(name)
            }
        };
        let (log, task) = AccessLog::start(Box::new(path));
        (Some(log), Some(task))
    };
    let door = Arc::new(world.clone());
    let proxy = Proxy::new(
        door,
        drivers.upstreams.clone(),
        ProxySettings::new(config),
        pages,
        log,
    );
    let proxy = if drivers.edge.needs_replay_notes() {
        proxy.noting(ReplayNotes::begin(&config.sent_dir()).map_err(|e| {
            ServiceError::because(
                format!("could not use `{}`", config.sent_dir().display()),
                &e,
                "check free space, owner and mode",
            )
        })?)
    } else {
        proxy
    };
    Ok((Arc::new(proxy), task))
}

/// The sockets that the master has passed on cannot be used.
pub(super) fn no_sockets(error: std::io::Error) -> ServiceError {
    let hint = "check the limit of open files";
    ServiceError::because("could not use the sockets of the master", &error, hint)
}

/// Prepares the sockets for accepting.
pub(super) fn accepting(
    sockets: Sockets,
    config: &Config,
) -> Result<(tokio::net::UnixListener, Vec<ProxyListener>), ServiceError> {
    if !config.edge.own_addresses().is_empty() && sockets.tcp.is_empty() {
        let hint = "`acc halt`, then `acc boot`";
        return Err(ServiceError::failed(
            "`edge.kind` was changed while acc was running",
            hint,
        ));
    }
    sockets.control.set_nonblocking(true).map_err(no_sockets)?;
    let control = tokio::net::UnixListener::from_std(sockets.control).map_err(no_sockets)?;
    let wake = ProxyListener::from_unix(sockets.wake, Front::Wake).map_err(no_sockets)?;
    let mut listeners = vec![wake.only_for(speakers(config)?)];
    for listener in sockets.tcp {
        listeners.push(ProxyListener::from_tcp(listener, Front::Public).map_err(no_sockets)?);
    }
    Ok((control, listeners))
}

/// Which users may connect to the wake socket: nginx's workers, and acc itself (an earlier worker,
/// and root).
fn speakers(config: &Config) -> Result<Vec<u32>, ServiceError> {
    let edge = accounts(config)?.edge.map(|owner| owner.uid);
    Ok(edge
        .into_iter()
        .chain([0, rustix::process::geteuid().as_raw()])
        .collect())
}

/// Updates nginx's configuration; under the builtin supervisor also starts nginx.
pub(super) async fn start_edge(world: &Arc<World>, drivers: &Drivers) -> Result<(), ServiceError> {
    if !drivers.edge.has_program() {
        return Ok(());
    }
    let kind = drivers.edge.kind();
    let routes = recover::all_routes(world).await?;
    let failed = |e| {
        ServiceError::failed(
            format!("could not prepare {kind}: {}", chain(&e)),
            "run `acc doctor`",
        )
    };
    if drivers.own_services.has_daemon() {
        // A refused configuration must not keep the wake server down: the former one is still in
        // force.
        if let Err(e) = drivers.edge.apply(&routes).await {
            error!(
                "could not bring {kind}'s configuration up to date: {}",
                chain(&e)
            );
        }
        return Ok(());
    }
    drivers.edge.prepare(&routes).await.map_err(failed)?;
    let Some(service) = drivers.edge.service().map_err(failed)? else {
        return Ok(());
    };
    // One that runs and whose record was taken away is not started twice.
    if let Some(running) = drivers.edge.process().await.map_err(failed)? {
        let kept = drivers
            .own_services
            .restore_service_record(kind, running)
            .await;
        kept.map_err(|e| {
            ServiceError::because(
                format!("could not record the process id of {kind}"),
                &e,
                "check free space, owner and mode",
            )
        })?;
    }
    let started = drivers.own_services.ensure_service(&service).await;
    started.map(drop).map_err(|e| {
        ServiceError::because(format!("could not start {kind}"), &e, "run `acc doctor`")
    })
}
