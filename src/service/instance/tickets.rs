//! The tickets of one instance: one for each request that acc itself has let through.
//!
//! All that a request to an awake instance touches: whether tickets are given, where they lead, and
//! how many are out. One short lock, never held during I/O. The task of the instance opens and
//! closes them with each step of its machine; it never decides that a request may wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::lifecycle::Requests;
use crate::domain::time::Timestamp;
use crate::driver::edge::Gate;

/// The tickets of one instance.
pub(in crate::service) struct Tickets(Mutex<CountedRequests>);

/// What the lock guards.
pub(in crate::service) struct CountedRequests {
    /// The requests that are open.
    pub(in crate::service) requests: Requests,
    /// Where tickets lead; `None` unless the instance is awake.
    pub(in crate::service) gate: Option<Arc<Gate>>,
}

impl Tickets {
    /// None are given until the task says so.
    pub(in crate::service) fn closed(quiet_since: Timestamp) -> Self {
        Self(Mutex::new(CountedRequests {
            requests: Requests::none(quiet_since),
            gate: None,
        }))
    }

    /// For the task, which reads the count, steps and opens or closes within one lock: no request
    /// comes between.
    pub(in crate::service) fn lock(&self) -> MutexGuard<'_, CountedRequests> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more request, and says where it goes; `None`: the instance is not awake.
    pub(in crate::service) fn take(&self) -> Option<Arc<Gate>> {
        let mut counted = self.lock();
        let gate = counted.gate.clone()?;
        counted.requests.admit().then_some(gate)
    }

    /// A request has ended. `counts`: it was use.
    pub(in crate::service) fn give_back(&self, counts: bool, now: Timestamp) {
        self.lock().requests.release(counts, now);
    }

    /// The requests that are open now.
    pub(in crate::service) fn requests(&self) -> Requests {
        self.lock().requests
    }
}
