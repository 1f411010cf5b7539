//! The instances that have a task: those awake, on their way, or asked for just now. A sleeper is
//! not here.
//!
//! A handle is found under the same lock under which it is removed, so no caller ever holds one
//! whose task has left. Requests to awake instances take no lock: they read the map of hosts, which
//! is replaced as a whole. What they find there may have left meanwhile; then it gives no ticket.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};

use crate::domain::lifecycle::{Machine, Phase};
use crate::domain::name::{HostName, InstanceId, InstanceName};
use crate::domain::time::Timestamp;
use crate::driver::activity::LogMark;
use crate::service::context::Context;
use crate::service::error::ServiceError;
use crate::service::instance::handle::{Handle, LastCheck, Message};
use crate::service::instance::step::Actor;
use crate::service::launch_spec;
use crate::store::Row;

/// An instance that is about to get a task.
struct Entering {
    handle: Arc<Handle>,
    messages: mpsc::UnboundedReceiver<Message>,
}

impl Entering {
    /// By its row.
    fn of(ctx: &Context, row: &Row) -> Result<Self, ServiceError> {
        let (instance, unfit) = launch_spec::entered(ctx, row)?;
        if let Some(why) = &unfit {
            tracing::warn!(instance = %row.name, "it cannot be started: {why}");
        }
        let last_check = LastCheck {
            mark: LogMark {
                inode: row.log_mark.0,
                size: row.log_mark.1,
                modified: row.log_mark.2,
            },
            at: row.checked_at,
            // Of another boot it says nothing: the clock counts as set, and a line that came into
            // the log as of the next check.
            offset: row.clock.filter(|_| row.boot == ctx.boot),
        };
        let mut stored = row.stored.clone();
        if row.boot != ctx.boot {
            (stored.since, stored.quiet_since, stored.retry_at) =
                (ctx.now(), ctx.now(), Timestamp(0));
            stored.run_id = None;
        }
        let (handle, messages) = Handle::new(
            Machine::restore(stored),
            instance,
            last_check,
            unfit.is_none(),
        );
        Ok(Self { handle, messages })
    }
}

#[derive(Default)]
struct Maps {
    /// In order, so that a monitor run does the same things in the same order every time.
    by_id: BTreeMap<InstanceId, Arc<Handle>>,
    /// How many handles have left.
    departures: u64,
}

type Hosts = HashMap<HostName, Arc<Handle>>;

/// What the registry and the tasks that leave it share.
#[derive(Default)]
struct Shared {
    maps: Mutex<Maps>,
    /// Replaced under the lock of `maps`, read without it.
    hosts: ArcSwap<Hosts>,
}

impl Shared {
    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `_locked`: the map is replaced only under this lock.
    fn replace_hosts(&self, _locked: &Maps, change: impl FnOnce(&mut Hosts)) {
        let mut hosts = Hosts::clone(&self.hosts.load());
        change(&mut hosts);
        self.hosts.store(Arc::new(hosts));
    }

    /// Removes this handle, and no other that has come to one of its hosts since.
    fn remove(&self, maps: &mut Maps, handle: &Arc<Handle>) {
        maps.departures += 1;
        maps.by_id.remove(&handle.instance.id);
        self.replace_hosts(maps, |hosts| {
            for host in &handle.instance.hosts {
                if hosts.get(host).is_some_and(|h| Arc::ptr_eq(h, handle)) {
                    hosts.remove(host);
                }
            }
        });
    }

    /// Removes the handle if only the registry and its task (which asks) hold it, and nothing is
    /// left to read. A request that reads an old map of hosts at this moment counts as well: then
    /// it is asked again later.
    fn leave(&self, handle: &Arc<Handle>, inbox_is_empty: &dyn Fn() -> bool) -> bool {
        let mut maps = self.maps();
        let own = 2 + handle.instance.hosts.len();
        if Arc::strong_count(handle) > own || !inbox_is_empty() {
            return false;
        }
        self.remove(&mut maps, handle);
        true
    }
}

/// All handles.
#[derive(Default)]
pub(in crate::service) struct Registry {
    shared: Arc<Shared>,
    /// Notified when an instance gets a task.
    entered: Notify,
}

