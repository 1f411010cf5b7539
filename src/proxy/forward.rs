//! From the door to the instance and back: knock, wait with the body unread, send, and go on when the instance turns out to
//! be gone before it saw anything.
//!
//! It never sends a request twice that the instance may have seen, safe ones apart: those `driver::upstream` sends again on
//! a new connection, or this file to the next run when the instance has died with them. No request is read more than [`READS`] times,
//! the edge before acc and all runs together, nor once more when an answer has begun.

use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Uri, Version, header};
use tokio::time::{Instant, timeout, timeout_at};

use super::access_log::{Course, Draft};
use super::connection_limits::RequestSlot;
use super::connection_state::BusyGuard;
use super::noted::ReplayNote;
use super::request::{ParsedRequest, Tried, is_safe};
use super::respond::{self, ProxyFailure, WAKE_PATH};
use super::response_body::{Flow, ResponseBody};
use super::{Front, Proxy, ProxySettings, RequestArrival, headers, linger, own_answers, upgrade, wake_events};
use crate::domain::admission::Refusal;
use crate::domain::lifecycle::Phase;
use crate::domain::rule::Verdict;
use crate::driver::upstream::{BodyFault, FaultFlag, ReceiveBody, SendBody, UpstreamError};
use crate::service::door::{Caller, Knock, Pass};

/// The service ends a wait by itself; this much later acc stops trusting it to.
const MARGIN: Duration = Duration::from_secs(5);
/// First pause before knocking again when an awake instance could not be connected to.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// So often an instance may read a request that is safe.
const READS: u8 = 2;

/// So much of a body is taken in before an instance is asked.
const GATHERED: usize = 64 * 1024;
/// A body that was sent with its head has come within this.
const HAS_COME: Duration = Duration::from_millis(5);

/// A death is noticed a moment after the connections it broke.
const DEATH_KNOWN: Duration = Duration::from_millis(250);
/// Between two looks whether it is known.
const LOOK: Duration = Duration::from_millis(5);

/// What became of a knock.
enum EntryOutcome {
    Pass(Box<dyn Pass>),
    /// A person has waited long enough without seeing anything; the instance's name.
    Page(String),
    No(ProxyFailure),
}

/// What became of sending.
enum SendOutcome {
    Answer(Response<ReceiveBody>),
    /// The instance never saw it.
    Again(Box<Request<SendBody>>),
    /// It broke the connection; with the request once more when it may be sent twice.
    Broke(Option<Box<Request<SendBody>>>),
    No(ProxyFailure),
}

