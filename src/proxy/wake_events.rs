//! The live report that the waiting page follows: one small event every half second, until the wake is over.
//!
//! It looks and never wakes; it ends by itself, and with the client's connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::respond;
use super::response_body::ResponseBody;
use crate::domain::lifecycle::Phase;
use crate::domain::name::HostName;
use crate::service::door::Door;

/// How often the phase is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often an event is sent although nothing changed.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// Asleep for this long means that nobody is waking it: the page asks again, and that wakes it.
const NOBODY_WAKES: Duration = Duration::from_secs(2);

/// The report for a host, at most for as long as a request would be held.
pub(super) fn report(door: Arc<dyn Door>, host: HostName, limit: Duration) -> Response<ResponseBody> {
    let (pieces, body) = mpsc::channel(4);
    tokio::spawn(tell(door, host, limit, pieces));
    let mut response = Response::new(ResponseBody::live(body));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    respond::mark_own(headers);
    headers.insert(HeaderName::from_static("x-acc-wake"), HeaderValue::from_static("1"));
    // nginx would collect the events before it passes them on.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

async fn tell(door: Arc<dyn Door>, host: HostName, limit: Duration, pieces: mpsc::Sender<Bytes>) {
    let started = Instant::now();
    let mut told: Option<(Phase, Instant)> = None;
    let mut asleep_since = None;
    loop {
        // A host that is gone, or that cannot be looked at, ends the report; the page's next request says why.
        let Ok(phase) = door.peek(&host).await else { return };
        let now = Instant::now();
        if told.is_none_or(|(last, at)| last != phase || now.duration_since(at) >= TELL_EVERY) {
            let event = format!(
                "event: phase\ndata: {{\"phase\":\"{}\",\"elapsed_ms\":{}}}\n\n",
                phase.as_str(),
                now.duration_since(started).as_millis()
            );
            if pieces.send(event.into()).await.is_err() {
                return;
            }
            told = Some((phase, now));
        }
        let asleep = if phase == Phase::Asleep { Some(*asleep_since.get_or_insert(now)) } else { None };
        asleep_since = asleep;
        if is_over(phase) || asleep.is_some_and(|since| now.duration_since(since) >= NOBODY_WAKES) || now.duration_since(started) >= limit {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = pieces.closed() => return,
        }
    }
}

/// Nothing more will come of this wake.
fn is_over(phase: Phase) -> bool {
    match phase {
        Phase::Awake | Phase::Failed | Phase::Destroyed | Phase::Creating => true,
        Phase::Asleep | Phase::Waking | Phase::Draining | Phase::Stopping => false,
    }
}