impl Registry {
    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.shared.maps()
    }

    /// The handle of a host, if its instance has a task.
    pub(in crate::service) fn by_host(&self, host: &HostName) -> Option<Arc<Handle>> {
        let _no_task_leaves = self.maps();
        self.shared.hosts.load().get(host).cloned()
    }

    /// Something of the instance of a host, if it has a task, without a lock. The task may leave at
    /// any moment: use it for tickets, which are given by a task that is there.
    pub(in crate::service) fn peek_host<T>(
        &self,
        host: &HostName,
        what: impl FnOnce(&Arc<Handle>) -> Option<T>,
    ) -> Option<T> {
        what(self.shared.hosts.load().get(host)?)
    }

    /// All handles.
    pub(in crate::service) fn all(&self) -> Vec<Arc<Handle>> {
        self.maps().by_id.values().cloned().collect()
    }

    /// The handles of the instances that are live. A wake that was asked for before
    /// [`Context::set_halting`] is seen by a later call: both take the lock of the tickets.
    pub(in crate::service) fn live(&self) -> Vec<Arc<Handle>> {
        let mut all = self.all();
        all.retain(|handle| handle.machine().phase().is_live());
        all
    }

    /// Is there a task for this instance, and does it say that it is live?
    pub(in crate::service) fn is_live(&self, id: InstanceId) -> bool {
        self.by_id(id)
            .is_ok_and(|handle| handle.snapshot().phase.is_live())
    }

    /// The names of the instances that are live.
    pub(in crate::service) fn live_names(&self) -> Vec<InstanceName> {
        let live = self.live();
        live.iter().map(|h| h.instance.name.clone()).collect()
    }

    /// The phase of a row's instance: as its task has it, else as the row says. A row is behind
    /// while a write is queued.
    pub(in crate::service) fn phase(&self, row: &Row) -> Phase {
        let handle = self.by_id(row.id);
        handle.map_or(row.stored.phase, |handle| handle.snapshot().phase)
    }

    /// Resolves once an instance has a task, at once if one has.
    pub(in crate::service) async fn until_any(&self) {
        loop {
            let mut entered = pin!(self.entered.notified());
            // Before the check: one that enters in between is noticed.
            entered.as_mut().enable();
            if !self.maps().by_id.is_empty() {
                return;
            }
            entered.await;
        }
    }

    /// How many handles have left so far: asked before a row is read for [`Self::get_read`].
    pub(in crate::service) fn departures(&self) -> u64 {
        self.maps().departures
    }

    /// The handle of a row's instance; its task is started when it has none.
    pub(in crate::service) async fn get(
        &self,
        ctx: &Arc<Context>,
        row: &Row,
    ) -> Result<Arc<Handle>, ServiceError> {
        let departures = match self.by_id(row.id) {
            Ok(handle) => return Ok(handle),
            Err(departures) => departures,
        };
        let row = Self::read_again(ctx, row).await?;
        self.get_read(ctx, row, departures).await
    }

    /// The same for a row that was read when so many handles had left: as long as there are no more
    /// it need not be read again. Database and files are read without the lock.
    pub(in crate::service) async fn get_read(
        &self,
        ctx: &Arc<Context>,
        mut row: Row,
        mut departures: u64,
    ) -> Result<Arc<Handle>, ServiceError> {
        loop {
            match self.by_id(row.id) {
                Ok(handle) => return Ok(handle),
                Err(now) if now != departures => departures = now,
                Err(_) => {
                    let entering = Entering::of(ctx, &row)?;
                    let maps = self.maps();
                    match maps.by_id.get(&row.id) {
                        Some(handle) => return Ok(handle.clone()),
                        None if maps.departures == departures => {
                            return Ok(self.enter(maps, ctx, entering));
                        }
                        None => departures = maps.departures,
                    }
                }
            }
            row = Self::read_again(ctx, &row).await?;
        }
    }

    /// The handle of this instance; if it has none, how many have left.
    fn by_id(&self, id: InstanceId) -> Result<Arc<Handle>, u64> {
        let maps = self.maps();
        maps.by_id.get(&id).cloned().ok_or(maps.departures)
    }

    /// A row that was read outside the lock may have been written since, by a task that has left.
    async fn read_again(ctx: &Context, row: &Row) -> Result<Row, ServiceError> {
        let id = row.id;
        ctx.read(move |store| store.by_id(id))
            .await
            .map_err(crate::service::error::store)?
            .ok_or_else(|| crate::service::error::no_instance(row.name.as_str()))
    }

    fn enter(
        &self,
        mut maps: MutexGuard<'_, Maps>,
        ctx: &Arc<Context>,
        entering: Entering,
    ) -> Arc<Handle> {
        let Entering { handle, messages } = entering;
        self.shared.replace_hosts(&maps, |hosts| {
            for host in &handle.instance.hosts {
                hosts.insert(host.clone(), handle.clone());
            }
        });
        maps.by_id.insert(handle.instance.id, handle.clone());
        drop(maps);
        self.entered.notify_waiters();
        let shared = Arc::clone(&self.shared);
        let actor = Actor::new(ctx.clone(), handle.clone(), messages);
        ctx.settle_in(
            actor.run(move |handle, inbox_is_empty| shared.leave(handle, inbox_is_empty)),
        );
        handle
    }

    /// Removes the handle of an instance that is no more; its task leaves by itself.
    pub(in crate::service) fn forget(&self, id: InstanceId) {
        let mut maps = self.maps();
        if let Some(handle) = maps.by_id.get(&id).cloned() {
            self.shared.remove(&mut maps, &handle);
        }
    }
}
