//! Waiting for an instance: one start for all requests that wait, and one result. Implements
//! [`Admission`].
//!
//! The first request starts the wake, the others join it; a failure reaches every one of them; a
//! client that leaves cancels only its own wait. A request to an awake instance takes the host map,
//! which is replaced as a whole, and the short lock of the instance's tickets, and nothing else.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::domain::admission::{self, AdmissionDecision, Refusal};
use crate::domain::lifecycle::{Cause, Event, Failure, Phase};
use crate::domain::name::{HostName, InstanceName};
use crate::domain::rule::Verdict;
use crate::domain::time::Timestamp;
use crate::driver::edge::Gate;
use crate::service::admission::clients::limited;
use crate::service::admission::{Admission, Admitted, Caller, Ticket, Waiting};
use crate::service::error::ServiceError;
use crate::service::handover::onward;
use crate::service::instance::handle::{Handle, Refused, Snapshot};
use crate::service::lookup::row_of_host;
use crate::service::world::World;

/// One request on its way through an instance.
struct InstanceTicket {
    world: Arc<World>,
    handle: Arc<Handle>,
    gate: Arc<Gate>,
    counts: bool,
}

impl Ticket for InstanceTicket {
    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn streams_end(&self) -> CancellationToken {
        self.handle.streams_end(self.gate.run)
    }
}

impl Drop for InstanceTicket {
    fn drop(&mut self) {
        self.handle.tickets.give_back(self.counts, self.world.now());
    }
}

/// Lets a request through if the instance is awake now.
fn admit(world: &Arc<World>, handle: &Arc<Handle>, counts: bool) -> Option<Box<InstanceTicket>> {
    let gate = handle.tickets.take()?;
    Some(Box::new(InstanceTicket {
        world: world.clone(),
        handle: handle.clone(),
        gate,
        counts,
    }))
}

/// A place among those who wait for an instance.
struct Place {
    handle: Arc<Handle>,
    client: Option<IpAddr>,
}

impl Place {
    fn take(handle: &Arc<Handle>, max: usize, client: Option<IpAddr>) -> Result<Self, Refusal> {
        if handle.waiting.take(max, client) {
            Ok(Self {
                handle: handle.clone(),
                client,
            })
        } else {
            Err(Refusal::TooManyWaiting)
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handle.waiting.give_back(self.client);
    }
}

/// A request that waits, and the run it waits for.
struct Waiter {
    world: Arc<World>,
    place: Place,
    changes: watch::Receiver<Snapshot>,
    counts: bool,
    deadline: Timestamp,
    /// A stop that is under way has ended by then.
    stopped_by: Timestamp,
    asked: Option<u64>,
}

impl Waiter {
    /// Asks for the wake once per time it is found asleep, then waits for a change.
    async fn wait(&mut self) -> Result<Box<dyn Ticket>, Refusal> {
        loop {
            let handle = self.place.handle.clone();
            self.changes.borrow_and_update();
            if let Some(ticket) = admit(&self.world, &handle, self.counts) {
                return Ok(ticket);
            }
            let now = handle.snapshot();
            if let Some(run) = self.asked
                && now.failed_run.is_some_and(|failed| failed >= run)
            {
                if !has_died(&handle) {
                    return Err(failure_of(&handle, self.world.now()));
                }
                // It was awake, and ended before this request was let through (a stop had just been
                // called off, say): no start has failed yet. Whether it may be started at once is
                // for the machine to say.
                self.asked = None;
            }
            if self.asked.is_none() || !now.phase.is_live() {
                self.asked = Some(ask_for_wake(&handle).await?);
                continue;
            }
            // What is being stopped takes its own time for that, and the machine bounds it; the
            // time to start begins afterwards.
            let stopping = matches!(now.phase, Phase::Draining | Phase::Stopping);
            let deadline = if stopping {
                self.stopped_by
            } else {
                self.deadline
            };
            let left = deadline.since(self.world.now());
            match tokio::time::timeout(left, self.changes.changed()).await {
                Ok(Ok(())) if stopping => {
                    self.deadline = self.world.now().after(self.world.config().wake.timeout)
                }
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Refusal::Broken),
                Err(_) if stopping => return Err(Refusal::StillStopping),
                Err(_) => return Err(Refusal::TooSlow),
            }
        }
    }
}

