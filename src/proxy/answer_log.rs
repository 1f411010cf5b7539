//! Logs the responses of acc itself: each has a line in the log of the requested instance. If nginx
//! writes the log, acc reports to it what nginx cannot know.
//!
//! It never logs a request for no instance. A response of acc's counts as use of the application
//! only if the request was let through to it, or held for it.

use hyper::body::Body;
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};

use super::access_log::{LineDraft, Timings};
use super::context::Proxy;
use super::failure::ProxyFailure;
use super::nginx_headers::X_ACC_LOG;
use super::pending::PendingRequest;
use super::respond::{self, Audience};
use super::response_body::ResponseBody;
use crate::domain::name::HostName;

/// The client closed before there was a response: nginx's own status for that.
fn client_left() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT)
}

impl PendingRequest {
    /// Refuses a request at once; returns the response, logged.
    pub(super) fn refused(
        mut self,
        proxy: &Proxy,
        failure: &ProxyFailure,
    ) -> Response<ResponseBody> {
        let audience = Audience {
            navigation: self.parsed.navigation,
            host: self.parsed.host.as_str(),
        };
        let mut response = respond::failure(&proxy.pages, audience, failure);
        self.log_answer(proxy, &mut response);
        response
    }

    /// Logs a response of acc's own, or reports it to nginx. Those of the application were logged
    /// before.
    pub(super) fn log_answer(&mut self, proxy: &Proxy, response: &mut Response<ResponseBody>) {
        let timings = Timings {
            held: self.held,
            answer: None,
        };
        if self.to_nginx && !response.headers().contains_key(X_ACC_LOG) {
            // nginx removes the word again and does not count such a request.
            let refused = if self.admitted { "" } else { " refused" };
            report_to_nginx(response, &format!("{timings}{refused}"));
        }
        if let Some(mut log_draft) = self.log_draft.take() {
            if !self.admitted {
                log_draft.does_not_count();
            }
            proxy.log_own_answer(
                log_draft,
                &self.parsed.host,
                response.status(),
                timings,
                length(response),
            );
        }
    }

    /// At the end of a request: if no answer was logged, its client has closed.
    pub(super) fn log_without_answer(&mut self, proxy: &Proxy) {
        if let Some(log_draft) = self.log_draft.take() {
            proxy.log_own_answer(
                log_draft,
                &self.parsed.host,
                client_left(),
                Timings {
                    held: self.held,
                    answer: None,
                },
                0,
            );
        }
    }
}

impl Proxy {
    /// Logs a request that the application did not answer; `sent`: bytes of the body, which a
    /// response to HEAD does not have.
    pub(super) fn log_own_answer(
        &self,
        log_draft: LineDraft,
        host: &HostName,
        status: StatusCode,
        timings: Timings,
        sent: u64,
    ) {
        let Some(log) = self.log.clone() else {
            return;
        };
        let sent = if log_draft.is_bodiless() { 0 } else { sent };
        if let Some(name) = self.admission.known_name(host) {
            log.line(log_draft, &name, status, timings).sent = sent;
            return;
        }
        // The database is asked: neither this client nor the others of the thread wait for it.
        let (admission, host) = (self.admission.clone(), host.clone());
        self.upgraded.spawn(async move {
            if let Some(name) = admission.name_of(&host).await {
                log.line(log_draft, &name, status, timings).sent = sent;
            }
        });
    }
}

/// Tells nginx what to log.
pub(super) fn report_to_nginx(response: &mut Response<ResponseBody>, timings: &str) {
    if let Ok(value) = HeaderValue::try_from(timings) {
        response.headers_mut().insert(X_ACC_LOG, value);
    }
}

fn length(response: &Response<ResponseBody>) -> u64 {
    response.body().size_hint().exact().unwrap_or(0)
}
