//! Forwards a request: gets a ticket from the service, waits with the body unread, sends it, and
//! tries again if the instance ended before it read anything.
//!
//! It never sends a request twice that the instance may have read, except safe ones:
//! `driver::upstream` repeats those on a new connection, and this file sends them to the next run
//! if the instance has died with them. Instances read no request more than [`MAX_READS`] times,
//! counting tries of the edge before acc and all runs, and never again once a response has begun.

use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::{Request, Response, StatusCode, Version};
use tokio::time::{Instant, timeout, timeout_at};

use super::access_log::Timings;
use super::connection_limits::RequestSlot;
use super::context::Proxy;
use super::failure::ProxyFailure;
use super::front::Front;
use super::pending::PendingRequest;
use super::request::{Tried, is_safe};
use super::response_body::{Delivery, ResponseBody};
use super::settings::ProxySettings;
use super::{answer_log, headers, respond, upgrade, wake_events};
use crate::domain::admission::Refusal;
use crate::domain::lifecycle::Phase;
use crate::domain::rule::Verdict;
use crate::driver::upstream::{BodyFault, ReceiveBody, SendBody, UpstreamError};
use crate::service::admission::{Admitted, Caller, Ticket};

/// The service ends a wait by itself; the proxy does this much later.
const MARGIN: Duration = Duration::from_secs(5);
/// Longest pause before another try when an awake instance could not be connected to.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// How often instances may read a request that is safe.
const MAX_READS: u8 = 2;

/// This much of a body is read into memory before an instance is asked.
const BODY_IN_MEMORY: usize = 64 * 1024;
/// A body that was sent together with its head arrives within this.
const BODY_COMES_WITH_HEAD: Duration = Duration::from_millis(5);

/// acc notices a death a moment after the connections have broken.
const DEATH_NOTICED_WITHIN: Duration = Duration::from_millis(250);
/// Pause between two checks for it.
const CHECK_EVERY: Duration = Duration::from_millis(5);

/// The result of asking for a ticket.
enum EntryOutcome {
    Admitted(Box<dyn Ticket>),
    /// A person has waited long enough for a page; the name of the instance.
    Page(String),
    Failure(ProxyFailure),
}

/// The result of sending.
enum SendOutcome {
    Answer(Response<ReceiveBody>),
    /// The instance never read it.
    NotSeen(Box<Request<SendBody>>),
    /// The instance broke the connection; with a copy of the request if it may be sent twice.
    Broke(Option<Box<Request<SendBody>>>),
    Failure(ProxyFailure),
}

/// One request on its way.
pub(super) struct Forwarding<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) settings: &'a ProxySettings,
    pub(super) pending: &'a mut PendingRequest,
}

