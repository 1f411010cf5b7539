//! `start`: wake an instance and wait until it answers.

use std::sync::Arc;

use crate::domain::lifecycle::Cause;
use crate::service::error::{ErrorKind, ServiceError};
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
        return Err(halting("start", name.as_str()));
    }
    match transition::start(world, &handle, Cause::Operator).await? {
        (already, Settled::There) => done(world, &name, InstanceChange::Started, already, since),
        (_, Settled::Failed(failure)) => Err(transition::failed("start", &name, &failure)),
        (_, Settled::Stopped) => Err(transition::stopped("start", &name)),
    }
}

/// acc is being halted: nothing is started any more.
pub(in crate::service) fn halting(verb: &str, name: &str) -> ServiceError {
    ServiceError::new(
        ErrorKind::Denied,
        format!("could not {verb} `{name}`: acc is stopping"),
        "start acc again with `acc boot`",
    )
}
