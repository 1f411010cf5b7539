//! Runs the verbs that a worker receives over the control socket.
//!
//! Requests about the worker itself (its version, an upgrade, changed settings) are answered here;
//! the service handles all others.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tracing::warn;

use super::binary::Binary;
use super::master::{MasterChannel, Word, current};
use super::reload::Reloader;
use crate::service::error::ServiceError;
use crate::service::handler::{Handler, RequestCaller};
use crate::service::outcome::Outcome;
use crate::service::request::Request;
use crate::service::world::World;

/// How long an upgrade waits until no verb runs.
const QUIET_WITHIN: Duration = Duration::from_secs(40);
/// How long a verb waits for interrupted verbs to be finished.
const RECOVERED_WITHIN: Duration = Duration::from_secs(20);

/// Runs verbs from the control socket.
pub(super) struct ControlVerbs {
    world: Arc<World>,
    channel: MasterChannel,
    binary: Binary,
    reloader: Arc<Reloader>,
    at_work: watch::Sender<usize>,
    /// Whether interrupted verbs have been finished.
    recovered: watch::Receiver<bool>,
}

impl ControlVerbs {
    pub(super) fn new(
        world: &Arc<World>,
        channel: &MasterChannel,
        reloader: &Arc<Reloader>,
        recovered: watch::Receiver<bool>,
    ) -> Self {
        let (world, channel, reloader) = (world.clone(), channel.clone(), reloader.clone());
        Self {
            world,
            channel,
            binary: Binary::own(),
            reloader,
            at_work: watch::Sender::new(0),
            recovered,
        }
    }

    /// Waits a limited time until interrupted verbs have been finished.
    async fn until_recovered(&self) {
        let _ = tokio::time::timeout(
            RECOVERED_WITHIN,
            self.recovered.clone().wait_for(|done| *done),
        )
        .await;
    }

    /// Waits until no verb runs: a verb cannot be handed over.
    pub(super) async fn until_quiet(&self) {
        let mut at_work = self.at_work.subscribe();
        let quiet = tokio::time::timeout(QUIET_WITHIN, at_work.wait_for(|n| *n == 0)).await;
        if quiet.is_err() {
            warn!(
                "upgrade: waiting for running commands; new commands wait until the upgrade is done"
            );
        }
    }
}

/// A verb that is at work until this is dropped, also by a panic.
struct AtWork<'a>(&'a watch::Sender<usize>);

impl<'a> AtWork<'a> {
    fn begin(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|n| *n += 1);
        Self(count)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

#[async_trait]
impl Handler for ControlVerbs {
    async fn answer(
        &self,
        caller: &RequestCaller,
        request: Request,
    ) -> Result<Outcome, ServiceError> {
        match request {
            Request::Upgrade => {
                current(&self.channel).say(Word::Upgrade);
                return Ok(Outcome::Upgrading);
            }
            Request::Ping => {
                return Ok(match self.world.answer(caller, request).await? {
                    Outcome::Pong { pid, version, .. } => Outcome::Pong {
                        pid,
                        version,
                        outdated: self.binary.is_outdated(),
                    },
                    other => other,
                });
            }
            // Nothing is waited for: reads are answered whatever else is under way.
            request if request.is_read() => return self.world.answer(caller, request).await,
            _ => {}
        }
        self.until_recovered().await;
        let _at_work = AtWork::begin(&self.at_work);
        match request {
            Request::Reload => self.reloader.run().await.map(Outcome::Reloaded),
            request => self.world.answer(caller, request).await,
        }
    }
}
