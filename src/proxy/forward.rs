//! From the door to the instance and back: knock, wait with the body unread, send, and go on when the instance turns out to
//! be gone before it saw anything.
//!
//! It never sends a request twice that the instance may have seen, safe ones apart: those `driver::upstream` sends again on
//! a new connection, or this file to the next run when the instance has died with them. No request is read more than [`READS`] times,
//! the edge before acc and all runs together, nor once more when an answer has pending.

use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::{Request, Response, StatusCode, Version};
use tokio::time::{Instant, timeout, timeout_at};

use super::access_log::Course;
use super::connection_limits::RequestSlot;
use super::context::Proxy;
use super::failure::ProxyFailure;
use super::front::Front;
use super::pending::PendingRequest;
use super::replay_notes::ReplayNote;
use super::request::{Tried, is_safe};
use super::response_body::{Flow, ResponseBody};
use super::settings::ProxySettings;
use super::{headers, own_answers, respond, upgrade, wake_events};
use crate::domain::admission::Refusal;
use crate::domain::lifecycle::Phase;
use crate::domain::rule::Verdict;
use crate::driver::upstream::{BodyFault, ReceiveBody, SendBody, UpstreamError};
use crate::service::door::{Caller, Knock, Pass};

/// The service ends a wait by itself; this much later acc stops trusting it to.
const MARGIN: Duration = Duration::from_secs(5);
/// Longest pause before another try when an awake instance could not be connected to.
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

/// One request on its way.
pub(super) struct Forwarding<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) settings: &'a ProxySettings,
    pub(super) pending: &'a mut PendingRequest,
}

