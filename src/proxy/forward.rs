//! From the door to the instance and back: knock, wait with the body unread, send, and go on when the instance turns out to
//! be gone before it saw anything.
//!
//! It never sends a request twice that the instance may have seen, safe ones apart: those `driver::upstream` sends again on
//! a new connection, and this file to the next run when the instance has died with them.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Uri, Version, header};
use tokio::time::{Instant, timeout, timeout_at};

use super::access_log::Draft;
use super::reply::Reply;
use super::request::{Asked, Tried, is_safe};
use super::respond::{self, Failure, WAKE_PATH};
use super::{Front, Proxy, ProxySettings, headers, live, tunnel};
use crate::domain::admission::Refusal;
use crate::domain::lifecycle::Phase;
use crate::domain::rule::Verdict;
use crate::driver::host::sent::{Id, Sent as SentNotes};
use crate::driver::upstream::{BodyFault, FaultFlag, ReceiveBody, SendBody, UpstreamError};
use crate::service::door::{Knock, Pass};

/// The service ends a wait by itself; this much later acc stops trusting it to.
const MARGIN: Duration = Duration::from_secs(5);
/// First pause before knocking again when an awake instance could not be connected to.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Within this, what was answered has reached nginx.
const ANSWER_ARRIVES: Duration = Duration::from_secs(10);
/// A death is noticed a moment after the connections it broke.
const DEATH_KNOWN: Duration = Duration::from_millis(250);
/// Between two looks whether it is known.
const LOOK: Duration = Duration::from_millis(5);

/// What became of a knock.
enum Entry {
    Pass(Box<dyn Pass>),
    /// A person has waited long enough without seeing anything; the instance's name.
    Page(String),
    No(Failure),
}

/// What became of sending.
enum Sent {
    Answer(Response<ReceiveBody>),
    /// The instance never saw it.
    Again(Box<Request<SendBody>>),
    /// It broke the connection; with the request once more when it may be sent twice.
    Broke(Option<Box<Request<SendBody>>>),
    No(Failure),
}

/// A request that may not be sent twice is on its way to an instance; dropped when its answer is on the way back.
struct Noted {
    sent: Arc<SentNotes>,
    id: Id,
    seen: bool,
}

impl Noted {
    fn note(sent: &Arc<SentNotes>, id: Id) -> std::io::Result<Option<Self>> {
        sent.note(id)?;
        Ok(Some(Self { sent: sent.clone(), id, seen: true }))
    }

    /// The instance was not reached.
    fn unseen(mut self) {
        self.seen = false;
        self.sent.done(self.id);
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if !self.seen {
            return;
        }
        let (sent, id) = (self.sent.clone(), self.id);
        tokio::spawn(async move {
            // Until nginx has the answer for certain.
            tokio::time::sleep(ANSWER_ARRIVES).await;
            sent.done(id);
        });
    }
}

/// One request on its way.
pub(super) struct Way<'a> {
    proxy: &'a Proxy,
    settings: Arc<ProxySettings>,
    front: Front,
    asked: Asked,
    came: Instant,
    started: Instant,
}

impl<'a> Way<'a> {
    /// `times`: when it came, as far as that is known, and when it was begun with.
    pub(super) fn new(proxy: &'a Proxy, settings: Arc<ProxySettings>, front: Front, asked: Asked, times: (Instant, Instant)) -> Self {
        let (came, started) = times;
        Self { proxy, settings, front, asked, came, started }
    }

    /// Serves the request, one way or another.
    pub(super) async fn go(mut self, head: Parts, body: Incoming) -> Response<Reply> {
        if let Some(failure) = self.hopeless(&head, &body) {
            return self.fail(&failure);
        }
        if head.uri.path() == WAKE_PATH {
            // Whoever follows a wake does not ask for one, nor use the application.
            self.asked.verdict = Verdict { wake: false, counts: false };
            if self.is_not_awake().await {
                return live::report(self.proxy.door.clone(), self.asked.host.clone(), self.settings.wake_timeout);
            }
        }
        self.through(head, body).await
    }

