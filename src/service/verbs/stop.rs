//! `stop`: put an instance to sleep, after what is in flight has ended, and wait until it is.

use std::sync::Arc;

use crate::service::error::ServiceError;
use crate::service::instance::transition;
use crate::service::lookup::find;
use crate::service::outcome::{InstanceChange, Outcome};
use crate::service::request::InstanceRef;
use crate::service::view::done;
use crate::service::world::World;

pub(in crate::service) async fn run(
    world: &Arc<World>,
    given: &InstanceRef,
    now: bool,
) -> Result<Outcome, ServiceError> {
    let since = world.now();
    let handle = find(world, given).await?;
    let already = transition::stop(world, &handle, now).await?;
    done(
        world,
        &handle.instance.name,
        InstanceChange::Stopped,
        already,
        since,
    )
}
