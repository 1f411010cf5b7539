//! What can happen to an instance: the input of [`super::step`]. It decides nothing.

use super::phase::{Cause, Failure};
use crate::instance::{DesiredState, Exit, RunId};
use crate::time::Timestamp;

/// What can happen to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its files and rows are complete.
    Created,
    /// A request, the operator or acc needs it.
    Wake(Cause),
    /// The operator wants it asleep; `now`: without waiting for requests in flight.
    Sleep {
        /// Do not drain.
        now: bool,
    },
    /// The operator changes the desired state.
    SetDesired(DesiredState),
    /// It is about to be destroyed, or no longer: meanwhile no request wakes it.
    Retire(bool),
    /// Take it out of service for good.
    Destroy,
    /// Forget a failure.
    Reset,
    /// The supervisor started it.
    Spawned {
        /// Of this run.
        run: u64,
        /// What its runner calls it.
        run_id: RunId,
        /// It answers already: it was ready before the supervisor returned.
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
    /// Somebody looked from outside: connections open now and, when something was used since the
    /// last look, when.
    Checked {
        /// Of this run.
        run: u64,
        /// Requests and connections open.
        in_flight: u32,
        /// The newest use seen.
        used: Option<Timestamp>,
    },
    /// Answer to [`super::Effect::Count`], taken after the gate was closed.
    InFlight {
        /// Of this run.
        run: u64,
        /// Still open.
        count: u32,
    },
    /// Another program listens at its address, or none does: requests cannot reach it there.
    Displaced {
        /// Of this run.
        run: u64,
        /// The program.
        why: String,
    },
    /// The gate could not be closed, or the requests in flight could not be counted: it must not be
    /// stopped.
    DrainFailed {
        /// Of this run.
        run: u64,
    },
    /// The time of [`super::Effect::Arm`] has come.
    Timer {
        /// The number given by [`super::Effect::Arm`].
        armed: u64,
        /// What a start is still waiting for, for the failure: "a connection on …".
        waits_for: String,
    },
    /// After a restart of acc: what the supervisor reports as running. "Could not ask" is not an
    /// event.
    Found(Option<RunId>),
}
