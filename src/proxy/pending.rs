//! A request between its head and its answer: what was read of it, what is left to send, and what happened to it so far.
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

use super::access_log::Draft;
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

/// How a request came in.
pub(super) struct RequestArrival<'a> {
    pub(super) front: Front,
    pub(super) peer: Option<IpAddr>,
    /// The port that it came to.
    pub(super) port: u16,
    /// When the connection that brought it came, if it is the first of it.
    pub(super) came: Option<Instant>,
    pub(super) connection: &'a Arc<ConnectionState>,
    pub(super) settings: &'a ProxySettings,
}

/// A request, read and made ready to be sent.
pub(super) struct PendingRequest {
    pub(super) asked: ParsedRequest,
    pub(super) front: Front,
    pub(super) came: Instant,
    pub(super) started: Instant,
    /// How long ago it came, as long as it was not knocked with yet: nearly every request passes at the first knock, and no clock
    /// is asked for it.
    pub(super) ago: Option<Duration>,
    /// It asks how a wake goes.
    pub(super) follows: bool,
    /// Of its body nothing was taken in yet. nginx has done so itself, and an upgraded connection is none.
    pub(super) to_gather: bool,
    /// Its client sends the body when it is asked for it (`Expect: 100-continue`), which is when it can be used.
    pub(super) expects: bool,
    /// Once more to the next run, and no more: that it has died is no reason to have every run die with the same request.
    pub(super) repeatable: bool,
    /// So often an instance may have read it.
    pub(super) reads: u8,
    /// Before the next knock at an awake instance that could not be connected to.
    pub(super) pause: Duration,
    /// `None` while it is being sent.
    pub(super) request: Option<Box<Request<SendBody>>>,
    pub(super) flag: FaultFlag,
    pub(super) draft: Option<Draft>,
    pub(super) upgrade: Option<OnUpgrade>,
    /// nginx writes the log.
    pub(super) to_nginx: bool,
    /// It was held for so long.
    pub(super) held: Option<Duration>,
    /// It was let through once, or held.
    pub(super) entered: bool,
    /// Its place among those of its client.
    pub(super) place: Option<Box<RequestSlot>>,
}

impl PendingRequest {
    /// `at`: when it came, as far as that is known; `started`: when it was begun with.
    pub(super) fn new(
        proxy: &Proxy,
        at: &RequestArrival<'_>,
        mut asked: ParsedRequest,
        started: Instant,
        mut head: Parts,
        body: Incoming,
    ) -> Self {
        let follows = head.uri.path() == WAKE_PATH;
        if follows {
            // Whoever follows a wake does not ask for one, nor use the application.
            asked.verdict = Verdict { wake: false, counts: false };
        }
        // What another acc sends on is in its log already.
        let log = proxy.log.as_ref().filter(|_| at.front == Front::Public);
        let draft = log.map(|_| Draft::of(&head, &asked, started));
        let upgrade = if asked.upgrade { head.extensions.remove::<OnUpgrade>() } else { None };
        let expects = head.headers.contains_key(header::EXPECT);
        headers::to_instance(at.front, &mut head.headers, &asked);
        let mut body = SendBody::new(body, at.settings.max_body, at.settings.body_stall);
        if head.version < Version::HTTP_2 && !asked.upgrade {
            let connection = at.connection;
            body = body.leaving(expects, || {
                let connection = connection.clone();
                Box::new(move |rest| linger::discard(rest, BusyGuard::new(&connection)))
            });
        }
        let flag = body.fault();
        let to_gather = at.front == Front::Public && !asked.upgrade && !body.is_end_stream();
        let request = Some(Box::new(Request::from_parts(origin_form(head), body)));
        let reads = u8::from(asked.tried != Tried::Nothing);
        let came = at.came.unwrap_or(started);
        let ago = Some(started.saturating_duration_since(came));
        let front = at.front;
        Self {
            asked,
            front,
            came,
            started,
            ago,
            follows,
            to_gather,
            expects,
            repeatable: true,
            reads,
            pause: PAUSE_MIN,
            request,
            flag,
            draft,
            upgrade,
            to_nginx: at.front == Front::Wake,
            held: None,
            // nginx has let it through before it asked acc.
            entered: reads > 0,
            place: None,
        }
    }
}

/// What an HTTP/1.1 server expects: path and query only.
fn origin_form(mut head: Parts) -> Parts {
    if head.uri.authority().is_some() || head.uri.scheme().is_some() {
        let target = head.uri.path_and_query().cloned().map(Uri::from);
        head.uri = target.unwrap_or_default();
    }
    head.version = Version::HTTP_11;
    // It belongs to the client's connection; what the names of headers and the target look like goes with the request.
    head.extensions.remove::<OnUpgrade>();
    // An unread length is said by the body itself, see `SendBody::size_hint`.
    if head.headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    head
}
