//! Everything to sleep in order, and no wake from now on: the first half of `halt`. What is desired
//! stays as it is.

use std::sync::Arc;

use crate::service::error::ServiceError;
use crate::service::instance::transition;
use crate::service::lookup::{self, LiveInstance};
use crate::service::outcome::Outcome;
use crate::service::world::World;

pub(in crate::service) async fn run(world: &Arc<World>) -> Result<Outcome, ServiceError> {
    world.set_halting(true);
    match all(world).await {
        Ok(stopped) => Ok(Outcome::Quiesced { stopped }),
        Err(e) => {
            world.set_halting(false);
            Err(e)
        }
    }
}

/// Stops until nothing is live: one that was being stopped may have been asked to start afterwards.
async fn all(world: &Arc<World>) -> Result<usize, ServiceError> {
    let mut stopped = 0;
    loop {
        let live = lookup::live(world).await?;
        if live.is_empty() {
            return Ok(stopped);
        }
        stopped += stop(world, live).await?;
    }
}

/// Stops these at once. Returns how many were not asleep yet.
async fn stop(world: &Arc<World>, live: Vec<LiveInstance>) -> Result<usize, ServiceError> {
    let mut stops = tokio::task::JoinSet::new();
    for instance in live {
        let (world, handle) = (world.clone(), instance.handle?);
        stops.spawn(async move { transition::stop(&world, &handle, false).await });
    }
    let mut stopped = 0;
    let mut first = None;
    while let Some(result) = stops.join_next().await {
        match result {
            Ok(Ok(already)) => stopped += usize::from(!already),
            Ok(Err(e)) => first = first.or(Some(e)),
            Err(e) => {
                first = first.or(Some(ServiceError::because(
                    "could not put all instances to sleep",
                    &e,
                    "try again",
                )))
            }
        }
    }
    first.map_or(Ok(stopped), Err)
}
