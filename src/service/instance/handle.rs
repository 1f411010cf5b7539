//! One instance as the rest of `service` sees it: its tickets, a copy of its machine to read, and
//! the way to its task.
//!
//! It starts nothing and writes nothing: the task does (`actor`), which alone owns the machine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::domain::instance::{Instance, Listen, RunId};
use crate::domain::lifecycle::{Answer, Denied, Event, Machine, Phase};
use crate::domain::name::{HostName, InstanceId, InstanceName};
use crate::domain::time::{Timestamp, WallTime};
use crate::driver::activity::LogMark;
use crate::driver::edge::Gate;
use crate::driver::probe::NotifySocket;
use crate::service::admission::clients::Places;
use crate::service::context::Context;
use crate::service::error::ServiceError;
use crate::service::instance::tickets::Tickets;
use crate::service::instance::wake_timing::Stamps;

/// How long a verb that has come to its end waits for the rest of its last step.
const CATCH_UP: Duration = Duration::from_secs(5);

/// The state of an instance that its waiters follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Phase.
    pub phase: Phase,
    /// Number of the run.
    pub run: u64,
    /// The run that failed last.
    pub failed_run: Option<u64>,
}

/// Why the machine did not take an event.
#[derive(Debug)]
pub enum Refused {
    /// Not in this phase.
    Denied(Denied),
    /// It could not be written down, or the supervisor could not be asked.
    Broken(ServiceError),
    /// Nothing is woken while acc halts.
    Halting,
}

/// The reply to an event: whether something was done, and the run that will answer to it (the next
/// one, while this one ends).
pub type Reply = Result<(Answer, u64), Refused>;

/// What the last check of the access log showed.
#[derive(Debug, Clone, Copy)]
pub(in crate::service) struct LastCheck {
    pub(in crate::service) mark: LogMark,
    pub(in crate::service) at: Timestamp,
    /// Wall clock less boot clock at that time, in ms: when it has changed, the wall clock was set.
    pub(in crate::service) offset: Option<i64>,
}

/// Wall clock less boot clock, from the same moment by both.
pub(in crate::service) fn offset(wall: WallTime, boot: Timestamp) -> i64 {
    wall.0
        .saturating_sub(i64::try_from(boot.0).unwrap_or(i64::MAX))
}

/// What never changes of an instance; for where it listens and how it is run see
/// [`Handle::launched`].
#[derive(Debug)]
pub(in crate::service) struct Who {
    pub(in crate::service) id: InstanceId,
    pub(in crate::service) name: InstanceName,
    pub(in crate::service) hosts: Vec<HostName>,
}

/// One instance, and the way to its task.
pub struct Handle {
    pub(in crate::service) instance: Who,
    launched: Mutex<Arc<Instance>>,
    pub(in crate::service) waiting: Places,
    pub(in crate::service) last_check: Mutex<LastCheck>,
    stamps: Mutex<Stamps>,
    pub(in crate::service) tickets: Tickets,
    /// The machine as the task last set it.
    machine: Mutex<Machine>,
    /// Cancelled when the streams of this run must end; made by the first of them.
    streams: Mutex<Option<(u64, CancellationToken)>>,
    known: AtomicBool,
    /// It is known how it is run, see `launch_spec::entered`.
    fit: AtomicBool,
    inbox: mpsc::UnboundedSender<Message>,
    seen: watch::Sender<Snapshot>,
}

impl Handle {
    /// A handle, and what its task reads. `fit`: it is known how it is run.
    pub(in crate::service) fn new(
        machine: Machine,
        instance: Instance,
        last_check: LastCheck,
        fit: bool,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Message>) {
        let (inbox, messages) = mpsc::unbounded_channel();
        let handle = Self {
            waiting: Places::default(),
            last_check: Mutex::new(last_check),
            stamps: Mutex::default(),
            seen: watch::Sender::new(Snapshot::of(&machine)),
            known: AtomicBool::new(!machine.phase().is_live()),
            tickets: Tickets::closed(machine.quiet_since()),
            machine: Mutex::new(machine),
            streams: Mutex::default(),
            fit: AtomicBool::new(fit),
            inbox,
            instance: Who {
                id: instance.id,
                name: instance.name.clone(),
                hosts: instance.hosts.clone(),
            },
            launched: Mutex::new(Arc::new(instance)),
        };
        (Arc::new(handle), messages)
    }

    /// The way to its task that does not keep the task.
    pub(in crate::service) fn outbox(&self) -> mpsc::WeakUnboundedSender<Message> {
        self.inbox.downgrade()
    }

    /// The machine as the task last set it, with the requests that are open now.
    pub(in crate::service) fn machine(&self) -> Machine {
        let requests = self.tickets.requests();
        self.shown().with_requests(&requests)
    }

    /// The machine has become this one. For the task alone.
    pub(in crate::service) fn show(&self, machine: Machine) {
        *self.shown() = machine;
    }