impl Forwarding<'_> {
    /// Serves the request, one way or another.
    pub(super) async fn go(mut self) -> Response<ResponseBody> {
        if self.pending.follows && self.is_not_awake().await {
            return wake_events::report(self.proxy.door.clone(), self.pending.asked.host.clone(), self.settings.wake_timeout);
        }
        if self.pending.to_gather
            && !self.pending.expects
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
            if self.pending.to_gather {
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
        self.pending.to_gather = false;
        let Some(request) = self.pending.request.as_mut() else { return Ok(()) };
        match request.body_mut().gather_at_once(GATHERED).await {
            Ok(true) if request.body().is_gathered() => Ok(()),
            Ok(_) => Box::pin(self.gather()).await,
            Err(fault) => Err(cut(fault)),
        }
    }

    /// The same for one that has to be waited for.
    async fn gather(&mut self) -> Result<(), ProxyFailure> {
        let Some(request) = self.pending.request.as_mut() else { return Ok(()) };
        let body = request.body_mut();
        if let Ok(gathered) = timeout(HAS_COME, body.gather(GATHERED)).await {
            gathered.map_err(cut)?;
            if body.is_gathered() {
                return Ok(());
            }
        }
        // What is refused in any case is refused now.
        self.proxy.door.peek(&self.pending.asked.host).await.map_err(ProxyFailure::Refused)?;
        body.gather(GATHERED).await.map_err(cut)?;
        body.spool(&self.settings.spool).await.map_err(cut)?;
        // As if it had come now: how long it may be held is another matter.
        self.pending.started = Instant::now();
        self.pending.came = self.pending.started;
        Ok(())
    }

    /// Makes ready to send it once more, or says why not.
    async fn may_go_on(&mut self, sent: SendOutcome, pass: Box<dyn Pass>) -> Option<ProxyFailure> {
        let run = pass.gate().run;
        // Given back first: with the pass held, the service would take the instance for one in use.
        drop(pass);
        match sent {
            SendOutcome::Broke(Some(same)) if self.pending.repeatable && self.has_died(run).await => {
                (self.pending.request, self.pending.repeatable) = (Some(same), false);
                None
            }
            SendOutcome::Answer(_) | SendOutcome::Broke(_) => Some(ProxyFailure::Broke),
            SendOutcome::No(failure) => Some(failure),
            SendOutcome::Again(same) => {
                self.pending.request = Some(same);
                if self.pending.started.elapsed() >= self.settings.wake_timeout {
                    return Some(ProxyFailure::Unreachable);
                }
                tokio::time::sleep(self.pending.pause).await;
                self.pending.pause = (self.pending.pause * 2).min(PAUSE_MAX);
                None
            }
        }
    }

    async fn is_not_awake(&self) -> bool {
        match self.proxy.door.peek(&self.pending.asked.host).await {
            Ok(Phase::Awake) | Err(_) => false,
            Ok(_) => true,
        }
    }

    /// Has this run died? An instance that lives and breaks a connection has answered in its way.
    async fn has_died(&self, run: u64) -> bool {
        let looked = timeout(DEATH_KNOWN, async {
            // Knocking as a look would: it wakes nobody and does not count as use.
            let look = Verdict { wake: false, counts: false };
            while let Ok(Knock::Open(pass)) = self.proxy.door.knock(&self.pending.asked.host, look).await {
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
        if let Some(pass) = self.proxy.door.pass_now(&self.pending.asked.host, self.pending.asked.verdict) {
            self.pending.entered = true;
            return EntryOutcome::Pass(pass);
        }
        let ago = self.pending.ago.take().unwrap_or_else(|| self.pending.came.elapsed());
        let caller = Caller { ago, client: self.pending.asked.origin.client };
        let mut waiting = match self.proxy.door.knock_for(&self.pending.asked.host, self.pending.asked.verdict, caller).await {
            Ok(Knock::Open(pass)) => {
                self.pending.entered = true;
                return EntryOutcome::Pass(pass);
            }
            Ok(Knock::Wait(waiting)) => waiting,
            Err(refusal) => return EntryOutcome::No(ProxyFailure::Refused(refusal)),
        };
        self.pending.entered = true;
        let page_at = self.pending.started + self.settings.page_after;
        let last = self.pending.started + self.settings.stop_limit + self.settings.wake_timeout + MARGIN;
        let until = if self.pending.asked.navigation { page_at.min(last) } else { last };
        let waited = timeout_at(until, waiting.pass()).await;
        self.pending.held = Some(self.pending.started.elapsed());
        match waited {
            Ok(Ok(pass)) => {
                // The run that another edge has tried is gone: this is the next one, and the second to have it. Without a wait it may
                // be the same run, which is just dying.
                self.pending.repeatable &= self.pending.asked.tried == Tried::Nothing;
                EntryOutcome::Pass(pass)
            }
            Ok(Err(refusal)) => EntryOutcome::No(ProxyFailure::Refused(refusal)),
            Err(_) if self.pending.asked.navigation => EntryOutcome::Page(waiting.name()),
            Err(_) => EntryOutcome::No(ProxyFailure::Refused(Refusal::TooSlow)),
        }
    }

    /// Sends it; what must not be sent twice is noted first.
    async fn send(&mut self, pass: &mut dyn Pass) -> SendOutcome {
        let Some(request) = self.pending.request.take() else { return SendOutcome::No(ProxyFailure::Broke) };
        let noted = match (&self.proxy.replay_notes, self.pending.asked.id) {
            (Some(notes), Some(id)) if !is_safe(request.method()) => ReplayNote::note(notes, id),
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
                self.pending.reads += reads;
                tracing::debug!(instance = %pass.gate().name, error = %source, "no connection to an awake instance");
                SendOutcome::Again(request)
            }
            Err(UpstreamError::Broken { source, again, began, reads, .. }) => match self.pending.flag.get() {
                Some(fault) => SendOutcome::No(cut(fault)),
                None if began => {
                    tracing::info!(instance = %pass.gate().name, error = %source, "an instance's answer cannot be read");
                    SendOutcome::No(ProxyFailure::BadAnswer)
                }
                None => {
                    tracing::info!(instance = %pass.gate().name, error = %source, "an instance broke a request");
                    self.pending.reads += reads;
                    SendOutcome::Broke(again.filter(|_| self.pending.reads < READS))
                }
            },
        }
    }

    fn answer(&mut self, response: Response<ReceiveBody>, pass: Box<dyn Pass>) -> Response<ResponseBody> {
        let (mut head, body) = response.into_parts();
        let course = self.course(head.status);
        let line = match (&self.proxy.log, self.pending.draft.take()) {
            (Some(log), Some(draft)) => Some(log.line(draft, &pass.gate().name, head.status, course)),
            _ => None,
        };
        let pass = RequestSlot::with(self.pending.place.take(), pass);
        let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
        headers::to_client(&mut head.headers, switching);
        head.version = Version::HTTP_11;
        let mut answer = match (switching, self.pending.upgrade.take()) {
            (false, _) => {
                let events = headers::is_event_stream(&head.headers);
                let gathers = self.pending.front == Front::Public && !headers::is_unbuffered(&mut head.headers);
                if events && self.pending.front == Front::Wake {
                    // nginx must not gather it, however it ends.
                    head.headers.entry(headers::X_ACCEL_BUFFERING).or_insert(HeaderValue::from_static("no"));
                }
                let flow = match self.pending.front {
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
                    host: self.pending.asked.host.clone(),
                    verdict: self.pending.asked.verdict,
                });
                let use_of = upgrade::InstanceUse::new(pass, silence);
                self.proxy.upgraded.spawn(upgrade::carry(client, body, use_of, line, self.proxy.cut.clone()));
                Response::from_parts(head, ResponseBody::empty())
            }
            // It switches although nobody asked for it.
            (true, None) => return self.fail(&ProxyFailure::Broke),
        };
        if self.pending.to_nginx {
            own_answers::tell(&mut answer, &course.to_string());
        }
        answer
    }

    /// What is written down of it.
    fn course(&self, status: StatusCode) -> Course {
        let PendingRequest { started, held, draft, to_nginx, .. } = &*self.pending;
        let wanted = draft.is_some() || *to_nginx;
        Course { held: *held, answer: wanted.then(|| (started.elapsed().saturating_sub(held.unwrap_or_default()), status)) }
    }

    fn fail(&self, failure: &ProxyFailure) -> Response<ResponseBody> {
        let reader = respond::Audience { navigation: self.pending.asked.navigation, host: self.pending.asked.host.as_str() };
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
