//! Connections kept for the next request to the same run: parked, taken, and closed with the gate
//! or when they have been idle for too long.
//!
//! It makes no connection and sends nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::counts::Counts;
use super::link::{Link, Park};
use crate::domain::gate::Gate;
use crate::domain::name::InstanceName;
use crate::host::io_threads;

/// An idle connection is closed after this long: well before the 2 s after which common servers
/// close theirs.
const IDLE: Duration = Duration::from_secs(1);

/// How often idle connections are checked.
const REAP_EVERY: Duration = Duration::from_millis(250);

/// Most parked connections of one run.
const PARKED_MAX: usize = 512;

type Pools = RwLock<HashMap<InstanceName, Arc<Pool>>>;

/// Boxed, because a connection is large and is moved with every request.
type Links = Vec<Box<Link>>;

/// Parked connections of one run of one instance.
pub(super) struct Pool {
    name: InstanceName,
    run: u64,
    set: Weak<PoolSet>,
    /// Newest last, so that surplus ones stay idle and are closed. `None` once the gate is closed.
    parked: Mutex<Option<Links>>,
    /// Parked connections whose socket is not closed yet.
    count: AtomicU32,
}

/// The pools of all instances.
pub(super) struct PoolSet {
    /// By thread: a connection is reused by the thread that made it, because that thread's reactor
    /// watches it.
    by_thread: Box<[Pools]>,
    /// Requests on new connections without a response yet, see [`super::SLOW`].
    pub(super) slow: Arc<Counts>,
    reaping: AtomicBool,
}

impl Default for PoolSet {
    fn default() -> Self {
        Self {
            by_thread: (0..=io_threads::MAX).map(|_| RwLock::default()).collect(),
            slow: Arc::default(),
            reaping: AtomicBool::new(false),
        }
    }
}

impl PoolSet {
    /// Returns the pool of this run on this thread, and makes it if missing.
    pub(super) fn of(this: &Arc<Self>, gate: &Gate) -> Arc<Pool> {
        let mine = &this.by_thread[io_threads::current()];
        let pools = mine.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&gate.name).filter(|pool| pool.run == gate.run) {
            return pool.clone();
        }
        drop(pools);
        let mut pools = mine.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Pool::new(gate, Arc::downgrade(this)));
        let known = pools.entry(gate.name.clone()).or_insert_with(new);
        let old = (known.run < gate.run).then(|| std::mem::replace(known, new()));
        // A late request to an older run uses its own connections; they are never parked beside the
        // new ones.
        let pool = if known.run == gate.run {
            known.clone()
        } else {
            Arc::new(Pool::closed(gate))
        };
        drop(pools);
        if let Some(old) = old {
            old.close();
        }
        pool
    }

    /// Closes the pool of that run or of an earlier one.
    pub(super) fn close(&self, gate: &Gate) {
        for pools in &self.by_thread {
            let pool = {
                let mut pools = pools.write().unwrap_or_else(PoisonError::into_inner);
                match pools.get(&gate.name) {
                    Some(pool) if pool.run <= gate.run => pools.remove(&gate.name),
                    _ => None,
                }
            };
            if let Some(pool) = pool {
                pool.close();
            }
        }
    }

    /// Closes all pools.
    pub(super) fn close_all(&self) {
        for pools in &self.by_thread {
            let pools = std::mem::take(&mut *pools.write().unwrap_or_else(PoisonError::into_inner));
            pools.into_values().for_each(|pool| pool.close());
        }
    }

    /// Closes the parked connections of that run; its pool stays.
    pub(super) fn close_parked(&self, gate: &Gate) {
        for pools in &self.by_thread {
            let pool = pools
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&gate.name)
                .filter(|pool| pool.run == gate.run)
                .cloned();
            if let Some(pool) = pool {
                pool.drop_where(|_| true);
            }
        }
    }

    /// How many connections of that run are open and idle. First drops those that the instance has
    /// closed.
    pub(super) fn parked(&self, gate: &Gate) -> u32 {
        let mut count = 0;
        for pools in &self.by_thread {
            let pools = pools.read().unwrap_or_else(PoisonError::into_inner);
            let Some(pool) = pools
                .get(&gate.name)
                .filter(|pool| pool.run == gate.run)
                .cloned()
            else {
                continue;
            };
            drop(pools);
            pool.drop_where(Link::is_dead);
            count += pool.count.load(Ordering::Acquire);
        }
        count
    }
}

