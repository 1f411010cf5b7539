//! The state machine of one instance: [`step`] takes the machine, an event, the time and the limits, and returns the next
//! machine and the effects to perform, in order.
//!
//! ```text
//! creating -> asleep -> waking -> awake -> draining -> stopping -> asleep
//!                          \-> failed <-/                 \-> failed (when the stop was for a start that failed)
//! asleep, failed -> destroyed
//! ```
//!
//! It never reads a clock, does I/O or takes a lock. The phase is private to this module, so nothing else can change it.
//! Facts (an exit, an answer, a timer) carry the number of the run they belong to; those of an earlier run change nothing.
//! Effects are performed in the order given; [`Effect::Persist`] stands before whatever acts.

mod limits;
mod moves;
mod rows;
#[cfg(test)]
mod tests;
mod words;

use std::time::Duration;

pub use limits::Limits;

use super::instance::{Exit, Process, Wanted};
use super::time::Timestamp;

/// What an instance is doing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Files and rows are being made.
    Creating,
    /// Nothing runs.
    Asleep,
    /// Started, has not answered yet.
    Waking,
    /// Answers; the gate is open.
    Awake,
    /// The gate is closed, what is in flight goes on.
    Draining,
    /// Told to stop.
    Stopping,
    /// Did not start or died; may be tried again later.
    Failed,
    /// Out of service for good, files kept until purge.
    Destroyed,
}

/// Who or what asks for a wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A request to its host.
    Request,
    /// The operator.
    Operator,
    /// acc itself, because it is wanted up.
    Pinned,
    /// Whoever asked has asked another acc, which ended before the instance answered; it did not write down who that was.
    Unknown,
}

/// Why it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Drain {
    /// It was idle: anything in flight calls the stop off.
    Idle,
    /// The operator asked: wait for what is in flight, up to the drain timeout.
    Operator,
    /// It cannot be reached where it should listen: there is nothing to wait for.
    Displaced,
}

/// Why an instance is not running although it was meant to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Failure {
    /// It could not be started at all.
    NotStarted(String),
    /// It ended before its first answer.
    ExitedAtStart(Exit),
    /// It did not answer in time; what was waited for.
    NotReady {
        /// For how long.
        within: Duration,
        /// For what, for instance "a connection on `/run/acc/sock/a/app.sock`".
        what: String,
    },
    /// It died while it served.
    Died(Exit),
}

/// What can happen to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its files and rows are complete.
    Created,
    /// Somebody needs it.
    Wake(Cause),
    /// The operator wants it asleep; `now`: without waiting for what is in flight.
    Sleep {
        /// Do not drain.
        now: bool,
    },
    /// The operator's wish changes.
    Want(Wanted),
    /// It is about to be destroyed, or no longer: meanwhile nobody wakes it.
    Retire(bool),
    /// Take it out of service for good.
    Destroy,
    /// Forget a failure.
    Reset,
    /// The supervisor started it.
    Spawned {
        /// Of this run.
        run: u64,
        /// The process.
        process: Process,
        /// It answers already: it was quicker than whoever started it.
        answers: bool,
    },
    /// It answered on its own socket.
    Ready {
        /// Of this run.
        run: u64,
    },
    /// It could not be started.
    StartFailed {
        /// Of this run.
        run: u64,
        /// Why.
        failure: Failure,
    },
    /// Its process ended.
    Exited {
        /// Of this run.
        run: u64,
        /// How.
        exit: Exit,
    },
    /// A request was let through by acc itself.
    Admitted,
    /// That request ended. `counts`: it was use.
    Released {
        /// By the rules.
        counts: bool,
    },
    /// Somebody looked from outside: connections open now and, when something was used since the last look, when.
    Looked {
        /// Of this run.
        run: u64,
        /// Requests and connections open.
        in_flight: u32,
        /// The newest use seen.
        used: Option<Timestamp>,
    },
    /// Answer to [`Effect::Count`], taken after the gate was closed.
    InFlight {
        /// Of this run.
        run: u64,
        /// Still open.
        count: u32,
    },
    /// Another program listens where it should, or nobody: it cannot be reached there.
    Displaced {
        /// Of this run.
        run: u64,
        /// Which program.
        why: String,
    },
    /// The gate could not be closed, or nobody could be asked what is in flight: it must not be stopped.
    DrainFailed {
        /// Of this run.
        run: u64,
    },
    /// The armed time came.
    Timer {
        /// The number given by [`Effect::Arm`].
        armed: u64,
        /// What a start still waits for, for the failure: "a connection on …".
        waits_for: String,
    },
    /// After a restart of acc: what the supervisor says runs. "Could not ask" is not an event.
    Found(Option<Process>),
}

