//! The events for the waiting page: the phase of the instance every half second, until the wake is
//! over.
//!
//! It never wakes an instance. It ends by itself, and with the client's connection.

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
use crate::service::admission::Admission;

/// How often the phase is checked.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// How often an event is sent although the phase has not changed.
const REPEAT_EVERY: Duration = Duration::from_millis(500);
/// An instance that is asleep for this long is not being woken: the page then loads again, which
/// wakes it.
const NOT_WAKING_AFTER: Duration = Duration::from_secs(2);

/// The events for a host, for at most as long as a request would be held.
pub(super) fn stream(
    admission: Arc<dyn Admission>,
    host: HostName,
    limit: Duration,
) -> Response<ResponseBody> {
    let (pieces, body) = mpsc::channel(4);
    tokio::spawn(send_events(admission, host, limit, pieces));
    let mut response = Response::new(ResponseBody::stream(body));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    respond::mark_own(headers);
    headers.insert(
        HeaderName::from_static("x-acc-wake"),
        HeaderValue::from_static("1"),
    );
    // Otherwise nginx would buffer the events.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

async fn send_events(
    admission: Arc<dyn Admission>,
    host: HostName,
    limit: Duration,
    pieces: mpsc::Sender<Bytes>,
) {
    let started = Instant::now();
    let mut last_sent: Option<(Phase, Instant)> = None;
    let mut asleep_since = None;
    loop {
        // If the host is gone or its phase cannot be read, the events end; the next request of the
        // page gets the reason.
        let Ok(phase) = admission.peek(&host).await else {
            return;
        };
        let now = Instant::now();
        if last_sent.is_none_or(|(last, sent_at)| {
            last != phase || now.duration_since(sent_at) >= REPEAT_EVERY
        }) {
            let event = format!(
                "event: phase\ndata: {{\"phase\":\"{}\",\"elapsed_ms\":{}}}\n\n",
                phase.as_str(),
                now.duration_since(started).as_millis()
            );
            if pieces.send(event.into()).await.is_err() {
                return;
            }
            last_sent = Some((phase, now));
        }
        let asleep = if phase == Phase::Asleep {
            Some(*asleep_since.get_or_insert(now))
        } else {
            None
        };
        asleep_since = asleep;
        if is_over(phase)
            || asleep.is_some_and(|since| now.duration_since(since) >= NOT_WAKING_AFTER)
            || now.duration_since(started) >= limit
        {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(CHECK_EVERY) => {}
            () = pieces.closed() => return,
        }
    }
}

/// Whether this wake has ended.
fn is_over(phase: Phase) -> bool {
    match phase {
        Phase::Awake | Phase::Failed | Phase::Destroyed | Phase::Creating => true,
        Phase::Asleep | Phase::Waking | Phase::Draining | Phase::Stopping => false,
    }
}
