//! The world of the service: drivers, clocks and the database put together.

use std::sync::Arc;

use super::binary::own_binary;
use super::drivers::{Drivers, own_service};
use crate::config::Config;
use crate::driver::activity::KernelActivity;
use crate::driver::probe::SocketProbe;
use crate::host::clock::SystemClock;
use crate::host::process;
use crate::service::context::Parts;
use crate::service::world::World;
use crate::store::sqlite::SqliteStore;

/// The world of the service, over the database of this installation.
pub(super) fn world(config: &Config, drivers: &Drivers, store: SqliteStore) -> Arc<World> {
    World::new(Parts {
        config: config.clone(),
        account: drivers.accounts.instances.clone(),
        store: Arc::new(store),
        runners: drivers.runners.clone(),
        own_services: drivers.own_services.clone(),
        edge: drivers.edge.clone(),
        probe: Arc::new(SocketProbe::new(
            drivers.accounts.edge,
            config.run_trash(),
            drivers.listeners.clone(),
        )),
        activity: Arc::new(KernelActivity::default()),
        clock: Arc::new(SystemClock),
        boot: process::boot_id(),
        acc: own_binary(),
        // The verb that needs nginx reports that it is missing; that must not prevent listing or
        // stopping.
        services: drivers
            .services()
            .unwrap_or_default()
            .into_iter()
            .chain([own_service(config)])
            .collect(),
    })
}
