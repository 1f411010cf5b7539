//! The instances that have a task: those awake, on their way, or asked for just now. A sleeper is not here.
//!
//! A handle is found under the same lock under which it is removed, so nobody ever holds one whose task has left.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::actor::{Actor, Message};
use super::clients::Places;
use super::error::ServiceError;
use super::launch;
use super::phases::Stamps;
use super::world::World;
use crate::domain::instance::{Instance, Listen};
use crate::domain::lifecycle::{Answer, Denied, Event, Machine, Phase};
use crate::domain::name::{HostName, InstanceId, InstanceName};
use crate::domain::time::{Timestamp, WallTime};
use crate::driver::activity::Mark;
use crate::driver::edge::Gate;
use crate::store::Row;

/// How long a verb that has come to its end waits for the rest of its last step.
const CATCH_UP: Duration = Duration::from_secs(5);

/// What everybody may see of an instance while it changes.
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
}

/// The reply to an event: whether something was done, and the run that will answer to it (the next one, while this one ends).
pub type Reply = Result<(Answer, u64), Refused>;

/// What the last look at the access log showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastLook {
    pub(super) mark: Mark,
    pub(super) at: Timestamp,
    /// Wall clock less boot clock at that time, in ms: when it has changed, the wall clock was set.
    pub(super) offset: Option<i64>,
}

/// Wall clock less boot clock, from the same moment by both.
pub(super) fn offset(wall: WallTime, boot: Timestamp) -> i64 {
    wall.0.saturating_sub(i64::try_from(boot.0).unwrap_or(i64::MAX))
}

/// What never changes of an instance; for where it listens and how it is run see [`Handle::launched`].
#[derive(Debug)]
pub(super) struct Who {
    pub(super) id: InstanceId,
    pub(super) name: InstanceName,
    pub(super) hosts: Vec<HostName>,
}

/// One instance's machine and the way to its task.
pub struct Handle {
    pub(super) instance: Who,
    launched: Mutex<Arc<Instance>>,
    pub(super) waiting: Places,
    pub(super) last_look: Mutex<LastLook>,
    /// When the first of the requests came that wait for the next start.
    asked: Mutex<Option<Timestamp>>,
    stamps: Mutex<Stamps>,
    machine: Mutex<Machine>,
    /// Cancelled when the streams of this run must end; made by the first of them.
    streams: Mutex<Option<(u64, CancellationToken)>>,
    known: AtomicBool,
    /// It is known how it is run, see `launch::entered`.
    fit: AtomicBool,
    inbox: mpsc::UnboundedSender<Message>,
    seen: watch::Sender<Snapshot>,
}

