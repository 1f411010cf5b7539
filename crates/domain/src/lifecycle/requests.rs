//! The requests that acc itself has let through to one instance, and whether it lets through more.
//!
//! They come and go far more often than the phase changes, so they are counted apart from the
//! machine: [`Machine::with_requests`] gives a step the current count, [`Requests::follow`] takes
//! the result of the step. Between the two no request may be admitted or released, or a stop could
//! miss one; the caller holds a lock for that. It reads no clock and takes no lock.

use super::machine::Machine;
use super::phase::Phase;
use crate::time::Timestamp;

/// The requests of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requests {
    admits: bool,
    open: u32,
    quiet_since: Timestamp,
}

impl Requests {
    /// None are open, and none is admitted until [`Self::follow`] says so.
    #[must_use]
    pub fn none(quiet_since: Timestamp) -> Self {
        Self {
            admits: false,
            open: 0,
            quiet_since,
        }
    }

    /// Counts one more request if the instance is awake; `false`: it must wait.
    #[must_use]
    pub fn admit(&mut self) -> bool {
        if self.admits {
            self.open += 1;
        }
        self.admits
    }

    /// A request that was admitted has ended. `counts`: by the rules it was use of the instance.
    /// One that an instance still answered while it was being stopped always was.
    pub fn release(&mut self, counts: bool, now: Timestamp) {
        self.open = self.open.saturating_sub(1);
        if counts || !self.admits {
            self.quiet_since = self.quiet_since.max(now);
        }
    }

    /// The machine has become this one: requests are admitted while it is awake, and only then.
    pub fn follow(&mut self, machine: &Machine) {
        self.admits = machine.phase() == Phase::Awake;
        self.quiet_since = self.quiet_since.max(machine.quiet_since());
    }

    /// How many are open.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open
    }

    /// When the instance was last in use.
    #[must_use]
    pub fn quiet_since(&self) -> Timestamp {
        self.quiet_since
    }
}

impl Machine {
    /// The same machine with the requests that are open now: what [`super::step`] must be given.
    #[must_use]
    pub fn with_requests(&self, requests: &Requests) -> Self {
        Self {
            tickets: requests.open(),
            quiet_since: self.quiet_since.max(requests.quiet_since()),
            ..self.clone()
        }
    }
}
