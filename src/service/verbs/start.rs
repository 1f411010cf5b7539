//! `start`: wake an instance and wait until it answers.

use std::sync::Arc;

use crate::domain::lifecycle::Cause;
use crate::service::error::ServiceError;
use crate::service::instance::transition::{self, Settled};
use crate::service::lookup::find;
use crate::service::outcome::{InstanceChange, Outcome};
use crate::service::request::InstanceRef;
use crate::service::view::done;
use crate::service::world::World;

pub(in crate::service) async fn run(
    world: &Arc<World>,
    given: &InstanceRef,
) -> Result<Outcome, ServiceError> {
    let since = world.now();
    let handle = find(world, given).await?;
    let name = handle.instance.name.clone();
    match transition::start(world, &handle, Cause::Operator).await? {
        (already, Settled::There) => done(world, &name, InstanceChange::Started, already, since),
        (_, Settled::Failed(failure)) => Err(transition::failed("start", &name, &failure)),
        (_, Settled::Stopped) => Err(transition::stopped("start", &name)),
    }
}
