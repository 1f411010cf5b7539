//! The verbs that change instances, one a file. Each takes the service's world and a name, and
//! answers with an outcome or an error.
//!
//! A verb never prints, only records who asked, and acts on an instance only through its task.

use tracing::debug;

use crate::domain::name::{InstanceId, InstanceName};
use crate::domain::operation::{OperationKind, OperationStep};
use crate::service::context::Context;
use crate::service::error::{self, ServiceError};
use crate::service::handler::EntryPoint;
use crate::store::NewOperation;

pub(in crate::service) mod create;
pub(in crate::service) mod desired;
pub(in crate::service) mod destroy;
pub(in crate::service) mod failed_logs;
pub(in crate::service) mod purge;
pub(in crate::service) mod restart;
pub(in crate::service) mod start;
pub(in crate::service) mod stop;
pub(in crate::service) mod stop_all;

/// Records that an operation on an instance begins.
async fn begin(
    world: &Context,
    entry: EntryPoint,
    kind: OperationKind,
    (instance, name): (InstanceId, &InstanceName),
) -> Result<(), ServiceError> {
    let new = NewOperation {
        instance,
        name: name.clone(),
        kind,
        at: world.clock.wall(),
        asked_by: entry.as_str(),
    };
    world
        .write(move |store| store.begin(&new))
        .await
        .map_err(error::store)
}

/// Records that the running operation of an instance did what was asked for.
async fn finish(world: &Context, id: InstanceId, result: &'static str) -> Result<(), ServiceError> {
    let at = world.clock.wall();
    world
        .write(move |store| store.finish(id, at, result))
        .await
        .map_err(error::store)
}

/// Records that the running operation of an instance did not do what was asked for, and why.
pub(in crate::service) async fn fail(
    world: &Context,
    id: InstanceId,
    error: String,
) -> Result<(), ServiceError> {
    let at = world.clock.wall();
    world
        .write(move |store| store.fail(id, at, &error))
        .await
        .map_err(error::store)
}

/// Passes on what came of a try to end the running operation of an instance. If that did not work,
/// records why, for people: the operation stays, and recovery tries again.
pub(in crate::service) async fn tried<T>(
    world: &Context,
    id: InstanceId,
    came_to: Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    if let Err(e) = &came_to {
        let (at, error) = (world.clock.wall(), e.message.clone());
        let noted = world.write(move |store| store.not_ended(id, at, &error));
        if let Err(e) = noted.await {
            debug!(
                instance = id.0,
                "could not record why an operation did not end: {e}"
            );
        }
    }
    came_to
}

/// Records the step that the running operation of an instance has reached. Only people read it:
/// a write that fails stops nothing.
fn reached_step(world: &Context, id: InstanceId, step: OperationStep) {
    drop(world.write(move |store| {
        let noted = store.step(id, step);
        noted.inspect_err(|e| debug!(instance = id.0, "could not record a step: {e}"))
    }));
}