    /// What can be answered before anything is woken.
    fn hopeless(&self, head: &Parts, body: &Incoming) -> Option<Failure> {
        if body.size_hint().lower() > self.settings.max_body {
            return Some(Failure::TooLarge);
        }
        if self.asked.again && !is_safe(&head.method) && self.may_have_been_sent() {
            return Some(Failure::MaybeSeen);
        }
        match self.asked.tried {
            Tried::TimedOut => Some(Failure::NoAnswer),
            Tried::MaybeSeen if !is_safe(&head.method) => Some(Failure::MaybeSeen),
            Tried::MaybeSeen | Tried::Nothing => None,
        }
    }

    /// The acc that was asked before, and killed, may have sent it on.
    fn may_have_been_sent(&self) -> bool {
        match (&self.proxy.sent, self.asked.id) {
            (Some(sent), Some(id)) => sent.was_noted(id),
            _ => true,
        }
    }

    async fn is_not_awake(&self) -> bool {
        match self.proxy.door.peek(&self.asked.host).await {
            Ok(Phase::Awake) | Err(_) => false,
            Ok(_) => true,
        }
    }

    async fn through(self, mut head: Parts, body: Incoming) -> Response<Reply> {
        // What another acc sends on is in its log already.
        let log = self.proxy.log.as_ref().filter(|_| self.front == Front::Public);
        let draft = log.map(|_| Draft::of(&head, self.asked.client, self.asked.verdict.counts, self.started));
        let upgrade = if self.asked.upgrade { head.extensions.remove::<OnUpgrade>() } else { None };
        headers::to_instance(self.front, &mut head.headers, &self.asked, self.settings.https);
        let body = SendBody::new(body, self.settings.max_body, self.settings.body_stall);
        let flag = body.fault();
        let mut request = Box::new(Request::from_parts(origin_form(head), body));
        // Once more to the next run, and no more: what another edge has tried was sent twice already.
        let mut repeatable = self.asked.tried == Tried::Nothing;
        let mut pause = PAUSE_MIN;
        loop {
            let mut pass = match self.enter().await {
                Entry::Pass(pass) => pass,
                Entry::Page(name) => return respond::waiting(&self.proxy.pages, &name),
                Entry::No(failure) => return self.fail(&failure),
            };
            let run = pass.gate().run;
            match self.send(&mut *pass, request, &flag).await {
                Sent::Answer(response) => return self.answer(response, pass, draft, upgrade),
                Sent::Broke(Some(same)) if repeatable => {
                    drop(pass);
                    if !self.has_died(run).await {
                        return self.fail(&Failure::Broke);
                    }
                    (request, repeatable) = (same, false);
                    continue;
                }
                Sent::Broke(_) => return self.fail(&Failure::Broke),
                Sent::No(failure) => return self.fail(&failure),
                Sent::Again(same) => request = same,
            }
            // Given back first: with the pass held, the service would take the instance for one in use.
            drop(pass);
            if self.started.elapsed() >= self.settings.wake_timeout {
                return self.fail(&Failure::Unreachable);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Has this run died? An instance that lives and breaks a connection has answered in its way.
    async fn has_died(&self, run: u64) -> bool {
        let looked = timeout(DEATH_KNOWN, async {
            // Knocking as a look would: it wakes nobody and does not count as use.
            let look = Verdict { wake: false, counts: false };
            while let Ok(Knock::Open(pass)) = self.proxy.door.knock(&self.asked.host, look).await {
                if pass.gate().run != run {
                    return;
                }
                drop(pass);
                tokio::time::sleep(LOOK).await;
            }
        });
        looked.await.is_ok()
    }

    /// Knocks, and waits if it must.
    async fn enter(&self) -> Entry {
        let mut waiting = match self.proxy.door.knock_late(&self.asked.host, self.asked.verdict, self.came.elapsed()).await {
            Ok(Knock::Open(pass)) => return Entry::Pass(pass),
            Ok(Knock::Wait(waiting)) => waiting,
            Err(refusal) => return Entry::No(Failure::Refused(refusal)),
        };
        let page_at = self.started + self.settings.page_after;
        let last = self.started + self.settings.wake_timeout + MARGIN;
        let until = if self.asked.navigation { page_at.min(last) } else { last };
        match timeout_at(until, waiting.pass()).await {
            Ok(Ok(pass)) => Entry::Pass(pass),
            Ok(Err(refusal)) => Entry::No(Failure::Refused(refusal)),
            Err(_) if self.asked.navigation => Entry::Page(waiting.name()),
            Err(_) => Entry::No(Failure::Refused(Refusal::TooSlow)),
        }
    }

    /// Sends it; what must not be sent twice is noted first.
    async fn send(&self, pass: &mut dyn Pass, request: Box<Request<SendBody>>, flag: &FaultFlag) -> Sent {
        let noted = match (&self.proxy.sent, self.asked.id) {
            (Some(sent), Some(id)) if !is_safe(request.method()) => Noted::note(sent, id),
            _ => Ok(None),
        };
        match noted {
            Ok(noted) => {
                let outcome = self.send_once(pass, request, flag).await;
                if let (Sent::Again(_), Some(noted)) = (&outcome, noted) {
                    noted.unseen();
                }
                outcome
            }
            Err(error) => {
                // Then it is not served rather than perhaps served twice.
                tracing::warn!(%error, "could not note that a request is sent");
                Sent::No(Failure::Unreachable)
            }
        }
    }

    async fn send_once(&self, pass: &mut dyn Pass, request: Box<Request<SendBody>>, flag: &FaultFlag) -> Sent {
        let answer = match pass.connection() {
            Some(made) => Box::pin(self.proxy.upstreams.request_over(made, pass.gate(), request)).await,
            None => self.proxy.upstreams.request(pass.gate(), request).await,
        };
        match answer {
            Ok(response) => Sent::Answer(response),
            Err(UpstreamError::Connect { request, source }) => {
                tracing::debug!(instance = %pass.gate().name, error = %source, "no connection to an awake instance");
                Sent::Again(request)
            }
            Err(UpstreamError::Broken { source, again, .. }) => match flag.get() {
                Some(BodyFault::TooLarge) => Sent::No(Failure::TooLarge),
                Some(BodyFault::Stalled) => Sent::No(Failure::BodyStalled),
                Some(BodyFault::Client) => Sent::No(Failure::Malformed("the request's body is broken")),
                None => {
                    tracing::info!(instance = %pass.gate().name, error = %source, "an instance broke a request");
                    Sent::Broke(again)
                }
            },
        }
    }

    fn answer(
        &self,
        response: Response<ReceiveBody>,
        pass: Box<dyn Pass>,
        draft: Option<Draft>,
        upgrade: Option<OnUpgrade>,
    ) -> Response<Reply> {
        let (mut head, body) = response.into_parts();
        let line = match (&self.proxy.log, draft) {
            (Some(log), Some(draft)) => Some(log.line(draft, &pass.gate().name, head.status)),
            _ => None,
        };
        let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
        headers::to_client(&mut head.headers, switching);
        head.version = Version::HTTP_11;
        match (switching, upgrade) {
            (false, _) => Response::from_parts(head, Reply::forwarded(body, pass, line)),
            (true, Some(client)) => {
                let silence = self.settings.silent.map(|limit| tunnel::Silence {
                    limit,
                    door: self.proxy.door.clone(),
                    upstreams: self.proxy.upstreams.clone(),
                    host: self.asked.host.clone(),
                    verdict: self.asked.verdict,
                });
                let use_of = tunnel::Use::new(pass, silence);
                self.proxy.tunnels.spawn(tunnel::carry(client, body, use_of, line, self.proxy.cut.clone()));
                Response::from_parts(head, Reply::empty())
            }
            // It switches although nobody asked for it.
            (true, None) => self.fail(&Failure::Broke),
        }
    }

    fn fail(&self, failure: &Failure) -> Response<Reply> {
        let reader = respond::Reader { navigation: self.asked.navigation, host: self.asked.host.as_str() };
        respond::failure(&self.proxy.pages, reader, failure)
    }
}

/// What an HTTP/1.1 server expects: path and query only.
fn origin_form(mut head: Parts) -> Parts {
    if head.uri.authority().is_some() || head.uri.scheme().is_some() {
        let target = head.uri.path_and_query().cloned().map(Uri::from);
        head.uri = target.unwrap_or_default();
    }
    head.version = Version::HTTP_11;
    // Extensions belong to the client's connection.
    head.extensions.clear();
    // An unread length is said by the body itself, see `SendBody::size_hint`.
    if head.headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    head
}
