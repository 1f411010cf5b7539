//! `purge`: removes a destroyed instance with everything it had. An operation: once begun it is
//! finished, also after a crash.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::event_kind::EventKind;
use crate::domain::lifecycle::Phase;
use crate::domain::name::InstanceName;
use crate::domain::operation::{OperationKind, OperationStep};
use crate::domain::time::millis;
use crate::host::{fs, removal};
use crate::service::error::{ErrorKind, ServiceError};
use crate::service::handler::EntryPoint;
use crate::service::lookup::find_row;
use crate::service::outcome::{InstanceChange, Outcome};
use crate::service::request::InstanceRef;
use crate::service::verbs::{begin, reached_step, tried};
use crate::service::world::World;
use crate::service::{launch_spec, routes, view};
use crate::store::Row;

/// How long it removes a folder. What is left then is out of the way already, and is removed by the
/// next monitor runs.
const REMOVE_WITHIN: Duration = Duration::from_secs(5);

pub(in crate::service) async fn run(
    world: &Arc<World>,
    entry: EntryPoint,
    given: &InstanceRef,
) -> Result<Outcome, ServiceError> {
    let since = world.now();
    let row = find_row(&*world.store, given)?;
    let _alone = world.building(row.name.as_str()).await;
    let row = find_row(&*world.store, &(&row.name).into())?;
    if row.stored.phase != Phase::Destroyed {
        let message = format!(
            "could not purge `{}`: it is {}, not destroyed",
            row.name,
            row.stored.phase.as_str()
        );
        return Err(ServiceError::new(
            ErrorKind::Denied,
            message,
            format!(
                "run `acc destroy {0}` first, or `acc destroy --force {0}` if it is awake",
                row.name
            ),
        ));
    }
    let instance = Box::new(view::of_row(&world.config(), &row));
    begin(world, entry, OperationKind::Purge, (row.id, &row.name)).await?;
    world.reached("purge.begun")?;
    tried(world, row.id, remove(world, &row).await).await?;
    let took_ms = millis(world.now().since(since));
    Ok(Outcome::Instance {
        did: InstanceChange::Purged,
        already: false,
        took_ms,
        instance,
    })
}

/// What to do when something could not be removed.
const HINT: &str = "fix the problem above and repeat the command";

fn could_not_remove(name: &InstanceName) -> String {
    format!("could not remove everything of `{name}`")
}

/// Removes everything an instance had, the row last: as long as it is there, its port and hosts are
/// not shared and recovery finds it. Its phase is `destroyed`, so that no route leads to it; every
/// step may be repeated.
pub(in crate::service) async fn remove(world: &Arc<World>, row: &Row) -> Result<(), ServiceError> {
    let name = &row.name;
    let message = || could_not_remove(name);
    let kind = launch_spec::runner_kind(row);
    let account = launch_spec::account(world);
    let forgotten = async { world.runners.of(&kind)?.forget(name, &account).await };
    forgotten
        .await
        .map_err(|e| ServiceError::because(message(), &e, HINT))?;
    world.reached("remove.supervisor")?;
    world
        .edge
        .forget(name)
        .await
        .map_err(|e| ServiceError::because(message(), &e, HINT))?;
    world.reached("remove.gate")?;
    if row.port.is_some() || !row.hosts.is_empty() {
        routes::apply(world).await?;
    }
    world.reached("remove.edge")?;
    reached_step(world, row.id, OperationStep::RemoveFiles);
    remove_folders(world, name).await?;
    let (id, at) = (row.id, world.clock.wall());
    world
        .write(move |store| store.delete(id, at))
        .await
        .map_err(crate::service::error::store)?;
    world.registry.forget(row.id);
    world.reached("remove.row")?;
    let (at, purged) = (world.clock.wall(), name.clone());
    let noted = world.write(move |store| {
        store.record(
            at,
            Some(id),
            purged.as_str(),
            EventKind::Purged,
            "files removed",
        )
    });
    if let Err(e) = noted.await {
        tracing::warn!(instance = %name, "could not write an event: {e}");
    }
    let _ = world.reached("remove.done");
    Ok(())
}

/// Removes the notify socket and the folders of an instance: its sockets, its data and its access
/// logs.
async fn remove_folders(world: &World, name: &InstanceName) -> Result<(), ServiceError> {
    let config = world.config();
    let message = || could_not_remove(name);
    let notify = config.notify_socket(name.as_str());
    fs::remove_file(&notify).map_err(|e| {
        ServiceError::because(format!("{}: `{}`", message(), notify.display()), &e, HINT)
    })?;
    for (dir, trash, step) in [
        (
            config.socket_dir(name.as_str()),
            config.run_trash(),
            "remove.socket",
        ),
        (
            config.instance_dir(name.as_str()),
            config.trash(),
            "remove.folder",
        ),
        (
            config.access_dir(name.as_str()),
            config.trash(),
            "remove.logs",
        ),
    ] {
        let shown = dir.display().to_string();
        let removed =
            tokio::task::spawn_blocking(move || removal::remove(&dir, &trash, REMOVE_WITHIN));
        let removed = removed
            .await
            .unwrap_or_else(|e| Err(std::io::Error::other(e)));
        removed
            .map_err(|e| ServiceError::because(format!("{}: `{shown}`", message()), &e, HINT))?;
        world.reached(step)?;
    }
    Ok(())
}