/// What to do after a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Write the machine down. If that fails, what was asked for is not done.
    Persist,
    /// Start the process: answered by `Spawned` or `StartFailed`.
    Spawn,
    /// Tell of the end of the process: answered by `Exited`.
    Watch,
    /// Wait until it answers: answered by `Ready` or `StartFailed`.
    Probe,
    /// Let the edge reach it.
    OpenGate,
    /// Cut the edge off; connections already made go on.
    CloseGate,
    /// Count what is in flight: answered by `InFlight` or `DrainFailed`. The number tells how many looks came before.
    Count(u32),
    /// End WebSockets and event streams, which would go on for ever; other requests are still waited for.
    EndStreams,
    /// Ask the process group to end.
    Terminate,
    /// End the process group.
    Kill,
    /// Come back with `Timer` at this time; replaces an earlier one.
    Arm {
        /// When.
        at: Timestamp,
        /// Its number.
        armed: u64,
    },
    /// Write an event.
    Record(Note),
}

/// What becomes an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Note {
    /// It answers, after this long.
    Woke(Cause, Duration),
    /// It was put to sleep.
    Slept(Drain),
    /// Another program listens where it should, or nobody; says which.
    Displaced(String),
    /// It ended by itself with code 0.
    EndedItself,
    /// It failed.
    Failed(Failure),
    /// An idle stop was called off: this many were in flight.
    CalledOff(u32),
    /// It did not end in time and was killed.
    Killed,
    /// Made.
    Created,
    /// Taken out of service.
    Destroyed,
    /// `wanted` was changed.
    Wanted(Wanted),
}

/// Why a request to the machine is refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denied {
    /// `wanted` is down.
    #[error("it is disabled")]
    Disabled,
    /// It was destroyed.
    #[error("it is destroyed")]
    Destroyed,
    /// It is being made.
    #[error("it is still being created")]
    Creating,
    /// It failed a moment ago.
    #[error("it failed ({name}), the next try is in {} s", .retry_in.as_secs().max(1))]
    Failed {
        /// The failure's name.
        name: &'static str,
        /// Until the next try.
        retry_in: Duration,
    },
    /// Only an awake instance can do that.
    #[error("it is {}, not awake", .0.as_str())]
    NotAwake(Phase),
    /// Only a sleeping instance can do that.
    #[error("it is {}, not asleep", .0.as_str())]
    NotAsleep(Phase),
}

/// Awake for this long means that a later death is not part of a crash loop.
pub const STABLE: Duration = Duration::from_secs(10);
/// First and longest pause after a failed start; it doubles in between.
pub const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// How often an idle stop looks again before it is called off: a pooled connection may be closing just now.
pub const IDLE_LOOKS: u32 = 5;
/// After a kill, how long until it is killed again.
const KILL_AGAIN: Duration = Duration::from_secs(5);

/// One instance's state. Everything but the phase may be read; only [`step`] makes a new one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Machine {
    phase: Phase,
    wanted: Wanted,
    retiring: bool,
    run: u64,
    process: Option<Process>,
    tickets: u32,
    demand: Option<Cause>,
    cause: Cause,
    since: Timestamp,
    quiet_since: Timestamp,
    drain: Drain,
    /// Since when it has drained for this reason.
    drained_since: Timestamp,
    streams_ended: bool,
    looks: u32,
    failures: u32,
    failed_run: Option<u64>,
    failure: Option<Failure>,
    retry_at: Timestamp,
    armed: u64,
}