/// Asks an instance's task to wake it, and returns the run that will answer.
async fn ask_for_wake(handle: &Handle) -> Result<u64, Refusal> {
    let asked = handle.ask(Event::Wake(Cause::Request)).await;
    asked
        .map(|(_, run)| run)
        .map_err(|refused| refusal(handle, &refused))
}

/// Was it awake when it failed?
fn has_died(handle: &Handle) -> bool {
    matches!(handle.machine().failure(), Some(Failure::Died(_)))
}

fn failure_of(handle: &Handle, now: Timestamp) -> Refusal {
    let machine = handle.machine();
    let retry_s = machine.retry_at().since(now).as_secs().max(1);
    Refusal::Failed {
        reason: machine.failure().map_or("it failed", Failure::name),
        retry_s,
    }
}

fn refusal(handle: &Handle, refused: &Refused) -> Refusal {
    match refused {
        Refused::Denied(denied) => Refusal::from(denied),
        Refused::Halting => Refusal::Halting,
        Refused::Broken(e) => {
            warn!(instance = %handle.instance.name, "could not wake it: {e}");
            Refusal::Broken
        }
    }
}

#[async_trait]
impl Waiting for Waiter {
    async fn admitted(&mut self) -> Result<Box<dyn Ticket>, Refusal> {
        let (world, name) = (self.world.clone(), self.place.handle.instance.name.clone());
        let refused = tokio::select! {
            biased;
            () = world.retired.cancelled() => return Ok(onward(&world, name)),
            entry = self.wait() => match entry {
                Err(why) if world.has_retired() => why,
                entry => return entry,
            },
        };
        tracing::debug!(instance = %name, ?refused, "request refused during a handover");
        Ok(onward(&world, name))
    }

    fn name(&self) -> String {
        self.place.handle.instance.name.to_string()
    }
}

async fn handle_of_host(world: &Arc<World>, host: &HostName) -> Result<Arc<Handle>, Refusal> {
    if let Some(handle) = world.registry.by_host(host) {
        return Ok(handle);
    }
    let broken = |e: ServiceError| unknown(host, &e);
    let before = world.registry.departures();
    let row = row_of_host(world, host)
        .await
        .map_err(broken)?
        .ok_or(Refusal::UnknownHost)?;
    // What can be refused by the row alone needs no task.
    match row.stored.phase {
        Phase::Destroyed => Err(Refusal::Destroyed),
        Phase::Creating => Err(Refusal::Creating),
        Phase::Asleep
        | Phase::Waking
        | Phase::Awake
        | Phase::Draining
        | Phase::Stopping
        | Phase::Failed => world
            .registry
            .get_read(&world.context, row, before)
            .await
            .map_err(broken),
    }
}

#[async_trait]
impl Admission for Arc<World> {
    fn admit_now(&self, host: &HostName, verdict: Verdict) -> Option<Box<dyn Ticket>> {
        if self.has_retired() {
            return None;
        }
        let ticket = self
            .registry
            .peek_host(host, |handle| admit(self, handle, verdict.counts))?;
        Some(ticket)
    }

    async fn admit(&self, host: &HostName, verdict: Verdict) -> Result<Admitted, Refusal> {
        self.admit_for(host, verdict, Caller::default()).await
    }

    async fn admit_for(
        &self,
        host: &HostName,
        verdict: Verdict,
        caller: Caller,
    ) -> Result<Admitted, Refusal> {
        if !self.has_retired() {
            let admitted = admit_here(self, host, verdict, caller).await;
            if admitted.is_ok() || !self.has_retired() {
                return admitted;
            }
        }
        let row = row_of_host(self, host)
            .await
            .map_err(|e| unknown(host, &e))?
            .ok_or(Refusal::UnknownHost)?;
        Ok(Admitted::Open(onward(self, row.name)))
    }

