//! `halt`: puts every instance to sleep, then ends server, nginx and supervisord. The desired
//! states remain recorded.

use std::path::Path;

use super::boot::know_again;
use super::dispatch::dispatch;
use super::drivers::{Drivers, own_service};
use super::lock;
use crate::config::{Config, in_force};
use crate::host::{fs, process};
use crate::service::error::{ServiceError, chain};
use crate::service::outcome::{HaltReport, Outcome};
use crate::service::places;
use crate::service::request::Request;
use crate::store::InstanceStore;
use crate::store::sqlite::SqliteStore;

/// Whether there is a server, or an instance that is recorded as running.
fn runs_without_folder(config: &Config) -> Result<bool, ServiceError> {
    // Opened for reading: only the holder of the owner's lock migrates it.
    let live = SqliteStore::open_readonly(&config.database())
        .and_then(|store| store.busy())
        .map_err(crate::service::error::store)?;
    Ok(lock::serving(config).is_some()
        || live
            .iter()
            .any(|row| row.stored.phase.is_live() && row.boot == process::boot_id()))
}

/// Whether there is nothing to halt. If something runs whose run folder was removed, makes the
/// folder again.
fn is_halted(config: &Config) -> Result<bool, ServiceError> {
    let exists = |path: &Path| {
        path.try_exists().map_err(|e| {
            ServiceError::because(format!("could not check `{}`", path.display()), &e, HINT)
        })
    };
    if !exists(&config.database())? {
        return Ok(true);
    }
    lock::refuse_elsewhere(config)?;
    if exists(&config.run)? {
        return Ok(false);
    }
    // The usual case after a reboot; but a cleaner may have removed the folder while processes run.
    if !runs_without_folder(config)? {
        return Ok(true);
    }
    places::prepare(config)?;
    Ok(false)
}

const HINT: &str = "run this command as root or as the user who booted acc";

/// Removes the record of the boot: from then on nothing of acc is started again.
fn forget_boot(config: &Config) -> Result<(), ServiceError> {
    for path in [config.home_booted_file(), config.booted_file()] {
        fs::remove_file(&path).map_err(|e| {
            ServiceError::because(
                format!("could not remove `{}`", path.display()),
                &e,
                "check its owner and mode",
            )
        })?;
    }
    Ok(())
}

/// Halts acc.
pub async fn halt(config: &Config) -> Result<HaltReport, ServiceError> {
    places::may_rule(config)?;
    let drivers = Drivers::new(config)?;
    let failed =
        |e| ServiceError::failed(chain(&e), "try again; `acc doctor` shows what is running");
    if is_halted(config)? {
        // All of acc may have been killed, and its run folder removed.
        forget_boot(config)?;
        return Ok(HaltReport {
            already: true,
            stopped: 0,
        });
    }
    know_again(config, &drivers).await?;
    let mut services = vec![own_service(config)];
    services.extend(drivers.services().unwrap_or_default());
    drivers
        .own_services
        .replace_deaf(&services)
        .await
        .map_err(failed)?;
    let mut ran = false;
    for service in &services {
        ran |= drivers
            .own_services
            .service(service.name)
            .await
            .map_err(failed)?
            .is_some();
    }
    let stopped = match dispatch(config, Request::Quiesce).await? {
        Outcome::Quiesced { stopped } => stopped,
        _ => 0,
    };
    // From now on no process is restarted.
    forget_boot(config)?;
    // The server first: it would restart the others.
    for service in &services {
        drivers
            .own_services
            .stop_service(service)
            .await
            .map_err(failed)?;
    }
    drivers.own_services.halt().await.map_err(failed)?;
    ran |= lock::end_server(config, own_service(config).stop_timeout).await?;
    // Without the record of a boot it has no effect.
    let _ = fs::remove_file(&in_force::file(&config.run));
    let _ = drivers.edge.is_up().await;
    Ok(HaltReport {
        already: !ran && stopped == 0,
        stopped,
    })
}
