//! Responses that acc gives instead of an instance: failures, the waiting page, and their common
//! headers.
//!
//! No cache may keep one. A browser's navigation gets a small page, every other client
//! `application/problem+json` (RFC 9457).

use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::failure::{FailureAnswer, ProxyFailure};
use super::response_body::ResponseBody;
use crate::render::pages::{ErrorPage, Pages, WaitingPage};

/// Where the waiting page gets the events of the wake.
pub const WAKE_PATH: &str = "/.well-known/acc/wake";

/// Who will read a response.
#[derive(Debug, Clone, Copy)]
pub struct Audience<'a> {
    /// A person at a browser.
    pub navigation: bool,
    /// The requested host; empty if unknown.
    pub host: &'a str,
}

impl Audience<'_> {
    /// For a request that cannot be parsed.
    pub const UNKNOWN: Audience<'static> = Audience {
        navigation: false,
        host: "",
    };
}

/// The response for a failure.
#[must_use]
pub fn failure(
    pages: &Pages,
    audience: Audience<'_>,
    failure: &ProxyFailure,
) -> Response<ResponseBody> {
    let answer = failure.answer();
    let (kind, text) = if audience.navigation {
        ("text/html; charset=utf-8", html(pages, audience, &answer))
    } else {
        ("application/problem+json", problem(audience, &answer))
    };
    let mut response = own(answer.status, kind, text);
    if let Some(seconds) = answer.retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if matches!(failure, ProxyFailure::Method) {
        response.headers_mut().insert(
            header::ALLOW,
            HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        );
    }
    // The rest of the body will not be read: the connection cannot be reused.
    if matches!(
        failure,
        ProxyFailure::TooLarge
            | ProxyFailure::BodyStalled
            | ProxyFailure::Method
            | ProxyFailure::Coding
    ) {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The page of an instance that is being woken: status 503, so that no cache and no crawler takes
/// it for the application's own.
#[must_use]
pub fn waiting(pages: &Pages, name: &str) -> Response<ResponseBody> {
    let text = pages.waiting(&WaitingPage {
        name,
        wake_path: WAKE_PATH,
    });
    let mut response = own(
        StatusCode::SERVICE_UNAVAILABLE,
        "text/html; charset=utf-8",
        text,
    );
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn html(pages: &Pages, audience: Audience<'_>, answer: &FailureAnswer) -> String {
    pages.error(&ErrorPage {
        status: answer.status.as_u16(),
        title: answer.title,
        detail: &answer.detail,
        host: audience.host,
        retry_after: answer.retry_after,
    })
}

fn problem(audience: Audience<'_>, answer: &FailureAnswer) -> String {
    let mut body = serde_json::json!({
        "type": "about:blank",
        "title": answer.title,
        "status": answer.status.as_u16(),
        "detail": answer.detail,
    });
    if !audience.host.is_empty() {
        body["instance"] = audience.host.into();
    }
    body.to_string()
}

/// A response of acc's own: never cached, and with a fixed content type.
pub(super) fn own(status: StatusCode, kind: &'static str, text: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::text(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    mark_own(headers);
    response
}

/// The response to acc's own check whether nginx answers: it is empty.
pub(super) fn empty() -> Response<ResponseBody> {
    own(StatusCode::NO_CONTENT, "text/plain", String::new())
}

/// Sets the headers of every response of acc's own.
pub(super) fn mark_own(headers: &mut hyper::HeaderMap) {
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::admission::Refusal;
    use crate::render::Templates;
    use http_body_util::BodyExt;
    use std::sync::Arc;

    fn all() -> Vec<(ProxyFailure, u16)> {
        use ProxyFailure::*;
        vec![
            (Refused(Refusal::UnknownHost), 404),
            (Refused(Refusal::Destroyed), 410),
            (Refused(Refusal::Disabled), 503),
            (Refused(Refusal::Creating), 503),
            (
                Refused(Refusal::Failed {
                    reason: "ended at start",
                    retry_s: 7,
                }),
                503,
            ),
            (Refused(Refusal::MayNotWake), 503),
            (Refused(Refusal::TooManyWaiting), 503),
            (Refused(Refusal::TooManyWakes { retry_s: 2 }), 429),
            (TooMany, 429),
            (Refused(Refusal::TooSlow), 504),
            (Refused(Refusal::StillStopping), 504),
            (Refused(Refusal::Halting), 503),
            (Refused(Refusal::Broken), 503),
            (Malformed("no host"), 400),
            (Method, 405),
            (Coding, 501),
            (TooLarge, 413),
            (BodyStalled, 408),
            (Broke, 502),
            (BadAnswer, 502),
            (Unreachable, 502),
            (MaybeSeen, 502),
            (NoAnswer, 504),
        ]
    }

    async fn read(response: Response<ResponseBody>) -> (hyper::http::response::Parts, String) {
        let (head, body) = response.into_parts();
        (
            head,
            String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap(),
        )
    }

    #[tokio::test]
    async fn every_failure_has_its_status_its_words_and_no_cache() {
        let pages = Pages::new(Arc::new(Templates::new(None).unwrap())).unwrap();
        for (case, status) in all() {
            for navigation in [false, true] {
                let (head, text) = read(failure(
                    &pages,
                    Audience {
                        navigation,
                        host: "a.org",
                    },
                    &case,
                ))
                .await;
                assert_eq!(head.status.as_u16(), status, "{case:?}");
                assert_eq!(head.headers["cache-control"], "no-store", "{case:?}");
                assert_eq!(
                    head.headers.contains_key("retry-after"),
                    matches!(status, 429 | 503 | 504),
                    "{case:?}"
                );
                if navigation {
                    assert_eq!(head.headers["content-type"], "text/html; charset=utf-8");
                    assert!(text.contains("<!doctype html>"));
                } else {
                    assert_eq!(head.headers["content-type"], "application/problem+json");
                    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(json["type"], "about:blank");
                    assert_eq!(json["status"], status);
                    assert_eq!(json["instance"], "a.org");
                    assert!(
                        !json["title"].as_str().unwrap().is_empty()
                            && !json["detail"].as_str().unwrap().is_empty(),
                        "{case:?}"
                    );
                }
            }
        }
    }

    #[tokio::test]
    async fn a_failure_gives_its_reasons_name_and_time() {
        let pages = Pages::new(Arc::new(Templates::new(None).unwrap())).unwrap();
        let case = ProxyFailure::Refused(Refusal::Failed {
            reason: "ended at start",
            retry_s: 7,
        });
        let (head, text) = read(failure(
            &pages,
            Audience {
                navigation: false,
                host: "",
            },
            &case,
        ))
        .await;
        assert_eq!(head.headers["retry-after"], "7");
        assert!(text.contains("ended at start"), "{text}");
        assert!(!text.contains("instance"), "{text}");
    }
}
