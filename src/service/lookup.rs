//! Finds an instance by what a person or a client calls it: name, number or host.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::suggest::closest;
use crate::domain::lifecycle::Phase;
use crate::domain::name::{HostName, InstanceName};
use crate::service::context::Context;
use crate::service::error::{self, ServiceError};
use crate::service::instance::handle::Handle;
use crate::service::request::InstanceRef;
use crate::service::world::World;
use crate::store::{Row, Store};

/// The row of an instance given by name or number.
pub(crate) fn find_row(store: &dyn Store, given: &InstanceRef) -> Result<Row, ServiceError> {
    let row = match given {
        InstanceRef::Number(id) => store.by_id(*id),
        InstanceRef::Name(name) => store.by_name(name),
    };
    if let Some(row) = row.map_err(error::store)? {
        return Ok(row);
    }
    let given = given.to_string();
    let mut missing = error::no_instance(&given);
    if let Some(near) = meant(store, &given)? {
        missing.hint = format!("did you mean `{near}`? `acc list` shows the instances");
    }
    Err(missing)
}

/// The instance that was most likely meant: one that answers to this host, else the one with the
/// nearest name.
fn meant(store: &dyn Store, given: &str) -> Result<Option<String>, ServiceError> {
    if let Ok(host) = HostName::parse(given) {
        let label = host.as_str().split('.').next();
        let row = store
            .by_host(host.as_str(), label.filter(|label| *label != given))
            .map_err(error::store)?;
        if let Some(row) = row {
            return Ok(Some(row.name.to_string()));
        }
    }
    let names = store.names().map_err(error::store)?;
    Ok(closest(given, names.iter().map(String::as_str)).map(str::to_owned))
}

/// The handle of an instance given by name or number.
pub(super) async fn find(
    world: &Arc<World>,
    given: &InstanceRef,
) -> Result<Arc<Handle>, ServiceError> {
    let given = given.clone();
    let row = world.read(move |store| Ok(find_row(store, &given))).await;
    world.handle(&row.map_err(error::store)??).await
}

/// An instance that is live by its row or its task.
pub(super) struct LiveInstance {
    pub(super) name: InstanceName,
    /// As the row, else the task, had it when it was read.
    pub(super) phase: Phase,
    /// Its handle, or why it has none.
    pub(super) handle: Result<Arc<Handle>, ServiceError>,
}

/// All instances that are live. The task of an instance knows better than its row: a wake is
/// published before it is written, and the write may wait or fail.
pub(super) async fn live(world: &Arc<World>) -> Result<Vec<LiveInstance>, ServiceError> {
    let rows = world.read(|store| store.busy()).await;
    let mut live = Vec::new();
    for row in rows.map_err(error::store)? {
        if world.registry.phase(&row).is_live() {
            live.push(LiveInstance {
                handle: world.handle(&row).await,
                phase: row.stored.phase,
                name: row.name,
            });
        }
    }
    let mut known: BTreeSet<InstanceName> = live.iter().map(|one| one.name.clone()).collect();
    for handle in world.registry.live() {
        let name = handle.instance.name.clone();
        if known.insert(name.clone()) {
            let phase = handle.snapshot().phase;
            let handle = Ok(handle);
            live.push(LiveInstance {
                name,
                phase,
                handle,
            });
        }
    }
    Ok(live)
}

/// The row of a host, also of the default domain.
pub(super) async fn row_of_host(
    ctx: &Context,
    host: &HostName,
) -> Result<Option<Row>, ServiceError> {
    let config = ctx.config();
    let label = host
        .as_str()
        .strip_suffix(config.domain.as_str())
        .and_then(|l| l.strip_suffix('.'));
    let name = label.and_then(|l| InstanceName::parse(l).ok());
    let host = host.clone();
    ctx.read(move |store| store.by_host(host.as_str(), name.as_ref().map(InstanceName::as_str)))
        .await
        .map_err(error::store)
}
