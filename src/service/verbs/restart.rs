//! `restart`: stop in order, then start. One that sleeps is only started.

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
    if world.halting() {
        return Err(transition::halting("restart", &name));
    }
    transition::stop(world, &handle, false).await?;
    match transition::start(world, &handle, Cause::Operator).await? {
        (_, Settled::There) => done(world, &name, InstanceChange::Restarted, false, since),
        (_, Settled::Failed(failure)) => Err(transition::failed("restart", &name, &failure)),
        (_, Settled::Stopped) => Err(transition::stopped("restart", &name)),
    }
}
