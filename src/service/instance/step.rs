//! One step of an instance's machine, and how it comes to the disk.
//!
//! The task of the instance alone owns the machine. A step holds the lock of the tickets, so that
//! no request is let through by a machine that has moved on; nothing is written, and nothing is
//! waited for, while it is held.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::domain::instance::RunId;
use crate::domain::lifecycle::{
    self, Answer, Cause, Effect, Event, Limits, Machine, Note, Phase, Step,
};
use crate::driver::probe::NotifySocket;
use crate::service::context::Context;
use crate::service::error::{chain, store as store_error};
use crate::service::instance::handle::{Handle, Message, Refused, offset};
use crate::service::instance::kinds::{is_asked_for, must_be_written};
use crate::service::instance::tickets::CountedRequests;
use crate::store::{Save, StoreError, Written};

/// What is written within this is waited for also by what need not: so that, as a rule, it is on
/// the disk before anything is done.
const WRITTEN_SOON: Duration = Duration::from_millis(20);

/// One instance's task.
pub(in crate::service) struct Actor {
    pub(in crate::service) ctx: Arc<Context>,
    pub(in crate::service) handle: Arc<Handle>,
    /// Without the requests that are open: the tickets count those.
    pub(in crate::service) machine: Machine,
    pub(in crate::service) outbox: mpsc::WeakUnboundedSender<Message>,
    pub(in crate::service) inbox: mpsc::UnboundedReceiver<Message>,
    pub(in crate::service) probe: Option<AbortHandle>,
    /// When it is due, and its number.
    pub(in crate::service) timer: Option<(Instant, u64)>,
    pub(in crate::service) permit: Option<OwnedSemaphorePermit>,
    pub(in crate::service) notify_socket: Option<NotifySocket>,
    /// The run whose end is waited for, or was.
    pub(in crate::service) watched: Option<(u64, RunId)>,
    pub(in crate::service) unsaved: bool,
    /// A write that takes so long that it was not waited for.
    pub(in crate::service) writing: Option<Written<()>>,
}

impl Actor {
    pub(in crate::service) fn new(
        ctx: Arc<Context>,
        handle: Arc<Handle>,
        inbox: mpsc::UnboundedReceiver<Message>,
    ) -> Self {
        Self {
            outbox: handle.outbox(),
            machine: handle.machine(),
            ctx,
            handle,
            inbox,
            probe: None,
            timer: None,
            permit: None,
            notify_socket: None,
            watched: None,
            unsaved: false,
            writing: None,
        }
    }
}

/// What came of a step.
pub(in crate::service) struct Stepped {
    pub(in crate::service) answer: Answer,
    pub(in crate::service) run: u64,
    pub(in crate::service) effects: Vec<Effect>,
    /// Still to be written down.
    pub(in crate::service) unwritten: Option<Machine>,
}

impl Actor {
    /// Steps the machine. From then on no request is let through unless it is awake; all else comes
    /// after it was written down, also that the new phase is published. All but that it is awake: a
    /// request that waits for that need not wait for the disk as well, and an acc that finds a
    /// process that wakes asks anyway whether it is ready. It is written before the gate opens.
    ///
    /// No lock is held while it is written.
    pub(in crate::service) async fn step(&mut self, event: &Event) -> Result<Stepped, Refused> {
        let limits = self.ctx.limits(&self.handle.launched());
        let (before, mut step) = self.move_on(event, &limits, |machine| machine)?;
        let persists = step.effects.contains(&Effect::Persist);
        let afterwards =
            persists && before.phase() == Phase::Waking && step.next.phase() == Phase::Awake;
        if persists
            && !afterwards
            && let Err(e) = self
                .persist(&before, &step.next, &step.effects, must_be_written(event))
                .await
        {
            if is_asked_for(event) {
                self.take_back(&before);
                return Err(Refused::Broken(store_error(e)));
            }
            // It has happened whether it can be written down or not.
            self.note_unsaved(&e);
            if step.effects.contains(&Effect::Spawn) {
                // Nothing is started that the next acc would not know of: a waiting caller must ask
                // again, and hears why not.
                self.take_back(&before);
                (_, step) = self.move_on(event, &limits, |machine| machine.without_demand())?;
            }
        }
        if before.phase() != step.next.phase() {
            debug!(instance = %self.handle.instance.name, from = before.phase().as_str(), to = step.next.phase().as_str(), ?event);
        }
        let unwritten = afterwards.then(|| step.next.clone());
        let ending = matches!(step.next.phase(), Phase::Draining | Phase::Stopping);
        let run = step.next.run() + u64::from(ending);
        self.handle.publish();
        Ok(Stepped {
            answer: step.answer,
            run,
            effects: step.effects,
            unwritten,
        })
    }

