//! What the proxy asks of the service: may this request pass, and if the instance sleeps, wait for
//! it.
//!
//! Being let through and being counted in flight is one act: a [`Ticket`] is the count, dropping it
//! ends the request.

use std::net::IpAddr;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::domain::admission::Refusal;
use crate::domain::lifecycle::Phase;
use crate::domain::name::{HostName, InstanceName};
use crate::domain::rule::Verdict;
use crate::driver::edge::Gate;

/// What is known of a request beside what it asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller {
    /// The client's address; one client may not have all there is.
    pub client: Option<IpAddr>,
}

/// Permission to send one request to an instance. Dropping it says that the request, its answer and
/// any upgraded connection have ended.
pub trait Ticket: Send + Sync {
    /// Where to.
    fn gate(&self) -> &Gate;

    /// Cancelled when a WebSocket or an event stream must end: the instance is being stopped, and
    /// `stop.drain_streams` has passed.
    fn streams_end(&self) -> CancellationToken;
}

/// The answer to a request for a ticket.
pub enum Admitted {
    /// Go ahead.
    Open(Box<dyn Ticket>),
    /// The instance is being woken; wait for it.
    Wait(Box<dyn Waiting>),
}

/// One request's place in the queue of an instance. Dropping it gives up the place, never the wake.
#[async_trait]
pub trait Waiting: Send {
    /// Resolves with the ticket or the reason why there is none. Bounded by `wake.timeout` from
    /// that request. May be dropped and called again without losing the place.
    async fn admitted(&mut self) -> Result<Box<dyn Ticket>, Refusal>;

    /// The instance's name, for the waiting page.
    fn name(&self) -> String;
}

/// Lets requests through. Implemented by the service; by a fake in the proxy's tests.
#[async_trait]
pub trait Admission: Send + Sync {
    /// A ticket for an instance that is awake: for nearly every request, so without a future of its
    /// own. `None`: ask by [`Self::admit`].
    fn admit_now(&self, host: &HostName, verdict: Verdict) -> Option<Box<dyn Ticket>> {
        let _ = (host, verdict);
        None
    }

    /// Asks for a ticket to the instance of this host; wakes it when the verdict allows.
    async fn admit(&self, host: &HostName, verdict: Verdict) -> Result<Admitted, Refusal>;

    /// The same for a request of which more is known.
    async fn admit_for(
        &self,
        host: &HostName,
        verdict: Verdict,
        caller: Caller,
    ) -> Result<Admitted, Refusal> {
        let _ = caller;
        self.admit(host, verdict).await
    }

    /// The instance of this host, if that is known without reading the database.
    fn known_name(&self, host: &HostName) -> Option<InstanceName>;

    /// The instance of this host, whatever phase that is in; `None`: no instance's, or unknown.
    async fn name_of(&self, host: &HostName) -> Option<InstanceName> {
        self.known_name(host)
    }

    /// The phase of the host's instance, without waking it: for the waiting page.
    async fn peek(&self, host: &HostName) -> Result<Phase, Refusal>;
}
