//! Builds the responses of the demo application: a text, JSON, or empty. It decides nothing.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

/// The body of an answer.
pub(super) type DemoBody = UnsyncBoxBody<Bytes, Infallible>;

/// A short text.
pub(super) fn text(status: StatusCode, text: &str) -> Response<DemoBody> {
    let mut answer = Response::new(Full::new(Bytes::from(text.to_owned())).boxed_unsync());
    *answer.status_mut() = status;
    with_type(answer, "text/plain; charset=utf-8")
}

/// No body.
pub(super) fn status_only(status: StatusCode) -> Response<DemoBody> {
    let mut answer = Response::new(http_body_util::Empty::new().boxed_unsync());
    *answer.status_mut() = status;
    answer
}

/// A JSON value and a newline.
pub(super) fn json_answer(value: &Value) -> Response<DemoBody> {
    with_type(
        Response::new(Full::new(Bytes::from(format!("{value}\n"))).boxed_unsync()),
        "application/json",
    )
}

/// Sets the content type and forbids caching.
pub(super) fn with_type(mut answer: Response<DemoBody>, kind: &'static str) -> Response<DemoBody> {
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
