//! `stop`: put an instance to sleep, after what is in flight has ended, and wait until it is.

use std::sync::Arc;

use super::error::ServiceError;
use super::lookup::find;
use super::outcome::Outcome;
use super::transition;
use super::view::done;
use super::world::World;

pub(super) async fn run(
    world: &Arc<World>,
    given: &str,
    now: bool,
) -> Result<Outcome, ServiceError> {
    let since = world.now();
    let handle = find(world, given)?;
    let already = transition::stop(world, &handle, now).await?;
    done(world, &handle.instance.name, "stopped", already, since)
}