    fn known_name(&self, host: &HostName) -> Option<InstanceName> {
        if self.has_retired() {
            return None;
        }
        self.registry
            .peek_host(host, |handle| Some(handle.instance.name.clone()))
    }

    async fn name_of(&self, host: &HostName) -> Option<InstanceName> {
        if let Some(name) = self.known_name(host) {
            return Some(name);
        }
        row_of_host(self, host)
            .await
            .map_err(|e| unknown(host, &e))
            .ok()?
            .map(|row| row.name)
    }

    async fn peek(&self, host: &HostName) -> Result<Phase, Refusal> {
        // What is remembered here may be out of date once another acc manages the instances.
        let handle = if self.has_retired() {
            None
        } else {
            self.registry.by_host(host)
        };
        if let Some(handle) = handle {
            return Ok(handle.snapshot().phase);
        }
        let row = row_of_host(self, host)
            .await
            .map_err(|e| unknown(host, &e))?
            .ok_or(Refusal::UnknownHost)?;
        Ok(row.stored.phase)
    }
}

fn unknown(host: &HostName, error: &ServiceError) -> Refusal {
    warn!(%host, "could not look up its instance: {error}");
    Refusal::Broken
}

/// Counts a wake for a client that may cause only so many.
fn count_wake(world: &World, client: Option<IpAddr>) -> Result<(), Refusal> {
    let config = world.config();
    let client = client.and_then(|client| limited(client, &config.edge.of_many()));
    let counted = world
        .wakes
        .count(client, config.wake.per_client, world.now());
    counted.map_err(|early| Refusal::TooManyWakes {
        retry_s: early.as_secs() + 1,
    })
}

async fn admit_here(
    world: &Arc<World>,
    host: &HostName,
    verdict: Verdict,
    caller: Caller,
) -> Result<Admitted, Refusal> {
    // Nearly every request: no clock is asked for it.
    if let Some(ticket) = world
        .registry
        .peek_host(host, |handle| admit(world, handle, verdict.counts))
    {
        return Ok(Admitted::Open(ticket));
    }
    let noticed = world.clock.micros();
    let handle = handle_of_host(world, host).await?;
    if let Some(ticket) = admit(world, &handle, verdict.counts) {
        return Ok(Admitted::Open(ticket));
    }
    if world.halting() {
        return Err(Refusal::Halting);
    }
    let phase = handle.snapshot().phase;
    // The phase from the database may be out of date until the supervisor was asked: then the wake
    // is asked for, and waits until that is known.
    let starting = handle.known() && phase == Phase::Waking;
    match admission::admit(phase, verdict.wake) {
        AdmissionDecision::Forward | AdmissionDecision::Hold => {}
        AdmissionDecision::Refuse(why) => return Err(why),
    }
    // A request that comes while others wait wakes nothing: a page with many parts is one wake.
    if !starting && handle.waiting.count() == 0 {
        count_wake(world, caller.client)?;
    }
    let config = world.config();
    let mut waiter = Waiter {
        world: world.clone(),
        changes: handle.follow(),
        place: Place::take(&handle, config.wake.max_waiting, caller.client)?,
        counts: verdict.counts,
        deadline: world.now().after(config.wake.timeout),
        stopped_by: world.now().after(
            world
                .limits(&handle.launched())
                .longest_stop()
                .max(config.wake.timeout),
        ),
        asked: None,
    };
    // Asked here and not at the first wait: a client that leaves at once has still woken it.
    waiter.asked = Some(if starting {
        handle.snapshot().run
    } else {
        handle.stamps().notice(noticed);
        ask_for_wake(&handle).await?
    });
    Ok(Admitted::Wait(Box::new(waiter)))
}
