//! Answers that acc gives by itself, on their way out: each has its line in the log of the instance that was asked for. Where
//! nginx writes the log, it is told what it cannot know.
//!
//! It never writes down a request for no instance, and never takes an answer of acc's own for use of the application, unless the
//! request had been let through to it, or held for it.

use hyper::body::Body;
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};

use super::access_log::{Course, Draft};
use super::context::Proxy;
use super::failure::ProxyFailure;
use super::nginx_headers::X_ACC_LOG;
use super::pending::PendingRequest;
use super::respond::{self, Audience};
use super::response_body::ResponseBody;
use crate::domain::name::HostName;

/// The client left before there was an answer: nginx's own status for it.
fn client_left() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT)
}

impl PendingRequest {
    /// The answer to a request that is not let in at all.
    pub(super) fn refused(mut self, proxy: &Proxy, failure: &ProxyFailure) -> Response<ResponseBody> {
        let reader = Audience { navigation: self.asked.navigation, host: self.asked.host.as_str() };
        let mut response = respond::failure(&proxy.pages, reader, failure);
        self.note(proxy, &mut response);
        response
    }

    /// Writes an answer down, or tells nginx of it, if that was not done with the application's.
    pub(super) fn note(&mut self, proxy: &Proxy, response: &mut Response<ResponseBody>) {
        let course = Course { held: self.held, answer: None };
        if self.to_nginx && !response.headers().contains_key(X_ACC_LOG) {
            // nginx leaves the word out, and goes by it.
            let refused = if self.entered { "" } else { " refused" };
            tell(response, &format!("{course}{refused}"));
        }
        if let Some(mut draft) = self.draft.take() {
            if !self.entered {
                draft.is_no_use();
            }
            proxy.note(draft, &self.asked.host, response.status(), course, length(response));
        }
    }

    /// Its client has left, or there was an answer.
    pub(super) fn ended(&mut self, proxy: &Proxy) {
        if let Some(draft) = self.draft.take() {
            proxy.note(draft, &self.asked.host, client_left(), Course { held: self.held, answer: None }, 0);
        }
    }
}

impl Proxy {
    /// Writes a request down that the application has not answered; `sent`: bytes of body, but to HEAD.
    pub(super) fn note(&self, draft: Draft, host: &HostName, status: StatusCode, course: Course, sent: u64) {
        let Some((log, name)) = self.log.as_ref().and_then(|log| Some((log, self.door.name_of(host)?))) else { return };
        let sent = if draft.is_bodiless() { 0 } else { sent };
        log.line(draft, &name, status, course).sent = sent;
    }
}

/// Tells nginx what is to be written down.
pub(super) fn tell(response: &mut Response<ResponseBody>, course: &str) {
    if let Ok(value) = HeaderValue::try_from(course) {
        response.headers_mut().insert(X_ACC_LOG, value);
    }
}

fn length(response: &Response<ResponseBody>) -> u64 {
    response.body().size_hint().exact().unwrap_or(0)
}
