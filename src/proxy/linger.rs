//! Reads and drops the rest of a request body when the response did not wait for it. Closing the
//! connection would reset it, and a client that is still sending would lose the response; nginx
//! calls this lingering.
//!
//! It never reads for longer than its limits, and never keeps what it reads.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::connection_state::BusyGuard;

/// Total limit, as nginx's `lingering_time`.
const TIME: Duration = Duration::from_secs(30);
/// Limit without a byte, as nginx's `lingering_timeout`.
const SILENCE: Duration = Duration::from_secs(5);

/// Reads the rest of a body and drops it. `busy` keeps the connection from counting as idle
/// meanwhile.
pub(super) fn discard(mut body: Incoming, busy: BusyGuard) {
    if body.is_end_stream() {
        return;
    }
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    runtime.spawn(async move {
        let rest = async { while let Ok(Some(Ok(_))) = timeout(SILENCE, body.frame()).await {} };
        let _ = timeout(TIME, rest).await;
        drop((body, busy));
    });
}