/// The part of a machine that is kept in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Phase.
    pub phase: Phase,
    /// The operator's wish.
    pub wanted: Wanted,
    /// Number of the current or last run.
    pub run: u64,
    /// Its process.
    pub process: Option<Process>,
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
    /// It was so already.
    Already,
}

/// The result of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The machine from now on.
    pub next: Machine,
    /// To be performed in this order.
    pub effects: Vec<Effect>,
    /// Done, or already so.
    pub answer: Answer,
}

/// Applies one event.
pub fn step(machine: &Machine, event: &Event, now: Timestamp, limits: &Limits) -> Result<Step, Denied> {
    rows::apply(machine, event, now, limits)
}

impl Machine {
    /// A machine for an instance that is being made.
    #[must_use]
    pub fn creating(wanted: Wanted, now: Timestamp) -> Self {
        Self::restore(Stored {
            phase: Phase::Creating,
            wanted,
            run: 0,
            process: None,
            since: now,
            quiet_since: now,
            failures: 0,
            failure: None,
            retry_at: Timestamp(0),
        })
    }

    /// The machine as it was written down; a live phase must then be told what was [`Event::Found`].
    #[must_use]
    pub fn restore(stored: Stored) -> Self {
        Self {
            phase: stored.phase,
            wanted: stored.wanted,
            retiring: false,
            run: stored.run,
            process: stored.process,
            tickets: 0,
            demand: None,
            cause: Cause::Unknown,
            since: stored.since,
            quiet_since: stored.quiet_since,
            drain: Drain::Operator,
            drained_since: Timestamp(0),
            streams_ended: false,
            looks: 0,
            failures: stored.failures,
            failed_run: None,
            failure: stored.failure,
            retry_at: stored.retry_at,
            armed: 0,
        }
    }

    /// The same, but nobody waits for its next start.
    #[must_use]
    pub fn without_demand(&self) -> Self {
        Self { demand: None, ..self.clone() }
    }

    /// The same, with the requests of another one that has gone on meanwhile.
    #[must_use]
    pub fn with_requests_of(&self, other: &Self) -> Self {
        Self { tickets: other.tickets, quiet_since: self.quiet_since.max(other.quiet_since), ..self.clone() }
    }

    /// What has to be written down.
    #[must_use]
    pub fn stored(&self) -> Stored {
        Stored {
            phase: self.phase,
            wanted: self.wanted,
            run: self.run,
            process: self.process,
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
    /// The operator's wish.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }
    /// Number of the current or last run; counts starts.
    #[must_use]
    pub fn run(&self) -> u64 {
        self.run
    }
    /// The process of this run, once known.
    #[must_use]
    pub fn process(&self) -> Option<Process> {
        self.process
    }
    /// Requests acc itself has let through and that have not ended.
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
    /// When it was last in use during this run; `None`: since its start it never was, and is quiet since then. The start itself is
    /// use only when a request was its cause, which is known at the start.
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
    /// The run that failed last, in this process's memory: waiters of that run get the failure.
    #[must_use]
    pub fn failed_run(&self) -> Option<u64> {
        self.failed_run
    }
    /// Until when requests do not start it.
    #[must_use]
    pub fn retry_at(&self) -> Timestamp {
        self.retry_at
    }
    /// What the idle rule looks at.
    #[must_use]
    pub fn look(&self, in_flight: u32, limits: &Limits) -> super::idle::Look {
        super::idle::Look {
            wanted: self.wanted,
            in_flight: in_flight.max(self.tickets),
            quiet_since: self.quiet_since,
            awake_since: self.since,
            timeout: limits.idle,
            min_awake: limits.min_awake,
        }
    }
}
