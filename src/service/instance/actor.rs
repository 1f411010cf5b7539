//! The task of one instance: takes events one by one, steps the machine, performs the effects in
//! order.
//!
//! Only this task touches drivers and the store for its instance. What takes long runs beside it
//! and comes back as an event. It never decides; `domain::lifecycle` does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::domain::instance::RunId;
use crate::domain::lifecycle::{self, Effect, Event, Note, Phase};
use crate::domain::time::Timestamp;
use crate::driver::activity::Target;
use crate::service::error::{ServiceError, chain};
use crate::service::instance::handle::{Handle, Message, Refused, Reply};
use crate::service::instance::kinds::point;
use crate::service::instance::revive;
use crate::service::instance::revive::ASK_AGAIN;
use crate::service::instance::start::{self, Begun};
use crate::service::instance::step::{Actor, Stepped};
use crate::service::{events, launch_spec};

/// How long the task of a sleeper waits for callers that still hold it: at first, because its
/// creator lets go in a moment, and a script that makes a thousand of them a second must not keep a
/// thousand tasks; then ever longer, up to this. Also how long a task with something unsaved waits
/// until it tries again.
const LINGER_FIRST: Duration = Duration::from_millis(20);
const LINGER: Duration = Duration::from_secs(1);
/// The task of a live instance has nothing to do by itself.
const LINGER_LIVE: Duration = Duration::from_secs(24 * 3600);
/// Longest pause between two counts of what is in flight.
const COUNT_PAUSE_MAX: Duration = Duration::from_millis(25);

/// Sends the result to the caller.
fn tell(asked: Option<oneshot::Sender<Reply>>, reply: Reply) {
    if let Some(asked) = asked {
        let _ = asked.send(reply);
    }
}

impl Actor {
    /// Runs until the instance sleeps and only the registry holds it, which says whether it may
    /// `leave`.
    pub(in crate::service) async fn run(
        mut self,
        leave: impl Fn(&Arc<Handle>, &dyn Fn() -> bool) -> bool,
    ) {
        let retired = self.ctx.retired.clone();
        if !self.handle.known() {
            revive::restore_record(&self.ctx, &self.handle).await;
            let found = tokio::select! {
                biased;
                () = retired.cancelled() => return,
                found = self.find_out() => found,
            };
            self.take(Message::fact(Event::Found(found))).await;
            self.handle.set_known();
        }
        let mut patience = LINGER_FIRST;
        // Between two events it may end at any moment, never within one.
        while !retired.is_cancelled() {
            let live = self.machine.phase().is_live();
            if !live && !self.is_unwritten() && leave(&self.handle, &|| self.inbox.is_empty()) {
                break;
            }
            let linger = match (self.is_unwritten(), live) {
                (true, _) => LINGER,
                (false, true) => LINGER_LIVE,
                (false, false) => patience,
            };
            let until = Instant::now() + linger;
            let until = self.timer.map_or(until, |(at, _)| until.min(at));
            let message = tokio::select! {
                biased;
                () = retired.cancelled() => break,
                message = tokio::time::timeout_at(until, self.inbox.recv()) => message,
            };
            match message {
                Ok(Some(message)) => {
                    patience = LINGER_FIRST;
                    self.take(message).await;
                }
                Ok(None) => break,
                Err(_) => {
                    if let Some(event) = self.due().await {
                        self.take(Message::fact(event)).await;
                        continue;
                    }
                    patience = (patience * 2).min(LINGER);
                    self.save_again().await;
                }
            }
        }
        self.rest();
    }

    /// The database says that something runs: asks what. As long as that is unknown, every request
    /// is refused with that reason.
    async fn find_out(&mut self) -> Option<RunId> {
        let name = self.handle.instance.name.clone();
        loop {
            match revive::find(&self.ctx, &self.handle.launched()).await {
                Ok(found) => return found,
                Err(e) => {
                    warn!(instance = %name, "could not find out what runs: {}", chain(&e));
                    let error = ServiceError::because(
                        format!("could not find out whether `{name}` is running"),
                        &e,
                        "run `acc doctor`",
                    );
                    self.refuse_all(&error).await;
                }
            }
        }
    }

