//! The time limits of clients' connections, by listener.
//!
//! It never measures time: `client_io` and `stalled_responses` do.

use std::time::Duration;

use super::front::Front;

/// An HTTP/1 connection that has been idle for this long rests.
const REST: Duration = Duration::from_secs(1);

/// The time limits of a client's connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionTimeouts {
    /// From the first byte of a head to its last.
    pub(super) head: Duration,
    /// Between two requests on one connection.
    pub(super) idle: Duration,
    /// Between two requests, until the connection rests.
    pub(super) rest: Duration,
    /// A client may stop reading for this long.
    pub(super) stall: Duration,
}

impl ConnectionTimeouts {
    /// The limits of connections to this listener.
    pub(super) fn of(front: Front) -> Self {
        match front {
            Front::Public => Self {
                head: Duration::from_secs(10),
                idle: Duration::from_secs(60),
                rest: REST,
                stall: Duration::from_secs(60),
            },
            // nginx enforces these limits for clients, and reads as fast as they do.
            Front::Wake => Self {
                head: Duration::from_secs(60),
                idle: Duration::from_secs(60),
                rest: REST,
                stall: Duration::MAX,
            },
        }
    }
}
