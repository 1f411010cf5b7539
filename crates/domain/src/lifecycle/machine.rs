//! One instance's state as a value, the part of it that is saved in the database, and the result of
//! a step.
//!
//! It changes nothing: the files beside it make the next machine, and nothing outside this folder
//! can.

use std::time::Duration;

use super::effect::Effect;
use super::limits::Limits;
use super::phase::{Cause, Drain, Failure, Phase};
use crate::idle;
use crate::instance::{DesiredState, RunId};
use crate::time::Timestamp;

/// After this long awake, a death is not part of a crash loop.
pub const STABLE: Duration = Duration::from_secs(10);

/// First and longest pause after a failed start; it doubles in between.
pub const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// How many checks an idle stop makes before it is cancelled: a pooled connection may be closing
/// just now.
pub const IDLE_CHECKS: u32 = 5;

/// How long after a kill it is killed again.
pub(super) const KILL_AGAIN: Duration = Duration::from_secs(5);

/// One instance's state. Everything can be read; only [`super::step`] makes a new one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Machine {
    pub(super) phase: Phase,
    pub(super) desired: DesiredState,
    pub(super) retiring: bool,
    pub(super) run: u64,
    pub(super) run_id: Option<RunId>,
    pub(super) tickets: u32,
    pub(super) demand: Option<Cause>,
    pub(super) cause: Cause,
    pub(super) since: Timestamp,
    pub(super) quiet_since: Timestamp,
    pub(super) drain: Drain,
    /// When it began to drain for this reason.
    pub(super) drained_since: Timestamp,
    pub(super) streams_ended: bool,
    pub(super) checks: u32,
    pub(super) failures: u32,
    pub(super) failed_run: Option<u64>,
    pub(super) failure: Option<Failure>,
    pub(super) retry_at: Timestamp,
    pub(super) armed: u64,
}

/// The part of a machine that is saved in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Phase.
    pub phase: Phase,
    /// The desired state.
    pub desired: DesiredState,
    /// Number of the current or last run.
    pub run: u64,
    /// What its runner calls this run.
    pub run_id: Option<RunId>,
    /// When the phase began.
    pub since: Timestamp,
    /// When it was last in use.
    pub quiet_since: Timestamp,
    /// Failures in a row.
    pub failures: u32,
    /// The last failure.
    pub failure: Option<Failure>,
    /// No request starts it before this time.
    pub retry_at: Timestamp,
}

/// Whether the step did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is being done.
    Done,
    /// Nothing had to be done.
    Already,
}

/// The result of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The machine from now on.
    pub next: Machine,
    /// To be performed in this order.
    pub effects: Vec<Effect>,
    /// Whether something was done.
    pub answer: Answer,
}

impl Machine {
    /// A machine for an instance that is being created.
    #[must_use]
    pub fn creating(desired: DesiredState, now: Timestamp) -> Self {
        Self::restore(Stored {
            phase: Phase::Creating,
            desired,
            run: 0,
            run_id: None,
            since: now,
            quiet_since: now,
            failures: 0,
            failure: None,
            retry_at: Timestamp(0),
        })
    }

    /// The machine as it was saved; one in a live phase must then get [`super::Event::Found`].
    #[must_use]
    pub fn restore(stored: Stored) -> Self {
        Self {
            phase: stored.phase,
            desired: stored.desired,
            retiring: false,
            run: stored.run,
            run_id: stored.run_id,
            tickets: 0,
            demand: None,
            cause: Cause::Unknown,
            since: stored.since,
            quiet_since: stored.quiet_since,
            drain: Drain::Operator,
            drained_since: Timestamp(0),
            streams_ended: false,
            checks: 0,
            failures: stored.failures,
            failed_run: None,
            failure: stored.failure,
            retry_at: stored.retry_at,
            armed: 0,
        }
    }

    /// The same without a request that waits for its next start.
    #[must_use]
    pub fn without_demand(&self) -> Self {
        Self {
            demand: None,
            ..self.clone()
        }
    }

    /// The part to save.
    #[must_use]
    pub fn stored(&self) -> Stored {
        Stored {
            phase: self.phase,
            desired: self.desired,
            run: self.run,
            run_id: self.run_id.clone(),
            since: self.since,
            quiet_since: self.quiet_since,
            failures: self.failures,
            failure: self.failure.clone(),
            retry_at: self.retry_at,
        }
    }

    /// Phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }
    /// The desired state.
    #[must_use]
    pub fn desired(&self) -> DesiredState {
        self.desired
    }
    /// Number of the current or last run; counts starts.
    #[must_use]
    pub fn run(&self) -> u64 {
        self.run
    }
    /// What the runner calls this run, if it is known to run.
    #[must_use]
    pub fn run_id(&self) -> Option<&RunId> {
        self.run_id.as_ref()
    }
    /// Requests that acc itself let through and that have not ended.
    #[must_use]
    pub fn tickets(&self) -> u32 {
        self.tickets
    }
    /// When the phase began.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.since
    }
    /// When it was last in use.
    #[must_use]
    pub fn quiet_since(&self) -> Timestamp {
        self.quiet_since
    }
    /// When it was last in use during this run. `None`: it never was, and has been quiet since its
    /// start. The start itself counts as use only if a request caused it, which is known at the
    /// start.
    #[must_use]
    pub fn used(&self) -> Option<Timestamp> {
        let serves = matches!(self.phase, Phase::Awake | Phase::Draining);
        (serves && self.quiet_since > self.since).then_some(self.quiet_since)
    }
    /// The last failure.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
    /// The run that failed last, as far as this process knows: requests that wait for that run get
    /// the failure.
    #[must_use]
    pub fn failed_run(&self) -> Option<u64> {
        self.failed_run
    }
    /// Until when requests do not start it.
    #[must_use]
    pub fn retry_at(&self) -> Timestamp {
        self.retry_at
    }
    /// The input of the idle rule.
    #[must_use]
    pub fn idle_sample(&self, in_flight: u32, limits: &Limits) -> idle::IdleSample {
        idle::IdleSample {
            desired: self.desired,
            in_flight: in_flight.max(self.tickets),
            quiet_since: self.quiet_since,
            awake_since: self.since,
            timeout: limits.idle,
            min_awake: limits.min_awake,
        }
    }
}
