//! `start`: wake an instance and wait until it answers.

use std::sync::Arc;

use super::error::{ErrorKind, ServiceError};
use super::lookup::find;
use super::outcome::Outcome;
use super::transition::{self, Settled};
use super::view::done;
use super::world::World;
use crate::domain::lifecycle::Cause;

pub(super) async fn run(world: &Arc<World>, given: &str) -> Result<Outcome, ServiceError> {
    let since = world.now();
    let handle = find(world, given)?;
    let name = handle.instance.name.clone();
    if world.halting() {
        return Err(halting("start", name.as_str()));
    }
    match transition::start(world, &handle, Cause::Operator).await? {
        (already, Settled::There) => done(world, &name, "started", already, since),
        (_, Settled::Failed(failure)) => Err(transition::failed("start", &name, &failure)),
        (_, Settled::Stopped) => Err(transition::stopped("start", &name)),
    }
}

/// acc is being halted: nothing is started any more.
pub(super) fn halting(deed: &str, name: &str) -> ServiceError {
    ServiceError::new(
        ErrorKind::Denied,
        format!("could not {deed} `{name}`: acc is being halted"),
        "`acc boot` starts it again",
    )
}