/// A request, read and made ready to be sent.
pub(super) struct PendingRequest {
    pub(super) asked: ParsedRequest,
    front: Front,
    came: Instant,
    started: Instant,
    /// How long ago it came, as long as it was not knocked with yet: nearly every request passes at the first knock, and no clock
    /// is asked for it.
    ago: Option<Duration>,
    /// It asks how a wake goes.
    follows: bool,
    /// Of its body nothing was taken in yet. nginx has done so itself, and an upgraded connection is none.
    to_gather: bool,
    /// Its client sends the body when it is asked for it (`Expect: 100-continue`), which is when it can be used.
    expects: bool,
    /// Once more to the next run, and no more: that it has died is no reason to have every run die with the same request.
    repeatable: bool,
    /// So often an instance may have read it.
    reads: u8,
    /// Before the next knock at an awake instance that could not be connected to.
    pause: Duration,
    /// `None` while it is being sent.
    request: Option<Box<Request<SendBody>>>,
    flag: FaultFlag,
    pub(super) draft: Option<Draft>,
    upgrade: Option<OnUpgrade>,
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
            let used = at.used;
            body = body.leaving(expects, || {
                let used = used.clone();
                Box::new(move |rest| linger::discard(rest, BusyGuard::new(&used)))
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

/// What can be answered before anything is woken.
pub(super) fn hopeless(
    proxy: &Proxy,
    settings: &ProxySettings,
    asked: &ParsedRequest,
    head: &Parts,
    body: &Incoming,
) -> Option<ProxyFailure> {
    if body.size_hint().lower() > settings.max_body {
        return Some(ProxyFailure::TooLarge);
    }
    // The acc that was asked before, and killed, may have sent it on.
    let may_have_been_sent = || match (&proxy.sent, asked.id) {
        (Some(sent), Some(id)) => sent.was_noted(id),
        _ => true,
    };
    if asked.again && !is_safe(&head.method) && may_have_been_sent() {
        return Some(ProxyFailure::MaybeSeen);
    }
    match asked.tried {
        Tried::TimedOut => Some(ProxyFailure::NoAnswer),
        Tried::MaybeSeen if !is_safe(&head.method) => Some(ProxyFailure::MaybeSeen),
        Tried::MaybeSeen | Tried::Nothing => None,
    }
}

/// One request on its way.
pub(super) struct Forwarding<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) settings: &'a ProxySettings,
    pub(super) begun: &'a mut PendingRequest,
}

impl Forwarding<'_> {
    /// Serves the request, one way or another.
    pub(super) async fn go(mut self) -> Response<ResponseBody> {
        if self.begun.follows && self.is_not_awake().await {
            return wake_events::report(self.proxy.door.clone(), self.begun.asked.host.clone(), self.settings.wake_timeout);
        }
        if self.begun.to_gather
            && !self.begun.expects
            && let Err(failure) = self.take_in().await
        {
            return self.fail(&failure);
        }
        loop {
            let mut pass = match self.enter().await {
                EntryOutcome::Pass(pass) => pass,
                EntryOutcome::Page(name) => return respond::waiting(&self.proxy.pages, &name),
                EntryOutcome::No(failure) => return self.fail(&failure),
            };
            if self.begun.to_gather {
                // It is asked for its body now, and takes its time: the instance is not held meanwhile.
                drop(pass);
                match self.take_in().await {
                    Ok(()) => continue,
                    Err(failure) => return self.fail(&failure),
                }
            }
            let sent = self.send(&mut *pass).await;
            if let SendOutcome::Answer(response) = sent {
                return self.answer(response, pass);
            }
            // Rare, and on the heap: else every request would have room for it.
            if let Some(failure) = Box::pin(self.may_go_on(sent, pass)).await {
                return self.fail(&failure);
            }
        }
    }

    /// Takes in the body, as far as there is room for it, before the instance is asked: neither a start nor a place in the instance is
    /// spent on a client that takes its time. Nearly always it is short and has come already.
    async fn take_in(&mut self) -> Result<(), ProxyFailure> {
        self.begun.to_gather = false;
        let Some(request) = self.begun.request.as_mut() else { return Ok(()) };
        match request.body_mut().gather_at_once(GATHERED).await {
            Ok(true) if request.body().is_gathered() => Ok(()),
            Ok(_) => Box::pin(self.gather()).await,
            Err(fault) => Err(cut(fault)),
        }
    }

    /// The same for one that has to be waited for.
    async fn gather(&mut self) -> Result<(), ProxyFailure> {
        let Some(request) = self.begun.request.as_mut() else { return Ok(()) };
        let body = request.body_mut();
        if let Ok(gathered) = timeout(HAS_COME, body.gather(GATHERED)).await {
            gathered.map_err(cut)?;
            if body.is_gathered() {
                return Ok(());
            }
        }
        // What is refused in any case is refused now.
        self.proxy.door.peek(&self.begun.asked.host).await.map_err(ProxyFailure::Refused)?;
        body.gather(GATHERED).await.map_err(cut)?;
        body.spool(&self.settings.spool).await.map_err(cut)?;
        // As if it had come now: how long it may be held is another matter.
        self.begun.started = Instant::now();
        self.begun.came = self.begun.started;
        Ok(())
    }

    /// Makes ready to send it once more, or says why not.
    async fn may_go_on(&mut self, sent: SendOutcome, pass: Box<dyn Pass>) -> Option<ProxyFailure> {
        let run = pass.gate().run;
        // Given back first: with the pass held, the service would take the instance for one in use.
        drop(pass);
        match sent {
            SendOutcome::Broke(Some(same)) if self.begun.repeatable && self.has_died(run).await => {
                (self.begun.request, self.begun.repeatable) = (Some(same), false);
                None
            }
            SendOutcome::Answer(_) | SendOutcome::Broke(_) => Some(ProxyFailure::Broke),
            SendOutcome::No(failure) => Some(failure),
            SendOutcome::Again(same) => {
                self.begun.request = Some(same);
                if self.begun.started.elapsed() >= self.settings.wake_timeout {
                    return Some(ProxyFailure::Unreachable);
                }
                tokio::time::sleep(self.begun.pause).await;
                self.begun.pause = (self.begun.pause * 2).min(PAUSE_MAX);
                None
            }
        }
    }

