//! The simulated host: processes, gates, requests in flight, and what lasts when acc dies.
//!
//! Nothing here runs by itself. Everything that will happen (a process listens, ends, a request is
//! answered) has its time, and whoever looks first settles what has come due. So the host goes on
//! while acc is dead.

mod state;

use std::collections::BTreeMap;
use std::fmt::Arguments;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::rng::Rng;
use crate::domain::instance::Exit;
use crate::driver::activity::LogMark;
use crate::service::request::Request;

/// The names that instances may have; everything counts them by number.
pub(super) const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Idle timeout, in ms.
pub(super) const IDLE: u64 = 60_000;
/// Drain timeout, in ms.
pub(super) const DRAIN: u64 = 10_000;
/// Wake timeout, in ms.
pub(super) const WAKE: u64 = 30_000;
/// A failed start may hold the next one back for this long, in ms.
pub(super) const BACK_OFF: u64 = 300_000;

/// A seed that says more than this has lost its way.
const TRACE_MAX: usize = 50_000;

/// What a seed may do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Profile {
    pub(super) nginx: bool,
    pub(super) faults: bool,
    pub(super) crashes: bool,
    pub(super) clock: bool,
}

/// Why something may go otherwise than well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Something was broken on purpose: a start, a process, a driver.
    Fault,
    /// A driver, the disk or acc itself could not work.
    Outage,
    /// The operator does not wait for what is in flight.
    Cut,
    /// The operator stops it.
    Stop,
    /// It may not exist, not yet or no more.
    Gone,
    /// It may be disabled.
    Down,
}

#[derive(Debug)]
struct Excuse {
    why: Why,
    who: Option<usize>,
    from: u64,
    until: u64,
}

/// How a process takes its stop signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Accepts nothing more, finishes what it has.
    Graceful,
    /// Ends at once.
    Abrupt,
    /// Goes on.
    Deaf,
}

#[derive(Debug)]
pub(super) struct Proc {
    pub(super) pid: i32,
    pub(super) who: usize,
    pub(super) born: u64,
    pub(super) listens: Option<u64>,
    pub(super) dies: Option<(u64, Exit)>,
    pub(super) manner: Manner,
    pub(super) stopping: bool,
    /// It was let be reached: acc knows of it.
    pub(super) served: bool,
    /// Its end may cut requests: it was killed by chaos, or stopped with a good reason.
    pub(super) may_cut: bool,
}

impl Proc {
    pub(super) fn accepts(&self, now: u64) -> bool {
        self.born <= now
            && self.listens.is_some_and(|at| at <= now)
            && !(self.stopping && self.manner != Manner::Deaf)
    }
}

/// A request inside an application.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) pid: i32,
    pub(super) who: usize,
    pub(super) ends: u64,
    pub(super) via_acc: bool,
}

/// A request that has no answer yet.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) who: usize,
    pub(super) since: u64,
    pub(super) delivered: u32,
}

/// A verb that has not ended.
#[derive(Debug, Clone)]
pub(super) struct Verb {
    pub(super) who: usize,
    pub(super) request: Request,
    pub(super) since: u64,
}

/// What cannot work just now.
#[derive(Debug, Default)]
pub(super) struct Outages {
    pub(super) supervisor: bool,
    pub(super) edge: bool,
    pub(super) activity: bool,
    pub(super) disk: bool,
}

/// Counts for the report.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stats {
    pub(super) steps: u64,
    pub(super) requests: u64,
    pub(super) answered: u64,
    pub(super) refused: u64,
    pub(super) broken: u64,
    pub(super) starts: u64,
    pub(super) stops: u64,
    pub(super) crashes: u64,
    pub(super) verbs: u64,
}

pub(super) struct State {
    pub(super) now: u64,
    base: u64,
    origin: Option<Instant>,
    rngs: [Rng; NAMES.len() + 1],
    pub(super) procs: BTreeMap<i32, Proc>,
    pub(super) ended: BTreeMap<i32, Exit>,
    pub(super) gates: BTreeMap<usize, u64>,
    pub(super) transit: [u32; NAMES.len()],
    pub(super) flights: BTreeMap<u64, Flight>,
    pub(super) fates: BTreeMap<u64, bool>,
    pub(super) logs: [LogMark; NAMES.len()],
    pub(super) wall_offset: i64,
    pub(super) out: Outages,
    pub(super) asked: BTreeMap<u64, Asked>,
    pub(super) last_use: [u64; NAMES.len()],
    /// Uses since the last check of a monitor run: who comes between that check and the closing of
    /// the gate is served, and does not put the sleep off.
    recent: [u64; NAMES.len()],
    pub(super) wrong_since: [Option<u64>; NAMES.len()],
    pub(super) verbs: BTreeMap<u64, Verb>,
    pub(super) crash_in: Option<u64>,
    /// Things go wrong by themselves.
    pub(super) faults: bool,
    pub(super) stats: Stats,
    excuses: Vec<Excuse>,
    crashed: bool,
    violation: Option<String>,
    trace: Vec<String>,
    next: i32,
}

pub(super) struct Host {
    pub(super) profile: Profile,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    crash: watch::Sender<bool>,
}