impl Pool {
    fn new(gate: &Gate, set: Weak<PoolSet>) -> Self {
        Self {
            name: gate.name.clone(),
            run: gate.run,
            set,
            parked: Mutex::new(Some(Vec::new())),
            count: AtomicU32::new(0),
        }
    }

    fn closed(gate: &Gate) -> Self {
        Self {
            name: gate.name.clone(),
            run: gate.run,
            set: Weak::new(),
            parked: Mutex::new(None),
            count: AtomicU32::new(0),
        }
    }

    fn parked(&self) -> MutexGuard<'_, Option<Links>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the newest usable connection. `ask`: ask the kernel whether the peer has closed it,
    /// instead of relying on the last event.
    pub(super) fn take(&self, ask: bool) -> Option<Box<Link>> {
        loop {
            let mut link = self.parked().as_mut()?.pop()?;
            if !(ask && link.is_dead()) {
                self.count.fetch_sub(1, Ordering::AcqRel);
                return Some(link);
            }
            drop(link);
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn close(&self) {
        let links = self.parked().take();
        self.end(links.unwrap_or_default());
    }

    fn drop_where(&self, mut dead: impl FnMut(&mut Link) -> bool) {
        let links = match self.parked().as_mut() {
            Some(links) => links.extract_if(.., |link| dead(link)).collect(),
            None => Links::new(),
        };
        self.end(links);
    }

    /// Closes the sockets outside the lock, and then stops counting them.
    fn end(&self, links: Links) {
        let closed = u32::try_from(links.len()).unwrap_or(u32::MAX);
        drop(links);
        self.count.fetch_sub(closed, Ordering::AcqRel);
    }
}

impl Park for Pool {
    /// Keeps a connection whose response was read to its end, unless the gate was closed meanwhile.
    /// An application that serves one connection after the other must not wait for a parked one:
    /// while requests on new connections are waiting, none is kept.
    fn park(&self, mut link: Box<Link>) {
        let Some(set) = self.set.upgrade() else {
            return;
        };
        if set.slow.of(&self.name, self.run) > 0 {
            return;
        }
        link.parked_at = Instant::now();
        let mut parked = self.parked();
        match parked.as_mut() {
            Some(links) if links.len() < PARKED_MAX => {
                self.count.fetch_add(1, Ordering::AcqRel);
                links.push(link);
            }
            _ => {
                drop(parked);
                drop(link);
                return;
            }
        }
        drop(parked);
        start_reaper(&set);
    }
}

/// Starts one task for all pools, while anything is parked: it closes what was parked for longer
/// than [`IDLE`].
fn start_reaper(set: &Arc<PoolSet>) {
    if set.reaping.swap(true, Ordering::AcqRel) {
        return;
    }
    let set = Arc::downgrade(set);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(REAP_EVERY).await;
            let Some(set) = set.upgrade() else { return };
            if !reap(&set) {
                set.reaping.store(false, Ordering::Release);
                // If something was parked between the check and the line above, this task handles
                // it.
                if !anything_parked(&set) || set.reaping.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        }
    });
}

fn all_pools(set: &PoolSet) -> Vec<Arc<Pool>> {
    let of = |pools: &Pools| {
        pools
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect::<Vec<_>>()
    };
    set.by_thread.iter().flat_map(of).collect()
}

fn anything_parked(set: &PoolSet) -> bool {
    all_pools(set)
        .iter()
        .any(|pool| pool.count.load(Ordering::Acquire) > 0)
}

/// Closes old connections; returns whether any are left.
fn reap(set: &PoolSet) -> bool {
    let now = Instant::now();
    for pool in all_pools(set) {
        pool.drop_where(|link| now.duration_since(link.parked_at) >= IDLE);
    }
    anything_parked(set)
}