    fn shown(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account of the wake that is under way.
    pub(in crate::service) fn stamps(&self) -> MutexGuard<'_, Stamps> {
        self.stamps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is true now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.shown())
    }

    /// Follows the changes.
    pub(in crate::service) fn follow(&self) -> watch::Receiver<Snapshot> {
        self.seen.subscribe()
    }

    /// All waiters check again, also those that have seen what was taken back.
    pub(in crate::service) fn publish_again(&self) {
        self.seen.send_replace(self.snapshot());
    }

    /// Publishes the current state. No caller waits for the beginning of a wake:
    /// a caller that asks for one is answered, and waking it once more would only delay the wake.
    pub(in crate::service) fn publish(&self) {
        let now = self.snapshot();
        self.seen.send_if_modified(|before| {
            let begins = now.phase == Phase::Waking && !before.phase.is_live();
            let tells = *before != now && !begins;
            *before = now;
            tells
        });
    }

    /// Cancelled when the streams of this run must end.
    pub(in crate::service) fn streams_end(&self, run: u64) -> CancellationToken {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        match &*streams {
            Some((of, end)) if *of == run => end.clone(),
            _ => streams.insert((run, CancellationToken::new())).1.clone(),
        }
    }

    pub(in crate::service) fn end_streams(&self, run: u64) {
        self.streams_end(run).cancel();
    }

    /// Is it known how it is run?
    pub(in crate::service) fn is_fit(&self) -> bool {
        self.fit.load(Ordering::Acquire)
    }

    pub(in crate::service) fn set_fit(&self) {
        self.fit.store(true, Ordering::Release);
    }

    /// Is it known what runs? Before that, the phase read from the database may be out of date.
    pub(in crate::service) fn known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    pub(in crate::service) fn set_known(&self) {
        self.known.store(true, Ordering::Release);
        self.seen.send_replace(self.snapshot());
    }

    /// As it is run: its port may have been changed since its task began.
    pub(in crate::service) fn launched(&self) -> Arc<Instance> {
        self.launched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// It is run like this from now on. Only while nothing of it runs, and after the row says so.
    pub(in crate::service) fn relaunch(&self, instance: Instance) {
        *self.launched.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(instance);
    }

    /// The gate of the current run.
    pub(in crate::service) fn gate(&self, run: u64) -> Gate {
        self.gate_to(&self.launched(), run, self.shown().run_id())
    }

    /// The gate of a machine that is awake.
    pub(in crate::service) fn gate_of(&self, machine: &Machine) -> Gate {
        self.gate_to(&self.launched(), machine.run(), machine.run_id())
    }

    /// Only for TCP the process matters: a unix socket is known by its owner.
    fn gate_to(&self, launched: &Instance, run: u64, run_id: Option<&RunId>) -> Gate {
        Gate {
            name: self.instance.name.clone(),
            process: run_id
                .and_then(RunId::process)
                .filter(|_| matches!(launched.listen, Listen::Tcp(_))),
            listen: launched.listen.clone(),
            run,
            account: launched.account.clone(),
        }
    }

    /// Waits until it is known what runs; `false`: it is not known yet after this long.
    pub(in crate::service) async fn until_known(&self, within: Duration) -> bool {
        let mut changes = self.follow();
        tokio::time::timeout(within, changes.wait_for(|_| self.known()))
            .await
            .is_ok()
    }

    /// Hands an event to the task without waiting.
    pub(in crate::service) fn tell(&self, event: Event) {
        let _ = self.inbox.send(Message::fact(event));
    }

    /// The same for what was found out while it was as `seen`; it is dropped if that is not so any
    /// more.
    pub(in crate::service) fn tell_if(&self, seen: Snapshot, event: Event) {
        let _ = self.inbox.send(Message::found(event, seen));
    }

    /// Hands a request to the task and waits for the machine's answer.
    pub(in crate::service) async fn ask(&self, event: Event) -> Reply {
        let (reply, answer) = oneshot::channel();
        let gone = || {
            Refused::Broken(ServiceError::failed(
                format!("the task of `{}` ended", self.instance.name),
                "try again",
            ))
        };
        self.inbox
            .send(Message::request(event, reply))
            .map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Waits until all is done that belongs to the phase that can be seen, its event last. A task
    /// takes one event after the other: it answers to this one, which is of no run and changes
    /// nothing, when nothing is left of those before it. One that is held up by a driver is not
    /// waited for for long: what the verb came to is known.
    pub(in crate::service) async fn caught_up(&self, ctx: &Context) {
        let all = async {
            let _ = self
                .ask(Event::Timer {
                    armed: u64::MAX,
                    waits_for: String::new(),
                })
                .await;
            ctx.written().await;
        };
        let _ = tokio::time::timeout(CATCH_UP, all).await;
    }
}

impl Snapshot {
    fn of(machine: &Machine) -> Self {
        Self {
            phase: machine.phase(),
            run: machine.run(),
            failed_run: machine.failed_run(),
        }
    }
}

/// What the task reads.
pub(in crate::service) struct Message {
    pub(in crate::service) event: Event,
    pub(in crate::service) reply: Option<oneshot::Sender<Reply>>,
    pub(in crate::service) permit: Option<OwnedSemaphorePermit>,
    /// Where the process that was started says that it is ready.
    pub(in crate::service) notify_socket: Option<NotifySocket>,
    /// Only true as long as this is.
    pub(in crate::service) seen: Option<Snapshot>,
}

impl Message {
    /// Something that has happened; no caller waits.
    pub(in crate::service) fn fact(event: Event) -> Self {
        Self {
            event,
            reply: None,
            permit: None,
            notify_socket: None,
            seen: None,
        }
    }

    /// Something that was found out while the instance was as `seen`: if it has moved on, the event
    /// is dropped.
    pub(in crate::service) fn found(event: Event, seen: Snapshot) -> Self {
        Self {
            event,
            reply: None,
            permit: None,
            notify_socket: None,
            seen: Some(seen),
        }
    }

    /// Something asked for.
    pub(in crate::service) fn request(event: Event, reply: oneshot::Sender<Reply>) -> Self {
        Self {
            event,
            reply: Some(reply),
            permit: None,
            notify_socket: None,
            seen: None,
        }
    }
}
