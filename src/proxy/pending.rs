//! A request between its head and its response: what was read of it, what is left to send, and what
//! has happened to it so far.
//!
//! It never sends anything: `forward` does.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Uri, Version, header};
use tokio::time::Instant;

use super::access_log::LineDraft;
use super::connection_limits::RequestSlot;
use super::connection_state::{BusyGuard, ConnectionState};
use super::context::Proxy;
use super::front::Front;
use super::request::{ParsedRequest, Tried};
use super::respond::WAKE_PATH;
use super::settings::ProxySettings;
use super::{headers, linger};
use crate::domain::rule::Verdict;
use crate::driver::upstream::{FaultFlag, SendBody};

/// First pause before another try when an awake instance could not be connected to.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// How a request arrived.
pub(super) struct RequestArrival<'a> {
    pub(super) front: Front,
    pub(super) peer: Option<IpAddr>,
    /// The local port.
    pub(super) port: u16,
    pub(super) connection: &'a Arc<ConnectionState>,
    pub(super) settings: &'a ProxySettings,
}

/// A request, read and made ready to be sent.
pub(super) struct PendingRequest {
    pub(super) parsed: ParsedRequest,
    pub(super) front: Front,
    pub(super) started: Instant,
    /// It is from the waiting page, for the events of a wake.
    pub(super) follows_wake: bool,
    /// Its body is to be read before the instance is asked, and has not been. nginx has read it
    /// already, and an upgraded connection has none.
    pub(super) body_unread: bool,
    /// Its client sends the body only after `100 Continue`, which acc sends once it can use the
    /// body.
    pub(super) expects_continue: bool,
    /// It may be sent to the next run, once: a request that one run died with must not end every
    /// run.
    pub(super) retryable: bool,
    /// How often instances may have read it.
    pub(super) reads: u8,
    /// The pause before the next try at an awake instance that could not be connected to.
    pub(super) retry_pause: Duration,
    /// `None` while it is being sent.
    pub(super) request: Option<Box<Request<SendBody>>>,
    pub(super) body_fault: FaultFlag,
    pub(super) log_draft: Option<LineDraft>,
    pub(super) upgrade: Option<OnUpgrade>,
    /// nginx writes the log line.
    pub(super) to_nginx: bool,
    /// How long it was held.
    pub(super) held: Option<Duration>,
    /// It was let through once, or held for an instance.
    pub(super) admitted: bool,
    /// Its slot among the requests of its client.
    pub(super) slot: Option<Box<RequestSlot>>,
}

impl PendingRequest {
    /// `started`: when acc began to read it.
    pub(super) fn new(
        proxy: &Proxy,
        at: &RequestArrival<'_>,
        mut parsed: ParsedRequest,
        started: Instant,
        mut head: Parts,
        body: Incoming,
    ) -> Self {
        let follows_wake = head.uri.path() == WAKE_PATH;
        if follows_wake {
            // Following a wake neither causes one nor counts as use.
            parsed.verdict = Verdict {
                wake: false,
                counts: false,
            };
        }
        // Behind nginx, or received by an earlier worker, its line is in a log already.
        let log = proxy.log.as_ref().filter(|_| at.front == Front::Public);
        let log_draft = log.map(|_| LineDraft::of(&head, &parsed, started));
        let upgrade = if parsed.upgrade {
            head.extensions.remove::<OnUpgrade>()
        } else {
            None
        };
        let expects_continue = head.headers.contains_key(header::EXPECT);
        headers::to_instance(at.front, &mut head.headers, &parsed);
        let lingers = head.version < Version::HTTP_2 && !parsed.upgrade;
        let body = send_body(at, body, lingers.then_some(expects_continue));
        let body_fault = body.fault();
        let body_unread = at.front == Front::Public && !parsed.upgrade && !body.is_end_stream();
        let request = Some(Box::new(Request::from_parts(origin_form(head), body)));
        let reads = u8::from(parsed.tried != Tried::Nothing);
        Self {
            parsed,
            front: at.front,
            started,
            follows_wake,
            body_unread,
            expects_continue,
            retryable: true,
            reads,
            retry_pause: PAUSE_MIN,
            request,
            body_fault,
            log_draft,
            upgrade,
            to_nginx: at.front == Front::Wake,
            held: None,
            // nginx let it through before it asked acc.
            admitted: reads > 0,
            slot: None,
        }
    }
}

/// The body as it is forwarded. With `lingers`, the rest that the response does not wait for is
/// read and dropped; the value says whether the client sends the body only when asked for it.
fn send_body(at: &RequestArrival<'_>, body: Incoming, lingers: Option<bool>) -> SendBody {
    let body = SendBody::new(body, at.settings.max_body, at.settings.body_stall);
    let Some(expects_continue) = lingers else {
        return body;
    };
    body.leaving(expects_continue, || {
        let connection = at.connection.clone();
        Box::new(move |rest| linger::discard(rest, BusyGuard::new(&connection)))
    })
}

/// Reduces the target to path and query, which an HTTP/1.1 server expects.
fn origin_form(mut head: Parts) -> Parts {
    if head.uri.authority().is_some() || head.uri.scheme().is_some() {
        let target = head.uri.path_and_query().cloned().map(Uri::from);
        head.uri = target.unwrap_or_default();
    }
    head.version = Version::HTTP_11;
    // The upgrade belongs to the client's connection; the spelling of header names and of the
    // target is kept with the request.
    head.extensions.remove::<OnUpgrade>();
    // The body itself reports the length of its unread part, see `SendBody::size_hint`.
    if head
        .headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .nth(1)
        .is_some()
    {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    head
}