    async fn is_not_awake(&self) -> bool {
        match self.proxy.door.peek(&self.begun.asked.host).await {
            Ok(Phase::Awake) | Err(_) => false,
            Ok(_) => true,
        }
    }

    /// Has this run died? An instance that lives and breaks a connection has answered in its way.
    async fn has_died(&self, run: u64) -> bool {
        let looked = timeout(DEATH_KNOWN, async {
            // Knocking as a look would: it wakes nobody and does not count as use.
            let look = Verdict { wake: false, counts: false };
            while let Ok(Knock::Open(pass)) = self.proxy.door.knock(&self.begun.asked.host, look).await {
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
    async fn enter(&mut self) -> EntryOutcome {
        if let Some(pass) = self.proxy.door.pass_now(&self.begun.asked.host, self.begun.asked.verdict) {
            self.begun.entered = true;
            return EntryOutcome::Pass(pass);
        }
        let ago = self.begun.ago.take().unwrap_or_else(|| self.begun.came.elapsed());
        let caller = Caller { ago, client: self.begun.asked.origin.client };
        let mut waiting = match self.proxy.door.knock_for(&self.begun.asked.host, self.begun.asked.verdict, caller).await {
            Ok(Knock::Open(pass)) => {
                self.begun.entered = true;
                return EntryOutcome::Pass(pass);
            }
            Ok(Knock::Wait(waiting)) => waiting,
            Err(refusal) => return EntryOutcome::No(ProxyFailure::Refused(refusal)),
        };
        self.begun.entered = true;
        let page_at = self.begun.started + self.settings.page_after;
        let last = self.begun.started + self.settings.stop_limit + self.settings.wake_timeout + MARGIN;
        let until = if self.begun.asked.navigation { page_at.min(last) } else { last };
        let waited = timeout_at(until, waiting.pass()).await;
        self.begun.held = Some(self.begun.started.elapsed());
        match waited {
            Ok(Ok(pass)) => {
                // The run that another edge has tried is gone: this is the next one, and the second to have it. Without a wait it may
                // be the same run, which is just dying.
                self.begun.repeatable &= self.begun.asked.tried == Tried::Nothing;
                EntryOutcome::Pass(pass)
            }
            Ok(Err(refusal)) => EntryOutcome::No(ProxyFailure::Refused(refusal)),
            Err(_) if self.begun.asked.navigation => EntryOutcome::Page(waiting.name()),
            Err(_) => EntryOutcome::No(ProxyFailure::Refused(Refusal::TooSlow)),
        }
    }

    /// Sends it; what must not be sent twice is noted first.
    async fn send(&mut self, pass: &mut dyn Pass) -> SendOutcome {
        let Some(request) = self.begun.request.take() else { return SendOutcome::No(ProxyFailure::Broke) };
        let noted = match (&self.proxy.sent, self.begun.asked.id) {
            (Some(sent), Some(id)) if !is_safe(request.method()) => ReplayNote::note(sent, id),
            _ => Ok(None),
        };
        let noted = match noted {
            Ok(noted) => noted,
            Err(error) => {
                // Then it is not served rather than perhaps served twice.
                tracing::warn!(%error, "could not note that a request is sent");
                return SendOutcome::No(ProxyFailure::Unreachable);
            }
        };
        let sent = self.proxy.upstreams.request(pass.gate(), request).await;
        let outcome = self.outcome(pass, sent);
        if let (SendOutcome::Again(_), Some(noted)) = (&outcome, noted) {
            noted.unseen();
        }
        outcome
    }

    fn outcome(&mut self, pass: &dyn Pass, outcome: Result<Response<ReceiveBody>, UpstreamError>) -> SendOutcome {
        match outcome {
            Ok(response) => SendOutcome::Answer(response),
            Err(UpstreamError::Connect { request, reads, source }) => {
                self.begun.reads += reads;
                tracing::debug!(instance = %pass.gate().name, error = %source, "no connection to an awake instance");
                SendOutcome::Again(request)
            }
            Err(UpstreamError::Broken { source, again, began, reads, .. }) => match self.begun.flag.get() {
                Some(fault) => SendOutcome::No(cut(fault)),
                None if began => {
                    tracing::info!(instance = %pass.gate().name, error = %source, "an instance's answer cannot be read");
                    SendOutcome::No(ProxyFailure::BadAnswer)
                }
                None => {
                    tracing::info!(instance = %pass.gate().name, error = %source, "an instance broke a request");
                    self.begun.reads += reads;
                    SendOutcome::Broke(again.filter(|_| self.begun.reads < READS))
                }
            },
        }
    }

    fn answer(&mut self, response: Response<ReceiveBody>, pass: Box<dyn Pass>) -> Response<ResponseBody> {
        let (mut head, body) = response.into_parts();
        let course = self.course(head.status);
        let line = match (&self.proxy.log, self.begun.draft.take()) {
            (Some(log), Some(draft)) => Some(log.line(draft, &pass.gate().name, head.status, course)),
            _ => None,
        };
        let pass = RequestSlot::with(self.begun.place.take(), pass);
        let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
        headers::to_client(&mut head.headers, switching);
        head.version = Version::HTTP_11;
        let mut answer = match (switching, self.begun.upgrade.take()) {
            (false, _) => {
                let events = headers::is_event_stream(&head.headers);
                let gathers = self.begun.front == Front::Public && !headers::is_unbuffered(&mut head.headers);
                if events && self.begun.front == Front::Wake {
                    // nginx must not gather it, however it ends.
                    head.headers.entry(headers::X_ACCEL_BUFFERING).or_insert(HeaderValue::from_static("no"));
                }
                let flow = match self.begun.front {
                    _ if events => Flow::Events,
                    Front::Public if gathers => Flow::Ahead(self.settings.spool.clone()),
                    // nginx reads ahead by itself.
                    Front::Public | Front::Wake => Flow::Plain,
                };
                Response::from_parts(head, ResponseBody::forwarded(body, pass, line, flow))
            }
            (true, Some(client)) => {
                let silence = self.settings.silent.map(|limit| upgrade::Silence {
                    limit,
                    door: self.proxy.door.clone(),
                    upstreams: self.proxy.upstreams.clone(),
                    host: self.begun.asked.host.clone(),
                    verdict: self.begun.asked.verdict,
                });
                let use_of = upgrade::InstanceUse::new(pass, silence);
                self.proxy.tunnels.spawn(upgrade::carry(client, body, use_of, line, self.proxy.cut.clone()));
                Response::from_parts(head, ResponseBody::empty())
            }
            // It switches although nobody asked for it.
            (true, None) => return self.fail(&ProxyFailure::Broke),
        };
        if self.begun.to_nginx {
            own_answers::tell(&mut answer, &course.to_string());
        }
        answer
    }

    /// What is written down of it.
    fn course(&self, status: StatusCode) -> Course {
        let PendingRequest { started, held, draft, to_nginx, .. } = &*self.begun;
        let wanted = draft.is_some() || *to_nginx;
        Course { held: *held, answer: wanted.then(|| (started.elapsed().saturating_sub(held.unwrap_or_default()), status)) }
    }

    fn fail(&self, failure: &ProxyFailure) -> Response<ResponseBody> {
        let reader = respond::Audience { navigation: self.begun.asked.navigation, host: self.begun.asked.host.as_str() };
        respond::failure(&self.proxy.pages, reader, failure)
    }
}

/// A client's body was not taken to its end.
fn cut(fault: BodyFault) -> ProxyFailure {
    match fault {
        BodyFault::TooLarge => ProxyFailure::TooLarge,
        BodyFault::Stalled => ProxyFailure::BodyStalled,
        BodyFault::Client => ProxyFailure::Malformed("the request's body is broken"),
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