impl Handle {
    /// The machine. Held for moments only, never across an await.
    pub(super) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account of the wake that is under way.
    pub(super) fn stamps(&self) -> MutexGuard<'_, Stamps> {
        self.stamps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request that came at this time needs it.
    pub(super) fn note_asked(&self, at: Timestamp) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked = Some(asked.map_or(at, |before| before.min(at)));
    }

    /// When the first request came that needs the start which begins now.
    pub(super) fn take_asked(&self) -> Option<Timestamp> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What is true now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.machine())
    }

    /// Follows the changes.
    pub(super) fn follow(&self) -> watch::Receiver<Snapshot> {
        self.seen.subscribe()
    }

    /// Everybody looks again, also those who have seen what was taken back.
    pub(super) fn publish_again(&self) {
        self.seen.send_replace(self.snapshot());
    }

    /// Lets everybody see what is true now. A wake that begins is nothing that anybody waits for: whoever asks for one is answered,
    /// and woken once more he would only get in its way.
    pub(super) fn publish(&self) {
        let now = self.snapshot();
        self.seen.send_if_modified(|before| {
            let begins = now.phase == Phase::Waking && !before.phase.is_live();
            let tells = *before != now && !begins;
            *before = now;
            tells
        });
    }

    /// Cancelled when the streams of this run must end.
    pub(super) fn streams_end(&self, run: u64) -> CancellationToken {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        match &*streams {
            Some((of, end)) if *of == run => end.clone(),
            _ => streams.insert((run, CancellationToken::new())).1.clone(),
        }
    }

    pub(super) fn end_streams(&self, run: u64) {
        self.streams_end(run).cancel();
    }

    /// Is it known how it is run?
    pub(super) fn is_fit(&self) -> bool {
        self.fit.load(Ordering::Acquire)
    }

    pub(super) fn set_fit(&self) {
        self.fit.store(true, Ordering::Release);
    }

    /// Is it known what runs? Before that, a phase read from the database is hearsay.
    pub(super) fn known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    pub(super) fn set_known(&self) {
        self.known.store(true, Ordering::Release);
        self.seen.send_replace(self.snapshot());
    }

    /// As it is run: its port may have been changed since its task began.
    pub(super) fn launched(&self) -> Arc<Instance> {
        self.launched.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It is run like this from now on. Only while nothing of it runs, and after the row says so.
    pub(super) fn relaunch(&self, instance: Instance) {
        *self.launched.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(instance);
    }

    /// The gate of the current run.
    pub(super) fn gate(&self, run: u64) -> Gate {
        let listen = self.launched().listen.clone();
        let process = if matches!(listen, Listen::Tcp(_)) { self.machine().process() } else { None };
        Gate { name: self.instance.name.clone(), listen, run, process }
    }

    /// Waits until it is known what runs; `false`: it is not known yet after this long.
    pub(super) async fn until_known(&self, within: Duration) -> bool {
        let mut changes = self.follow();
        tokio::time::timeout(within, changes.wait_for(|_| self.known())).await.is_ok()
    }

    /// Hands an event to the task without waiting.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.inbox.send(Message::fact(event));
    }

    /// The same for what was found out while it was as `seen`; it is dropped if that is not so any more.
    pub(super) fn tell_if(&self, seen: Snapshot, event: Event) {
        let _ = self.inbox.send(Message::found(event, seen));
    }

    /// Hands a request to the task and waits for the machine's answer.
    pub(super) async fn ask(&self, event: Event) -> Reply {
        let (reply, answer) = oneshot::channel();
        let gone = || Refused::Broken(ServiceError::failed(format!("the task of `{}` ended", self.instance.name), "try again"));
        self.inbox.send(Message::request(event, reply)).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Waits until all is done that belongs to the phase that can be seen, the line in the ledger last. A task takes one event
    /// after the other: it answers to this one, which is of no run and changes nothing, when nothing is left of those before it.
    /// One that is held up by a driver is not waited for for long: what the verb came to is known.
    pub(super) async fn caught_up(&self, world: &World) {
        let all = async {
            let _ = self.ask(Event::Timer { armed: u64::MAX, waits_for: String::new() }).await;
            world.written().await;
        };
        let _ = tokio::time::timeout(CATCH_UP, all).await;
    }
}

impl Snapshot {
    fn of(machine: &Machine) -> Self {
        Self { phase: machine.phase(), run: machine.run(), failed_run: machine.failed_run() }
    }
}

/// An instance that is about to get a task.
struct Entering {
    handle: Arc<Handle>,
    messages: mpsc::UnboundedReceiver<Message>,
}

impl Entering {
    /// By its row.
    fn of(world: &World, row: &Row) -> Result<Self, ServiceError> {
        let (instance, unfit) = launch::entered(world, row)?;
        if let Some(why) = &unfit {
            tracing::warn!(instance = %row.name, "it cannot be started: {why}");
        }
        let last_look = LastLook {
            mark: Mark { inode: row.mark.0, size: row.mark.1, modified: row.mark.2 },
            at: row.looked_at,
            // Of another boot it says nothing: the clock counts as set, and a line that came into the log as of the next look.
            offset: row.clock.filter(|_| row.boot == world.boot),
        };
        let mut stored = row.stored.clone();
        let known = !stored.phase.is_live();
        if row.boot != world.boot {
            (stored.since, stored.quiet_since, stored.retry_at) = (world.now(), world.now(), Timestamp(0));
            stored.process = None;
        }
        let machine = Machine::restore(stored);
        let (inbox, messages) = mpsc::unbounded_channel();
        let handle = Arc::new(Handle {
            waiting: Places::default(),
            last_look: Mutex::new(last_look),
            asked: Mutex::default(),
            stamps: Mutex::default(),
            seen: watch::Sender::new(Snapshot::of(&machine)),
            machine: Mutex::new(machine),
            streams: Mutex::default(),
            known: AtomicBool::new(known),
            fit: AtomicBool::new(unfit.is_none()),
            inbox,
            instance: Who { id: instance.id, name: instance.name.clone(), hosts: instance.hosts.clone() },
            launched: Mutex::new(Arc::new(instance)),
        });
        Ok(Self { handle, messages })
    }
}

#[derive(Default)]
struct Maps {
    /// In order, so that a pass does the same things in the same order every time.
    by_id: BTreeMap<InstanceId, Arc<Handle>>,
    by_host: HashMap<HostName, Arc<Handle>>,
    /// How many handles have left.
    departures: u64,
}

