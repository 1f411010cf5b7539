//! The way of a request, from a client's connection to an instance and back. The life of a request:
//!
//! 1. `listen`: the sockets it can come in by; `serve`: its connection is accepted, its head read within a time limit. `exchange`
//!    has it from then on.
//! 2. `request`: who is asked for, may this wake, is it a browser's navigation; `trusted_proxies`: who asks.
//! 3. `forward`: knocks at `service::door::Door`; an awake instance lets it pass, a sleeping one is woken and the request
//!    is held with its body unread.
//! 4. `headers`: what the instance is told, and what it is not.
//! 5. `driver::upstream`: a connection, pooled or new; the body streams through with back-pressure.
//! 6. `reply`: the answer streams back; the pass is given back with its last byte. `upgrade`: upgraded connections.
//! 7. `respond`: everything else, in one table; `wake_events`: what the waiting page follows.
//! 8. `access_log`: one line, on acc's own edge; `own_answers`: also for an answer of acc's own.
//!
//! It never decides whether an instance may sleep or wake. Of a body it takes 64 KiB into memory, and the rest into a file (`host::spool`).

pub mod access_log;
mod client_io;
mod connection_limits;
mod connection_state;
mod exchange;
mod forward;
pub mod headers;
mod hyper_settings;
mod latch;
mod linger;
pub mod listen;
mod noted;
mod own_answers;
mod read_ahead;
pub mod request;
pub mod respond;
pub mod response_body;
pub mod serve;
mod stalled_responses;
#[cfg(test)]
mod tests;
mod trusted_proxies;
mod upgrade;
mod wake_events;
mod websocket_frames;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, Version, header};
use ipnet::IpNet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::rule::Rule;
use crate::driver::upstream::Upstreams;
use crate::host::sent::Sent;
use crate::render::pages::Pages;
use crate::service::door::Door;

use access_log::AccessLog;
use connection_state::{BusyGuard, ConnectionState};
use forward::PendingRequest;
use request::HostFault;
use respond::ProxyFailure;
use response_body::ResponseBody;
pub use trusted_proxies::{Origin, Trust};

pub use serve::{ServeReport, ShutdownSignals, serve};

/// Who speaks at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// Clients themselves, or proxies: acc is the edge. Nothing they say about clients is believed, except from trusted proxies.
    Public,
    /// nginx, over a socket that only it can reach: what it says about clients is believed.
    Wake,
}

/// What the way of a request depends on; replaced as a whole when the configuration is read again.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// `wake.timeout`: a request is held at most this long.
    pub wake_timeout: Duration,
    /// A stop that is under way takes at most about this long; a request waits for its end before it is held for a start.
    pub stop_limit: Duration,
    /// `wake.page_after`: a browser's navigation gets the waiting page after this long.
    pub page_after: Duration,
    /// `edge.max_body`: longest request body in bytes.
    pub max_body: u64,
    /// `edge.per_client`: connections that one address may have; `None`: as many as it likes.
    pub per_client: Option<u32>,
    /// `edge.shared_addresses` and `edge.trusted_proxies`: who has such an address is many clients.
    pub shared_addresses: Vec<IpNet>,
    /// A request's body may stand still for this long.
    pub body_stall: Duration,
    /// `idle.silent_connections`: an upgraded connection without traffic for longer is not use any more.
    pub silent: Option<Duration>,
    /// `[[rules]]`, in order.
    pub rules: Vec<Rule>,
    /// What a slow client has not taken waits in files here.
    pub spool: PathBuf,
    /// Which proxies before acc's own edge are believed.
    pub trust: Trust,
}

impl ProxySettings {
    /// The settings as the configuration has them.
    #[must_use]
    pub fn new(config: &crate::config::Config) -> Self {
        Self {
            wake_timeout: config.wake.timeout,
            stop_limit: config.stop.drain + config.stop.timeout * 3 + LONG_STOP,
            page_after: config.wake.page_after,
            max_body: config.edge.max_body,
            per_client: config.edge.per_client,
            shared_addresses: config.edge.of_many(),
            body_stall: BODY_STALL,
            silent: config.idle.silent_connections,
            rules: config.rules.clone(),
            spool: config.home.clone(),
            trust: Trust::new(&config.edge),
        }
    }
}

/// Models may have longer stop timeouts than the settings.
const LONG_STOP: Duration = Duration::from_secs(300);

/// A client that sends nothing of its body for this long has gone; nginx's own limit is the same.
pub const BODY_STALL: Duration = Duration::from_secs(60);

/// Serves requests, whatever listener they came in by.
pub struct Proxy {
    door: Arc<dyn Door>,
    upstreams: Arc<Upstreams>,
    settings: RwLock<Arc<ProxySettings>>,
    /// How often they were replaced.
    reloads: AtomicU64,
    pages: Pages,
    log: Option<AccessLog>,
    /// Behind nginx: what was sent on and must not be sent again.
    sent: Option<Arc<Sent>>,
    /// Upgraded connections, which outlive the requests they began as.
    tunnels: TaskTracker,
    /// Ends those that outlast the grace of a shutdown.
    cut: CancellationToken,
    /// Clients' connections that wait for their next request and hold nothing meanwhile.
    resting: AtomicUsize,
}

