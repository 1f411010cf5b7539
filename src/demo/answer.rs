//! The responses of the demo application, a function for each path.
//!
//! Every request is received completely before the response, frame by frame: a body of any length
//! is counted and hashed, and never kept.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::{DemoBody, json_answer, status_only, text, with_type};
use super::leave::leave;
use super::log::Log;
use super::websocket;

/// Time between two chunks of `/stream`.
const CHUNK_EVERY: Duration = Duration::from_millis(100);

/// What all connections share.
pub(super) struct DemoApp {
    name: String,
    started: jiff::Timestamp,
    requests: AtomicU64,
    log: Arc<Log>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// A completely received request body.
struct Received {
    length: u64,
    sha256: String,
}

impl DemoApp {
    pub(super) fn new(
        name: String,
        log: Arc<Log>,
        stopping: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            name,
            started: jiff::Timestamp::now(),
            requests: AtomicU64::new(0),
            log,
            stopping,
            tasks,
        }
    }

    /// Responds to one request. An incomplete body gets 400, although its client has gone.
    pub(super) async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<DemoBody>, Infallible> {
        let upgrade = (request.uri().path() == "/ws").then(|| hyper::upgrade::on(&mut request));
        let (head, body) = request.into_parts();
        let Ok(received) = receive(body).await else {
            return Ok(text(StatusCode::BAD_REQUEST, "the body is incomplete\n"));
        };
        let id = head
            .headers
            .get("x-id")
            .and_then(|v| v.to_str().ok())
            .unwrap_or("-");
        self.log.write("REQ", &format!("{} {id}", head.method));
        // Health checks are acc's: a visitor's first request is request 1.
        let counts = u64::from(head.uri.path() != "/health");
        let count = self.requests.fetch_add(counts, Ordering::Relaxed) + counts;
        let query = head.uri.query();
        Ok(match head.uri.path() {
            "/" => text(StatusCode::OK, &self.greeting(count)),
            "/echo" => json_answer(&echo(&head, &received)),
            "/headers" => json_answer(&Value::Object(headers_as_json(&head.headers))),
            "/health" => status_only(StatusCode::NO_CONTENT),
            "/slow" => {
                let wait = number(query, "ms").unwrap_or(0.0);
                tokio::time::sleep(Duration::from_secs_f64(wait / 1000.0)).await;
                text(StatusCode::OK, &self.greeting(count))
            }
            "/stream" => chunks(
                number(query, "seconds").unwrap_or(1.0),
                field(query, "kind") == Some("sse"),
            ),
            "/ws" => match upgrade {
                Some(upgrade) => websocket::accept(
                    &head.headers,
                    upgrade,
                    &self.log,
                    &self.stopping,
                    &self.tasks,
                ),
                None => text(StatusCode::BAD_REQUEST, "not an upgrade\n"),
            },
            "/crash" => leave(3),
            _ => text(StatusCode::NOT_FOUND, "no such page\n"),
        })
    }

    fn greeting(&self, count: u64) -> String {
        format!(
            "name: {}\npid: {}\nstarted: {}\nrequests: {count}\n",
            self.name,
            std::process::id(),
            self.started
        )
    }
}

/// Reads the body to its end, counting and hashing.
async fn receive(mut body: Incoming) -> Result<Received, hyper::Error> {
    let mut hash = Sha256::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            length += data.len() as u64;
            hash.update(&data);
        }
    }
    let mut sha256 = String::with_capacity(64);
    for byte in hash.finalize() {
        let _ = write!(sha256, "{byte:02x}");
    }
    Ok(Received { length, sha256 })
}

fn echo(head: &hyper::http::request::Parts, received: &Received) -> Value {
    json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "length": received.length,
        "sha256": received.sha256,
        "headers": headers_as_json(&head.headers),
    })
}

/// Each name once; several values of one name are joined with ", ", as HTTP allows.
fn headers_as_json(headers: &HeaderMap) -> Map<String, Value> {
    let joined = |name| {
        headers
            .get_all(name)
            .iter()
            .map(|v| String::from_utf8_lossy(v.as_bytes()))
            .collect::<Vec<_>>()
            .join(", ")
    };
    headers
        .keys()
        .map(|name| (name.to_string(), Value::String(joined(name))))
        .collect()
}

/// Sends a chunk at once and then every 100 ms, for `seconds`.
fn chunks(seconds: f64, events: bool) -> Response<DemoBody> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`number` gives 0 to 86,400,000"
    )]
    let total = ((seconds * 10.0) as u64).max(1);
    let stream = stream::unfold(0, move |n| async move {
        if n == total {
            return None;
        }
        if n > 0 {
            tokio::time::sleep(CHUNK_EVERY).await;
        }
        let line = if events {
            format!("data: {n}\n\n")
        } else {
            format!("chunk {n}\n")
        };
        Some((Ok(Frame::data(Bytes::from(line))), n + 1))
    });
    let kind = if events {
        "text/event-stream"
    } else {
        "text/plain; charset=utf-8"
    };
    with_type(Response::new(StreamBody::new(stream).boxed_unsync()), kind)
}

/// The value of `key` in a query string, not decoded.
fn field<'q>(query: Option<&'q str>, key: &str) -> Option<&'q str> {
    query?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(k, _)| *k == key)
        .map(|(_, v)| v)
}

/// A number of the query string, limited so that no duration overflows.
fn number(query: Option<&str>, key: &str) -> Option<f64> {
    field(query, key)?
        .parse::<f64>()
        .ok()
        .filter(|n| n.is_finite())
        .map(|n| n.clamp(0.0, 86_400_000.0))
}
