//! The first step: reads the head of a request, and responds at once if no instance is needed.
//!
//! It never wakes anything. It never reads a body, except to drop it.

use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, Version, header};
use tokio::time::Instant;

use super::connection_state::BusyGuard;
use super::context::Proxy;
use super::failure::ProxyFailure;
use super::front::Front;
use super::nginx_headers::X_ACC_CHECK;
use super::pending::{PendingRequest, RequestArrival};
use super::request::{self, HostFault, ParsedRequest, Tried, is_safe};
use super::response_body::ResponseBody;
use super::settings::ProxySettings;
use super::{linger, respond};
use crate::domain::admission::Refusal;

impl Proxy {
    /// Reads a request that has arrived and prepares it for sending. Returns a response if there is
    /// nothing to send.
    pub(super) fn receive(
        &self,
        at: RequestArrival<'_>,
        request: Request<Incoming>,
    ) -> Result<PendingRequest, Box<Response<ResponseBody>>> {
        if at.front == Front::Wake && request.headers().contains_key(X_ACC_CHECK) {
            return Err(Box::new(respond::empty()));
        }
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let (parsed, failure) = match read(&at, &head) {
            Ok(parsed) => match early_failure(self, at.settings, &parsed, &head, &body) {
                None => return Ok(PendingRequest::new(self, &at, parsed, started, head, body)),
                Some(failure) => (Box::new(parsed), failure),
            },
            Err((Some(parsed), failure)) => (parsed, failure),
            Err((None, failure)) => {
                // A client that waits for `100 Continue` does not send its body.
                if head.version < Version::HTTP_2 && !head.headers.contains_key(header::EXPECT) {
                    linger::discard(body, BusyGuard::new(at.connection));
                }
                return Err(Box::new(respond::failure(
                    &self.pages,
                    respond::Audience::UNKNOWN,
                    &failure,
                )));
            }
        };
        Err(Box::new(
            PendingRequest::new(self, &at, *parsed, started, head, body).refused(self, &failure),
        ))
    }
}

/// The failure of a request for which no instance is needed.
fn early_failure(
    proxy: &Proxy,
    settings: &ProxySettings,
    parsed: &ParsedRequest,
    head: &Parts,
    body: &Incoming,
) -> Option<ProxyFailure> {
    if body.size_hint().lower() > settings.max_body {
        return Some(ProxyFailure::TooLarge);
    }
    // The worker that nginx asked before, and that was killed, may have sent it to the instance.
    let may_have_been_sent = || match (&proxy.replay_notes, &parsed.id) {
        (Some(notes), Some(id)) => notes.was_noted(id),
        _ => true,
    };
    if parsed.again && !is_safe(&head.method) && may_have_been_sent() {
        return Some(ProxyFailure::MaybeSeen);
    }
    match parsed.tried {
        Tried::TimedOut => Some(ProxyFailure::NoAnswer),
        Tried::MaybeSeen if !is_safe(&head.method) => Some(ProxyFailure::MaybeSeen),
        Tried::MaybeSeen | Tried::Nothing => None,
    }
}

/// Reads the head. On failure, returns the request as well, if its host is known.
fn read(
    at: &RequestArrival<'_>,
    head: &Parts,
) -> Result<ParsedRequest, (Option<Box<ParsedRequest>>, ProxyFailure)> {
    let refused = if head.method == Method::CONNECT || head.method == Method::TRACE {
        // Neither is for an application: one asks for a tunnel, the other for a copy of what the
        // edge has added.
        Some(ProxyFailure::Method)
    } else if !request::is_chunked_or_plain(&head.headers) {
        // hyper decodes the chunks of `gzip, chunked` and drops the other coding: the application
        // would get something else than was sent.
        Some(ProxyFailure::Coding)
    } else {
        None
    };
    let origin = match at.front {
        Front::Public => at
            .settings
            .trusted_proxies
            .origin(at.peer, at.port, &head.headers),
        Front::Wake => request::origin_from_nginx(&head.headers),
    };
    match (
        request::read(at.front, origin, head, &at.settings.rules),
        refused,
    ) {
        (Ok(parsed), None) => Ok(parsed),
        (parsed, Some(failure)) => Err((parsed.ok().map(Box::new), failure)),
        (Err(fault), None) => Err((None, host_failure(fault))),
    }
}

fn host_failure(fault: HostFault) -> ProxyFailure {
    match fault {
        HostFault::Missing => ProxyFailure::Malformed("the request names no host"),
        HostFault::Twice => ProxyFailure::Malformed("the request names more than one host"),
        HostFault::Malformed => ProxyFailure::Malformed("the host is not a host name"),
        HostFault::Foreign => ProxyFailure::Refused(Refusal::UnknownHost),
    }
}