impl Maps {
    /// Removes this handle, and no other that has come to one of its hosts since.
    fn remove(&mut self, handle: &Arc<Handle>) {
        self.departures += 1;
        self.by_id.remove(&handle.instance.id);
        for host in &handle.instance.hosts {
            if self.by_host.get(host).is_some_and(|h| Arc::ptr_eq(h, handle)) {
                self.by_host.remove(host);
            }
        }
    }
}

/// All handles.
#[derive(Default)]
pub(super) struct Registry {
    maps: Mutex<Maps>,
    /// Told when an instance gets a task.
    entered: Notify,
}

impl Registry {
    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle of a host, if its instance has a task.
    pub(super) fn by_host(&self, host: &HostName) -> Option<Arc<Handle>> {
        self.maps().by_host.get(host).cloned()
    }

    /// All handles.
    pub(super) fn all(&self) -> Vec<Arc<Handle>> {
        self.maps().by_id.values().cloned().collect()
    }

    /// Resolves once an instance has a task, at once if one has.
    pub(super) async fn until_any(&self) {
        loop {
            let mut entered = pin!(self.entered.notified());
            // Before the look: one that enters in between is heard of.
            entered.as_mut().enable();
            if !self.maps().by_id.is_empty() {
                return;
            }
            entered.await;
        }
    }

    /// How many handles have left so far: asked before a row is read for [`Self::get_read`].
    pub(super) fn departures(&self) -> u64 {
        self.maps().departures
    }

    /// The handle of a row's instance; its task is started when it has none.
    pub(super) fn get(&self, world: &Arc<World>, row: &Row) -> Result<Arc<Handle>, ServiceError> {
        let departures = match self.by_id(row.id) {
            Ok(handle) => return Ok(handle),
            Err(departures) => departures,
        };
        self.get_read(world, Self::read_again(world, row)?, departures)
    }

    /// The same for a row that was read when so many handles had left: as long as there are no more it need not be read again.
    /// Database and files are read without the lock, which every request takes.
    pub(super) fn get_read(&self, world: &Arc<World>, mut row: Row, mut departures: u64) -> Result<Arc<Handle>, ServiceError> {
        loop {
            match self.by_id(row.id) {
                Ok(handle) => return Ok(handle),
                Err(now) if now != departures => departures = now,
                Err(_) => {
                    let entering = Entering::of(world, &row)?;
                    let maps = self.maps();
                    match maps.by_id.get(&row.id) {
                        Some(handle) => return Ok(handle.clone()),
                        None if maps.departures == departures => return Ok(self.enter(maps, world, entering)),
                        None => departures = maps.departures,
                    }
                }
            }
            row = Self::read_again(world, &row)?;
        }
    }

    /// The handle of this instance; if it has none, how many have left.
    fn by_id(&self, id: InstanceId) -> Result<Arc<Handle>, u64> {
        let maps = self.maps();
        maps.by_id.get(&id).cloned().ok_or(maps.departures)
    }

    /// A row that was read outside the lock may have been written since, by a task that has left.
    fn read_again(world: &World, row: &Row) -> Result<Row, ServiceError> {
        world.store.by_id(row.id).map_err(super::error::store)?.ok_or_else(|| super::error::no_instance(row.name.as_str()))
    }

    fn enter(&self, mut maps: MutexGuard<'_, Maps>, world: &Arc<World>, entering: Entering) -> Arc<Handle> {
        let Entering { handle, messages } = entering;
        for host in &handle.instance.hosts {
            maps.by_host.insert(host.clone(), handle.clone());
        }
        maps.by_id.insert(handle.instance.id, handle.clone());
        drop(maps);
        self.entered.notify_waiters();
        let outbox = handle.inbox.downgrade();
        world.settle_in(Actor::new(world.clone(), handle.clone(), outbox, messages).run());
        handle
    }

    /// Removes the handle if nobody but the registry and its task (which asks) holds it, and nothing is left to read.
    pub(super) fn leave(&self, handle: &Arc<Handle>, inbox_is_empty: impl Fn() -> bool) -> bool {
        let mut maps = self.maps();
        let own = 2 + handle.instance.hosts.len();
        if Arc::strong_count(handle) > own || !inbox_is_empty() {
            return false;
        }
        maps.remove(handle);
        true
    }

    /// Removes the handle of an instance that is no more; its task leaves by itself.
    pub(super) fn forget(&self, id: InstanceId) {
        let mut maps = self.maps();
        if let Some(handle) = maps.by_id.get(&id).cloned() {
            maps.remove(&handle);
        }
    }
}