impl Proxy {
    /// `log`: only for acc's own edge; nginx writes its own.
    #[must_use]
    pub fn new(door: Arc<dyn Door>, upstreams: Arc<Upstreams>, settings: ProxySettings, pages: Pages, log: Option<AccessLog>) -> Self {
        let settings = RwLock::new(Arc::new(settings));
        Self {
            door,
            upstreams,
            settings,
            reloads: AtomicU64::new(0),
            pages,
            log,
            sent: None,
            tunnels: TaskTracker::new(),
            cut: CancellationToken::new(),
            resting: AtomicUsize::new(0),
        }
    }

    /// Notes what is sent on, so that another acc knows it should this one be killed.
    #[must_use]
    pub fn noting(mut self, sent: Sent) -> Self {
        self.sent = Some(Arc::new(sent));
        self
    }

    /// Puts new settings in force for the requests that come from now on.
    pub fn reload(&self, settings: ProxySettings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.reloads.fetch_add(1, Ordering::Release);
    }

    /// Reads a request that came in at `front` from `peer` and makes it ready to be sent on; `came`: when the connection that
    /// brought it did. An answer: there is nothing to send.
    pub(in crate::proxy) fn begin(
        &self,
        at: RequestArrival<'_>,
        request: Request<Incoming>,
    ) -> Result<PendingRequest, Box<Response<ResponseBody>>> {
        if at.front == Front::Wake && request.headers().contains_key(request::X_ACC_CHECK) {
            return Err(Box::new(respond::nothing()));
        }
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let (asked, failure) = match read(&at, &head) {
            Ok(asked) => match forward::hopeless(self, at.settings, &asked, &head, &body) {
                None => return Ok(PendingRequest::new(self, &at, asked, started, head, body)),
                Some(failure) => (Box::new(asked), failure),
            },
            Err((Some(asked), failure)) => (asked, failure),
            Err((None, failure)) => {
                // A client that waits to be asked for its body keeps it.
                if head.version < Version::HTTP_2 && !head.headers.contains_key(header::EXPECT) {
                    linger::discard(body, BusyGuard::new(at.used));
                }
                return Err(Box::new(respond::failure(&self.pages, respond::Audience::UNKNOWN, &failure)));
            }
        };
        Err(Box::new(PendingRequest::new(self, &at, *asked, started, head, body).refused(self, &failure)))
    }
}

/// How a request came in.
pub(in crate::proxy) struct RequestArrival<'a> {
    front: Front,
    peer: Option<IpAddr>,
    /// The port that it came to.
    port: u16,
    /// When the connection that brought it came, if it is the first of it.
    came: Option<Instant>,
    used: &'a Arc<ConnectionState>,
    settings: &'a ProxySettings,
}

/// The settings as a connection knows them. The count of those who use them is shared by all lanes, and two processors that
/// write the same count hold each other up: so a request does not take part in it, its connection does.
#[derive(Clone)]
pub(in crate::proxy) struct SettingsSnapshot {
    settings: Arc<ProxySettings>,
    reloads: u64,
}

impl SettingsSnapshot {
    pub(in crate::proxy) fn of(proxy: &Proxy) -> Self {
        // The number first: settings that come in between are seen as new once more.
        let reloads = proxy.reloads.load(Ordering::Acquire);
        let settings = proxy.settings.read().unwrap_or_else(PoisonError::into_inner).clone();
        Self { settings, reloads }
    }

    pub(in crate::proxy) fn settings(&self) -> &ProxySettings {
        &self.settings
    }

    /// Are they in force?
    pub(in crate::proxy) fn is_current(&self, proxy: &Proxy) -> bool {
        self.reloads == proxy.reloads.load(Ordering::Acquire)
    }
}

/// What is wrong with it, and who was asked for, if that can be told.
type Refused = (Option<Box<request::ParsedRequest>>, ProxyFailure);

fn read(at: &RequestArrival<'_>, head: &hyper::http::request::Parts) -> Result<request::ParsedRequest, Refused> {
    let refused = if head.method == Method::CONNECT || head.method == Method::TRACE {
        // Neither is for an application: one asks for a tunnel, the other for a copy of what the edge has added.
        Some(ProxyFailure::Method)
    } else if !request::is_chunked_or_plain(&head.headers) {
        // hyper takes the chunks of `gzip, chunked` and forgets the rest: the application would get something else than was sent.
        Some(ProxyFailure::Coding)
    } else {
        None
    };
    let origin = match at.front {
        Front::Public => at.settings.trust.origin(at.peer, at.port, &head.headers),
        Front::Wake => request::said_by_nginx(&head.headers),
    };
    match (request::read(at.front, origin, head, &at.settings.rules), refused) {
        (Ok(asked), None) => Ok(asked),
        (asked, Some(failure)) => Err((asked.ok().map(Box::new), failure)),
        (Err(fault), None) => Err((None, nobody(fault))),
    }
}

fn nobody(fault: HostFault) -> ProxyFailure {
    match fault {
        HostFault::Missing => ProxyFailure::Malformed("the request names no host"),
        HostFault::Twice => ProxyFailure::Malformed("the request names more than one host"),
        HostFault::Malformed => ProxyFailure::Malformed("the host is not a host name"),
        HostFault::Foreign => ProxyFailure::Refused(crate::domain::admission::Refusal::UnknownHost),
    }
}