impl Host {
    pub(super) fn new(profile: Profile, mut rng: Rng) -> Arc<Self> {
        let state = State {
            now: 0,
            base: 1_000_000,
            origin: None,
            rngs: std::array::from_fn(|_| rng.fork()),
            procs: BTreeMap::new(),
            ended: BTreeMap::new(),
            gates: BTreeMap::new(),
            transit: [0; NAMES.len()],
            flights: BTreeMap::new(),
            fates: BTreeMap::new(),
            logs: [LogMark::default(); NAMES.len()],
            wall_offset: 0,
            out: Outages::default(),
            asked: BTreeMap::new(),
            last_use: [0; NAMES.len()],
            recent: [0; NAMES.len()],
            wrong_since: [None; NAMES.len()],
            verbs: BTreeMap::new(),
            crash_in: None,
            faults: profile.faults,
            stats: Stats::default(),
            excuses: Vec::new(),
            crashed: false,
            violation: None,
            trace: Vec::new(),
            next: 0,
        };
        Arc::new(Self {
            profile,
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            crash: watch::Sender::new(false),
        })
    }

    /// The state, with everything settled that has come due.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        s.now = s.base
            + s.origin
                .map_or(0, |o| u64::try_from(o.elapsed().as_millis()).unwrap());
        s.settle();
        s
    }

    pub(super) fn now(&self) -> u64 {
        self.state().now
    }

    /// Tells everybody who waits to look again.
    pub(super) fn poke(&self) {
        self.changed.send_replace(());
    }

    /// acc lives from now on, by the clock of this runtime.
    pub(super) fn begin_life(&self) {
        let mut s = self.state();
        s.base = s.now;
        s.origin = Some(Instant::now());
        s.crashed = false;
        s.crash_in = None;
        drop(s);
        self.crash.send_replace(false);
    }

    /// acc is dead; time stands still until it is moved or acc lives again. What went through acc
    /// is cut.
    pub(super) fn end_life(&self) {
        let mut s = self.state();
        s.base = s.now;
        s.origin = None;
        s.crashed = true;
        s.stats.crashes += 1;
        let now = s.now;
        s.flights.retain(|_, f| !f.via_acc);
        let direct: Vec<u64> = s.flights.keys().copied().collect();
        s.asked.retain(|id, _| direct.contains(id));
        for excuse in s.excuses.iter_mut().filter(|e| e.until == u64::MAX) {
            // A stop that does not wait is written down, and gone on with by the next acc.
            match excuse.why {
                Why::Cut => excuse.until = now + 200_000,
                Why::Stop => excuse.until = now,
                Why::Fault | Why::Outage | Why::Gone | Why::Down => {}
            }
        }
        s.verbs.clear();
        s.excuse(Why::Outage, None, now, now + 5_000);
        if !self.profile.nginx {
            s.gates.clear();
        }
    }

    /// Time goes by while acc is dead.
    pub(super) fn pass_time(&self, ms: u64) {
        self.state().base += ms;
        drop(self.state());
    }

    /// acc dies now: nothing it does from here on has any effect.
    pub(super) fn crash(&self) {
        self.state().crashed = true;
        self.crash.send_replace(true);
    }

    pub(super) async fn crashed(&self) {
        let _ = self.crash.subscribe().wait_for(|c| *c).await;
    }

    /// A point at which acc may die; `true`: it has.
    pub(super) fn point(&self) -> bool {
        let mut s = self.state();
        if s.crashed {
            return true;
        }
        if s.trace.len() > TRACE_MAX {
            s.violate("it goes on for ever".into());
            s.crash_in = Some(0);
        }
        match s.crash_in {
            Some(0) => {
                s.say(format_args!("acc dies here"));
                drop(s);
                self.crash();
                true
            }
            Some(n) => {
                s.crash_in = Some(n - 1);
                false
            }
            None => false,
        }
    }

    /// Every effect on the world goes by here, before it is done: it may take long, and acc may
    /// die.
    pub(super) async fn call(&self, action: &'static str, on: &str) {
        if self.point() {
            std::future::pending::<()>().await;
        }
        let delay = {
            let mut s = self.state();
            s.say(format_args!("  {action} {on}"));
            let faults = s.faults;
            let rng = s.rng(NAMES.iter().position(|n| *n == on));
            match rng.below(20) {
                0..12 => 0,
                12..18 => rng.below(10),
                18 => rng.below(100),
                _ if faults => rng.below(2000),
                _ => rng.below(200),
            }
        };
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        } else {
            tokio::task::yield_now().await;
        }
        self.done().await;
    }

    /// After an effect: acc may die before it hears of it.
    pub(super) async fn done(&self) {
        if self.point() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the state says so.
    pub(super) async fn until<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        loop {
            let next = {
                let mut s = self.state();
                if let Some(found) = look(&mut s) {
                    return found;
                }
                s.next_event().map(|at| Duration::from_millis(at - s.now))
            };
            match next {
                Some(pause) => drop(tokio::time::timeout(pause, changes.changed()).await),
                None => drop(changes.changed().await),
            }
        }
    }

    pub(super) fn violate(&self, what: String) {
        self.state().violate(what);
    }

    pub(super) fn violation(&self) -> Option<String> {
        self.state().violation.clone()
    }

    pub(super) fn trace(&self) -> Vec<String> {
        self.state().trace.clone()
    }
}