impl Forwarding<'_> {
    /// Forwards the request and returns the response, or one of acc's own.
    pub(super) async fn run(mut self) -> Response<ResponseBody> {
        if self.pending.follows_wake && self.is_not_awake().await {
            return wake_events::stream(
                self.proxy.admission.clone(),
                self.pending.parsed.host.clone(),
                self.settings.wake_timeout,
            );
        }
        if self.pending.body_unread
            && !self.pending.expects_continue
            && let Err(failure) = self.read_body().await
        {
            return self.fail(&failure);
        }
        loop {
            let mut ticket = match self.admit_or_wait().await {
                EntryOutcome::Admitted(ticket) => ticket,
                EntryOutcome::Page(name) => return respond::waiting(&self.proxy.pages, &name),
                EntryOutcome::Failure(failure) => return self.fail(&failure),
            };
            if self.pending.body_unread {
                // Its client sends the body only now, at its own pace: the ticket is not kept
                // meanwhile.
                drop(ticket);
                match self.read_body().await {
                    Ok(()) => continue,
                    Err(failure) => return self.fail(&failure),
                }
            }
            let sent = self.send(&mut *ticket).await;
            if let SendOutcome::Answer(response) = sent {
                return self.respond_with(response, ticket);
            }
            // Boxed because it is rare: otherwise the future of every request would have room for
            // it.
            if let Some(failure) = Box::pin(self.prepare_retry(sent, ticket)).await {
                return self.fail(&failure);
            }
        }
    }

    /// Reads the body before the instance is asked, as far as there is room: a slow client uses
    /// neither a start nor a ticket. The body is nearly always short and complete already.
    async fn read_body(&mut self) -> Result<(), ProxyFailure> {
        self.pending.body_unread = false;
        let Some(request) = self.pending.request.as_mut() else {
            return Ok(());
        };
        match request.body_mut().gather_at_once(BODY_IN_MEMORY).await {
            Ok(true) if request.body().is_gathered() => Ok(()),
            Ok(_) => Box::pin(self.wait_for_body()).await,
            Err(fault) => Err(body_failure(fault)),
        }
    }

    /// The same for a body that has not arrived yet.
    async fn wait_for_body(&mut self) -> Result<(), ProxyFailure> {
        let Some(request) = self.pending.request.as_mut() else {
            return Ok(());
        };
        let body = request.body_mut();
        if let Ok(gathered) = timeout(BODY_COMES_WITH_HEAD, body.gather(BODY_IN_MEMORY)).await {
            gathered.map_err(body_failure)?;
            if body.is_gathered() {
                return Ok(());
            }
        }
        // A request that will be refused is refused before its body is read.
        self.proxy
            .admission
            .peek(&self.pending.parsed.host)
            .await
            .map_err(ProxyFailure::Refused)?;
        body.gather(BODY_IN_MEMORY).await.map_err(body_failure)?;
        body.spool(&self.settings.spool)
            .await
            .map_err(body_failure)?;
        // Counts as arrived now: the time limit for holding it does not depend on its client.
        self.pending.started = Instant::now();
        Ok(())
    }

    /// Prepares to send the request again. A failure: it is not sent again.
    async fn prepare_retry(
        &mut self,
        sent: SendOutcome,
        ticket: Box<dyn Ticket>,
    ) -> Option<ProxyFailure> {
        let run = ticket.gate().run;
        // Returned first: otherwise the service would count the instance as in use.
        drop(ticket);
        match sent {
            SendOutcome::Broke(Some(same))
                if self.pending.retryable && self.has_died(run).await =>
            {
                (self.pending.request, self.pending.retryable) = (Some(same), false);
                None
            }
            SendOutcome::Answer(_) | SendOutcome::Broke(_) => Some(ProxyFailure::Broke),
            SendOutcome::Failure(failure) => Some(failure),
            SendOutcome::NotSeen(same) => {
                self.pending.request = Some(same);
                if self.pending.started.elapsed() >= self.settings.wake_timeout {
                    return Some(ProxyFailure::Unreachable);
                }
                tokio::time::sleep(self.pending.retry_pause).await;
                self.pending.retry_pause = (self.pending.retry_pause * 2).min(PAUSE_MAX);
                None
            }
        }
    }

    async fn is_not_awake(&self) -> bool {
        match self.proxy.admission.peek(&self.pending.parsed.host).await {
            Ok(Phase::Awake) | Err(_) => false,
            Ok(_) => true,
        }
    }

    /// Whether this run has died. An instance that is alive and breaks a connection is not tried
    /// again.
    async fn has_died(&self, run: u64) -> bool {
        let died = timeout(DEATH_NOTICED_WITHIN, async {
            // Such a check wakes no instance and does not count as use.
            let check = Verdict {
                wake: false,
                counts: false,
            };
            while let Ok(Admitted::Open(ticket)) = self
                .proxy
                .admission
                .admit(&self.pending.parsed.host, check)
                .await
            {
                if ticket.gate().run != run {
                    return;
                }
                drop(ticket);
                tokio::time::sleep(CHECK_EVERY).await;
            }
        });
        died.await.is_ok()
    }

    /// Asks for a ticket and waits for it if necessary.
    async fn admit_or_wait(&mut self) -> EntryOutcome {
        if let Some(ticket) = self
            .proxy
            .admission
            .admit_now(&self.pending.parsed.host, self.pending.parsed.verdict)
        {
            self.pending.admitted = true;
            return EntryOutcome::Admitted(ticket);
        }
        let caller = Caller {
            client: self.pending.parsed.origin.client,
        };
        let mut waiting = match self
            .proxy
            .admission
            .admit_for(
                &self.pending.parsed.host,
                self.pending.parsed.verdict,
                caller,
            )
            .await
        {
            Ok(Admitted::Open(ticket)) => {
                self.pending.admitted = true;
                return EntryOutcome::Admitted(ticket);
            }
            Ok(Admitted::Wait(waiting)) => waiting,
            Err(refusal) => return EntryOutcome::Failure(ProxyFailure::Refused(refusal)),
        };
        self.pending.admitted = true;
        let page_at = self.pending.started + self.settings.page_after;
        let last =
            self.pending.started + self.settings.stop_limit + self.settings.wake_timeout + MARGIN;
        let until = if self.pending.parsed.navigation {
            page_at.min(last)
        } else {
            last
        };
        let waited = timeout_at(until, waiting.admitted()).await;
        self.pending.held = Some(self.pending.started.elapsed());
        match waited {
            Ok(Ok(ticket)) => {
                // The run that the edge tried has ended: this is the next one, and the second to
                // get the request. Without a wait it may be the same run, about to die.
                self.pending.retryable &= self.pending.parsed.tried == Tried::Nothing;
                EntryOutcome::Admitted(ticket)
            }
            Ok(Err(refusal)) => EntryOutcome::Failure(ProxyFailure::Refused(refusal)),
            Err(_) if self.pending.parsed.navigation => EntryOutcome::Page(waiting.name()),
            Err(_) => EntryOutcome::Failure(ProxyFailure::Refused(Refusal::TooSlow)),
        }
    }

    /// Sends the request; one that must not be sent twice is recorded first.
    async fn send(&mut self, ticket: &mut dyn Ticket) -> SendOutcome {
        let Some(request) = self.pending.request.take() else {
            return SendOutcome::Failure(ProxyFailure::Broke);
        };
        let noted = match (&self.proxy.replay_notes, &self.pending.parsed.id) {
            (Some(notes), Some(id)) if !is_safe(request.method()) => Some(notes.note(id)),
            _ => None,
        };
        let noted = match noted.transpose() {
            Ok(noted) => noted,
            Err(error) => {
                // Rather not served than possibly served twice.
                tracing::warn!(%error, "could not record that a request is sent");
                return SendOutcome::Failure(ProxyFailure::Unreachable);
            }
        };
        let sent = self.proxy.upstreams.request(ticket.gate(), request).await;
        let outcome = self.outcome(ticket, sent);
        if let (SendOutcome::NotSeen(_), Some(noted)) = (&outcome, noted) {
            noted.unseen();
        }
        outcome
    }

    /// Decides what the result of sending means for the request.
    fn outcome(
        &mut self,
        ticket: &dyn Ticket,
        outcome: Result<Response<ReceiveBody>, UpstreamError>,
    ) -> SendOutcome {
        match outcome {
            Ok(response) => SendOutcome::Answer(response),
            Err(UpstreamError::Connect {
                request,
                reads,
                source,
            }) => {
                self.pending.reads += reads;
                tracing::debug!(instance = %ticket.gate().name, error = %source, "no connection to an awake instance");
                SendOutcome::NotSeen(request)
            }
            Err(UpstreamError::Broken {
                source,
                again,
                began,
                reads,
                ..
            }) => match self.pending.body_fault.get() {
                Some(fault) => SendOutcome::Failure(body_failure(fault)),
                None if began => {
                    tracing::info!(instance = %ticket.gate().name, error = %source, "cannot read an instance's answer");
                    SendOutcome::Failure(ProxyFailure::BadAnswer)
                }
                None => {
                    tracing::info!(instance = %ticket.gate().name, error = %source, "an instance broke off a request");
                    self.pending.reads += reads;
                    SendOutcome::Broke(again.filter(|_| self.pending.reads < MAX_READS))
                }
            },
        }
    }

    /// The instance's response, as its client gets it.
    fn respond_with(
        &mut self,
        response: Response<ReceiveBody>,
        ticket: Box<dyn Ticket>,
    ) -> Response<ResponseBody> {
        let (mut head, body) = response.into_parts();
        let timings = self.timings(head.status);
        let line = match (&self.proxy.log, self.pending.log_draft.take()) {
            (Some(log), Some(log_draft)) => {
                Some(log.line(log_draft, &ticket.gate().name, head.status, timings))
            }
            _ => None,
        };
        let ticket = RequestSlot::with(self.pending.slot.take(), ticket);
        let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
        headers::to_client(&mut head.headers, switching);
        head.version = Version::HTTP_11;
        let mut answer = match (switching, self.pending.upgrade.take()) {
            (false, _) => {
                let events = headers::is_event_stream(&head.headers);
                let reads_ahead = self.pending.front == Front::Public
                    && !headers::is_unbuffered(&mut head.headers);
                if events && self.pending.front == Front::Wake {
                    // nginx must not buffer it, however it ends.
                    head.headers
                        .entry(headers::X_ACCEL_BUFFERING)
                        .or_insert(HeaderValue::from_static("no"));
                }
                let delivery = match self.pending.front {
                    _ if events => Delivery::EventStream,
                    Front::Public if reads_ahead => Delivery::ReadAhead(&self.settings.spool),
                    // nginx reads ahead itself.
                    Front::Public | Front::Wake => Delivery::AsRead,
                };
                Response::from_parts(head, ResponseBody::forwarded(body, ticket, line, delivery))
            }
            (true, Some(client)) => {
                let instance_use = upgrade::InstanceUse::new(ticket, self.silence_limit());
                self.proxy.upgraded.spawn(upgrade::run(
                    client,
                    body,
                    instance_use,
                    line,
                    self.proxy.cut.clone(),
                ));
                Response::from_parts(head, ResponseBody::empty())
            }
            // The instance switches protocols although the client did not ask for it.
            (true, None) => return self.fail(&ProxyFailure::Broke),
        };
        if self.pending.to_nginx {
            answer_log::report_to_nginx(&mut answer, &timings.to_string());
        }
        answer
    }

    /// When its connection, once upgraded, is too silent to count as use.
    fn silence_limit(&self) -> Option<upgrade::SilenceLimit> {
        self.settings.silent.map(|limit| upgrade::SilenceLimit {
            limit,
            admission: self.proxy.admission.clone(),
            upstreams: self.proxy.upstreams.clone(),
            host: self.pending.parsed.host.clone(),
            verdict: self.pending.parsed.verdict,
        })
    }

    /// The timings for its line in the access log.
    fn timings(&self, status: StatusCode) -> Timings {
        let PendingRequest {
            started,
            held,
            log_draft,
            to_nginx,
            ..
        } = &*self.pending;
        let logged = log_draft.is_some() || *to_nginx;
        Timings {
            held: *held,
            answer: logged.then(|| {
                (
                    started.elapsed().saturating_sub(held.unwrap_or_default()),
                    status,
                )
            }),
        }
    }

    fn fail(&self, failure: &ProxyFailure) -> Response<ResponseBody> {
        let audience = respond::Audience {
            navigation: self.pending.parsed.navigation,
            host: self.pending.parsed.host.as_str(),
        };
        respond::failure(&self.proxy.pages, audience, failure)
    }
}

/// A body that could not be read to its end.
fn body_failure(fault: BodyFault) -> ProxyFailure {
    match fault {
        BodyFault::TooLarge => ProxyFailure::TooLarge,
        BodyFault::Stalled => ProxyFailure::BodyStalled,
        BodyFault::Client => ProxyFailure::Malformed("the request's body is broken"),
    }
}