    async fn refuse_all(&mut self, error: &ServiceError) {
        let again = tokio::time::sleep(ASK_AGAIN);
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = &mut again => return,
                message = self.inbox.recv() => match message.and_then(|m| m.reply) {
                    Some(reply) => drop(reply.send(Err(Refused::Broken(error.clone())))),
                    None => continue,
                },
            }
        }
    }

    async fn take(&mut self, message: Message) {
        self.save_again().await;
        if message
            .seen
            .is_some_and(|seen| seen != self.handle.snapshot())
        {
            return;
        }
        let event = message.event;
        let Stepped {
            answer,
            run,
            effects,
            unwritten,
        } = match self.step(&event).await {
            Ok(stepped) => stepped,
            Err(refused) => {
                debug!(instance = %self.handle.instance.name, ?event, ?refused, "refused");
                return tell(message.reply, Err(refused));
            }
        };
        // The caller that wakes it is answered after the start: answered before, it would take the
        // processor from the start.
        let starts = effects.contains(&Effect::Spawn);
        let (now, later) = if starts {
            (None, message.reply)
        } else {
            (message.reply, None)
        };
        tell(now, Ok((answer, run)));
        if message.permit.is_some() {
            self.permit = message.permit;
        }
        if message.notify_socket.is_some() {
            self.notify_socket = message.notify_socket;
        }
        if self.machine.phase() != Phase::Waking {
            self.rest_probe();
        }
        if let Some(machine) = unwritten
            && let Err(e) = self.persist(&machine, &machine, &effects, false).await
        {
            self.note_unsaved(&e);
        }
        for effect in effects {
            if !self.perform(effect).await {
                break;
            }
        }
        tell(later, Ok((answer, run)));
    }

    /// Performs one effect; `false`: the rest of this step must not be done.
    async fn perform(&mut self, effect: Effect) -> bool {
        let run = self.handle.snapshot().run;
        // For a test to stop acc between two effects; an error has nowhere to go here.
        let _ = point(&effect).map(|point| self.ctx.reached(point));
        match effect {
            Effect::Persist => {}
            Effect::Spawn => self.spawn(run).await,
            Effect::Watch => self.watch(run),
            Effect::Probe => self.start_probe(run),
            Effect::OpenGate => self.open_gate(run).await,
            Effect::CloseGate => return self.close_gate(run).await,
            Effect::EndStreams => self.handle.end_streams(run),
            Effect::Count(looks) => self.count(run, looks),
            Effect::Terminate => self.signal(false).await,
            Effect::Kill => self.signal(true).await,
            Effect::Arm { at, armed } => self.arm(at, armed),
            Effect::Record(note) => {
                // Requests that waited for this step run first: the event can wait.
                tokio::task::yield_now().await;
                let woke = matches!(note, Note::Woke(..));
                let phases = if woke {
                    self.handle.stamps().account()
                } else {
                    None
                };
                events::write(&self.ctx, &self.handle.launched(), &note, phases);
            }
        }
        true
    }

    fn send(outbox: &mpsc::WeakUnboundedSender<Message>, event: Event) {
        if let Some(outbox) = outbox.upgrade() {
            let _ = outbox.send(Message::fact(event));
        }
    }

    async fn spawn(&self, run: u64) {
        let (ctx, outbox) = (self.ctx.clone(), self.outbox.clone());
        let handle = Arc::downgrade(&self.handle);
        self.handle.stamps().begin(ctx.clock.micros());
        let mut starting = Box::pin(async move {
            let Some(Begun {
                event,
                permit,
                notify_socket,
            }) = start::begin(&ctx, &handle, run).await
            else {
                return;
            };
            if let Some(outbox) = outbox.upgrade() {
                let _ = outbox.send(Message {
                    event,
                    reply: None,
                    permit,
                    notify_socket,
                    seen: None,
                });
            }
        });
        // A start that waits for nothing is over by now, and costs no turn of another thread.
        if futures_util::poll!(&mut starting).is_pending() {
            self.ctx.hands.spawn(starting);
        }
    }

    fn watch(&mut self, run: u64) {
        let Some(run_id) = self.machine.run_id().cloned() else {
            return;
        };
        // It was found again, as a monitor run does that finds its gate closed: one that waits for
        // its end is enough.
        if self.watched.replace((run, run_id.clone())) == Some((run, run_id.clone())) {
            return;
        }
        let (ctx, outbox, name) = (
            self.ctx.clone(),
            self.outbox.clone(),
            self.handle.instance.name.clone(),
        );
        let (handle, since) = (Arc::downgrade(&self.handle), self.ctx.now());
        let launched = self.handle.launched();
        let (kind, account) = (launched.launch.runner.clone(), launched.account.clone());
        tokio::spawn(async move {
            loop {
                let wait = async { ctx.runners.of(&kind)?.wait(&name, &account, &run_id).await };
                let ended = tokio::select! {
                    biased;
                    // Its pid file is no longer ours to remove.
                    () = ctx.retired.cancelled() => return,
                    ended = wait => ended,
                };
                match ended {
                    Ok(exit) => {
                        start::close_port(&ctx, &handle, run).await;
                        // If another acc manages the instances, the socket may belong to the next
                        // run: bound, and not listening yet.
                        if let Some(handle) = handle.upgrade().filter(|_| !ctx.has_retired()) {
                            ctx.probe
                                .tidy(&launch_spec::probe_target(&ctx, &handle.launched()));
                        }
                        // Its output went to a supervisor that died meanwhile: that ended it. It is
                        // started again, not failed.
                        let torn = start::torn(&ctx, &handle, since).await;
                        let why = start::never_began(&ctx, &handle, run, exit)
                            .await
                            .filter(|_| !torn);
                        why.into_iter().for_each(|why| Self::send(&outbox, why));
                        return Self::send(
                            &outbox,
                            if torn {
                                Event::Found(None)
                            } else {
                                Event::Exited { run, exit }
                            },
                        );
                    }
                    Err(e) => {
                        warn!(instance = %name, "could not watch its process: {}", chain(&e));
                        tokio::time::sleep(ASK_AGAIN).await;
                    }
                }
            }
        });
    }

    fn start_probe(&mut self, run: u64) {
        let (ctx, outbox) = (self.ctx.clone(), self.outbox.clone());
        let probe_target = launch_spec::probe_target(&self.ctx, &self.handle.launched());
        let handle = Arc::downgrade(&self.handle);
        let process = self.machine.run_id().and_then(RunId::process);
        let notify_socket = self.notify_socket.take();
        let task = tokio::spawn(async move {
            let answered = ctx.probe.ready(&probe_target, process, notify_socket).await;
            let event = match &answered {
                Ok(answered) => {
                    if let Some(handle) = handle.upgrade() {
                        start::note_answer(&ctx, &handle, answered);
                    }
                    Event::Ready { run }
                }
                Err(why) => Event::StartFailed {
                    run,
                    failure: lifecycle::Failure::NotStarted(why.clone()),
                },
            };
            Self::send(&outbox, event);
            // The watch goes last: to take it away takes the kernel a while.
            drop(answered);
        });
        self.probe = Some(task.abort_handle());
    }

    async fn open_gate(&self, run: u64) {
        if let Err(e) = self.ctx.edge.open(&self.handle.gate(run)).await {
            // It answers, and the wake server reaches it without a gate: slower, but nothing is
            // lost, and no request in progress is cut off. The next run opens what is
            // missing.
            warn!(instance = %self.handle.instance.name, "could not open its gate, requests go through acc: {}", chain(&e));
        }
    }

    async fn close_gate(&self, run: u64) -> bool {
        let Err(e) = self.ctx.edge.close(&self.handle.gate(run)).await else {
            return true;
        };
        warn!(instance = %self.handle.instance.name, "could not close its gate: {}", chain(&e));
        // While draining nothing may be stopped behind an open gate; else the process is gone, or
        // the operator does not wait.
        let draining = self.handle.snapshot().phase == Phase::Draining;
        if draining {
            self.handle.tell(Event::DrainFailed { run });
        }
        !draining
    }

    fn count(&self, run: u64, looks: u32) {
        let (ctx, outbox) = (self.ctx.clone(), self.outbox.clone());
        let gate = self.handle.gate(run);
        let handle = Arc::downgrade(&self.handle);
        tokio::spawn(async move {
            if looks > 0 {
                let pause = Duration::from_millis(1 << looks.min(10)).min(COUNT_PAUSE_MAX);
                tokio::time::sleep(pause).await;
            }
            let pooled = ctx.edge.pooled(&gate);
            let target = Target {
                listen: gate.listen.clone(),
                log: None,
            };
            let event = match ctx.activity.sample(&[target]).await {
                Ok(seen) => {
                    let open = seen.first().map_or(0, |s| s.connections);
                    let tickets = handle.upgrade().map_or(0, |h| h.tickets.requests().open());
                    // Pooled connections may close between the two checks: the larger number of
                    // them is the true one.
                    Event::InFlight {
                        run,
                        count: open
                            .saturating_sub(pooled.max(ctx.edge.pooled(&gate)))
                            .max(tickets),
                    }
                }
                Err(e) => {
                    warn!(instance = %gate.name, "{}", chain(&e));
                    Event::DrainFailed { run }
                }
            };
            Self::send(&outbox, event);
        });
    }

    async fn signal(&self, kill: bool) {
        let Some(run_id) = self.machine.run_id() else {
            return;
        };
        let launched = self.handle.launched();
        let program = launch_spec::program(&self.ctx, &launched);
        let signalled = async {
            let runner = self.ctx.runner(&launched)?;
            match kill {
                false => runner.terminate(&program, run_id).await,
                true => runner.kill(&program.name, &program.account, run_id).await,
            }
        };
        if let Err(e) = signalled.await {
            warn!(instance = %program.name, "could not signal its process: {}", chain(&e));
        }
    }

    fn arm(&mut self, at: Timestamp, armed: u64) {
        self.timer = Some((Instant::now() + at.since(self.ctx.now()), armed));
    }

    /// The timer's event, once it is due.
    async fn due(&mut self) -> Option<Event> {
        let (_, armed) = self.timer.take_if(|(at, _)| *at <= Instant::now())?;
        Some(Event::Timer {
            armed,
            waits_for: start::waits_for(&self.ctx, &self.handle).await,
        })
    }

    fn rest_probe(&mut self) {
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
        (self.permit, self.notify_socket) = (None, None);
    }

    fn rest(&mut self) {
        self.rest_probe();
        self.timer = None;
    }
}