    /// The machine as it was, and the step that it has made.
    fn move_on(
        &mut self,
        event: &Event,
        limits: &Limits,
        from: impl Fn(Machine) -> Machine,
    ) -> Result<(Machine, Step), Refused> {
        let handle = self.handle.clone();
        let mut tickets = handle.tickets.lock();
        // Checked under this lock, for `Registry::live`.
        if matches!(event, Event::Wake(_)) && self.ctx.halting() {
            return Err(Refused::Halting);
        }
        let before = from(self.machine.with_requests(&tickets.requests));
        let step =
            lifecycle::step(&before, event, self.ctx.now(), limits).map_err(Refused::Denied)?;
        self.set_machine(&mut tickets, step.next.clone());
        Ok((before, step))
    }

    /// Replaces the machine and its published copy, and opens or closes the tickets, under their
    /// lock.
    fn set_machine(&mut self, tickets: &mut CountedRequests, machine: Machine) {
        tickets.requests.follow(&machine);
        let awake = machine.phase() == Phase::Awake;
        let same = tickets.gate.is_some()
            && (self.machine.run(), self.machine.run_id()) == (machine.run(), machine.run_id());
        if !(awake && same) {
            tickets.gate = awake.then(|| Arc::new(self.handle.gate_of(&machine)));
        }
        self.handle.show(machine.clone());
        self.machine = machine;
    }

    /// The machine is again as it was before a step that did not come about, but for the requests
    /// that have ended meanwhile.
    fn take_back(&mut self, before: &Machine) {
        let handle = self.handle.clone();
        {
            let mut tickets = handle.tickets.lock();
            let machine = before.with_requests(&tickets.requests);
            self.set_machine(&mut tickets, machine);
        }
        handle.publish_again();
    }

    pub(in crate::service) fn note_unsaved(&mut self, e: &StoreError) {
        warn!(instance = %self.handle.instance.name, "could not write down what happened: {}", chain(e));
        self.unsaved = true;
    }

    /// Writes it down. Unless a caller waits for the write (`must`), a write that
    /// takes long goes on by itself: it keeps its place before those that come later.
    pub(in crate::service) async fn persist(
        &mut self,
        before: &Machine,
        machine: &Machine,
        effects: &[Effect],
        must: bool,
    ) -> Result<(), StoreError> {
        let woke = effects.iter().find_map(|e| {
            if let Effect::Record(Note::Woke(cause, _)) = e {
                Some(*cause)
            } else {
                None
            }
        });
        let stored = machine.stored();
        let used = match woke {
            Some(cause) => (cause == Cause::Request).then_some(stored.quiet_since),
            None => machine.used().or(before.used()),
        };
        let active_at = used.map(|at| self.ctx.wall_at(at));
        let wall = self.ctx.clock.wall();
        let clock = offset(wall, self.ctx.now());
        let (ctx, id, woke_at) = (
            self.ctx.clone(),
            self.handle.instance.id,
            woke.is_some().then_some(wall),
        );
        let mut written = self.ctx.write(move |store| {
            store.save(
                id,
                &Save {
                    stored: &stored,
                    boot: &ctx.boot,
                    woke_at,
                    active_at,
                    clock,
                },
            )
        });
        if must {
            return written.await;
        }
        tokio::select! {
            biased;
            done = &mut written => done,
            () = tokio::time::sleep(WRITTEN_SOON) => {
                self.writing = Some(written);
                Ok(())
            }
        }
    }

    pub(in crate::service) fn is_unwritten(&self) -> bool {
        self.unsaved || self.writing.is_some()
    }

    /// Writes again what could not be written, and takes the result of a write that was not waited
    /// for.
    pub(in crate::service) async fn save_again(&mut self) {
        if let Some(mut writing) = self.writing.take() {
            match futures_util::poll!(&mut writing) {
                Poll::Pending => return self.writing = Some(writing),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => self.note_unsaved(&e),
            }
        }
        if self.unsaved {
            let machine = self.handle.machine();
            self.unsaved = self.persist(&machine, &machine, &[], false).await.is_err();
        }
    }
}
