//! `restart`: stop in order, then start. One that sleeps is only started.

use std::sync::Arc;

use super::error::ServiceError;
use super::lookup::find;
use super::outcome::Outcome;
use super::start;
use super::transition::{self, Settled};
use super::view::done;
use super::world::World;
use crate::domain::lifecycle::Cause;

pub(super) async fn run(world: &Arc<World>, given: &str) -> Result<Outcome, ServiceError> {
    let since = world.now();
    let handle = find(world, given)?;
    let name = handle.instance.name.clone();
    if world.halting() {
        return Err(start::halting("restart", name.as_str()));
    }
    transition::stop(world, &handle, false).await?;
    match transition::start(world, &handle, Cause::Operator).await? {
        (_, Settled::There) => done(world, &name, "restarted", false, since),
        (_, Settled::Failed(failure)) => Err(transition::failed("restart", &name, &failure)),
        (_, Settled::Stopped) => Err(transition::stopped("restart", &name)),
    }
}
