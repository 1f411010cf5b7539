//! What a client requests next, and whether the response is correct. Chosen at random; nothing is
//! sent here.

use std::convert::Infallible;
use std::fmt::Write as _;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request, header};
use sha2::{Digest, Sha256};

use super::context::ProveContext;
use super::rng::Rng;
use super::sample::{RequestEnd, RequestKind};
use super::wire::{RequestBody, WireAnswer};

/// Largest body of a POST: 2 to the power of this many bytes.
const BODY_BITS: u64 = 20;
/// Size of the pieces of a body whose length is not announced.
const PIECE: usize = 16 * 1024;
/// Interval between two pieces of a stream, in milliseconds.
const CHUNK_MS: u16 = 100;

/// One request.
#[derive(Debug, Clone)]
pub(super) struct RequestPlan {
    /// Its kind.
    pub(super) kind: RequestKind,
    /// It uses a connection of its own.
    pub(super) fresh: bool,
    /// The connection ends with it (`connection: close`).
    pub(super) close: bool,
    /// Messages of a conversation.
    pub(super) messages: u8,
    /// It is the demo application.
    demo: bool,
    body: Bytes,
    /// The length of the body is not announced.
    chunked: bool,
    slow_ms: u16,
    chunks: u16,
}

impl RequestPlan {
    /// Chooses a request. Half of them are small GETs, the most frequent requests of most sites.
    pub(super) fn draw(rng: &mut Rng, demo: bool) -> Self {
        let kind = match rng.below(20) {
            _ if !demo => RequestKind::Get,
            0..10 => RequestKind::Get,
            10..15 => RequestKind::Post,
            15..17 => RequestKind::Slow,
            17 => RequestKind::Stream,
            _ => RequestKind::Socket,
        };
        let (fresh, close) = (rng.one_in(3), rng.one_in(4));
        let body = if kind == RequestKind::Post {
            body(rng)
        } else {
            Bytes::new()
        };
        let chunked = rng.one_in(3);
        #[expect(clippy::cast_possible_truncation, reason = "small by their bounds")]
        let (slow_ms, chunks, messages) = (
            (1 + rng.below(400)) as u16,
            (1 + rng.below(4)) as u16,
            (1 + rng.below(8)) as u8,
        );
        Self {
            kind,
            fresh,
            close,
            messages,
            demo,
            body,
            chunked,
            slow_ms,
            chunks,
        }
    }

    /// How long the application is asked to delay its response, in milliseconds.
    pub(super) fn own_ms(&self) -> u16 {
        if self.kind == RequestKind::Slow {
            self.slow_ms
        } else {
            0
        }
    }

    /// How long the application is asked to take for the whole response, in milliseconds.
    pub(super) fn takes_ms(&self) -> u16 {
        if self.kind == RequestKind::Stream {
            self.chunks * CHUNK_MS
        } else {
            self.own_ms()
        }
    }

    fn target(&self, id: &str) -> String {
        match self.kind {
            _ if !self.demo => "/".to_owned(),
            RequestKind::Get | RequestKind::Post => format!("/echo?{id}"),
            RequestKind::Slow => format!("/slow?ms={}", self.slow_ms),
            RequestKind::Stream => {
                format!("/stream?seconds={}.{}", self.chunks / 10, self.chunks % 10)
            }
            RequestKind::Socket => "/ws".to_owned(),
        }
    }

    /// The request with this id, as it is sent.
    pub(super) fn request(&self, context: &ProveContext, id: &str) -> Request<RequestBody> {
        let mut request = Request::new(self.body());
        *request.method_mut() = if self.kind == RequestKind::Post {
            Method::POST
        } else {
            Method::GET
        };
        *request.uri_mut() = self.target(id).parse().unwrap_or_default();
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = header::HeaderValue::from_str(value) {
                request.headers_mut().insert(name, value);
            }
        };
        set("host", &context.host);
        set("x-id", id);
        set("user-agent", "acc-prove");
        if self.kind == RequestKind::Socket {
            set("connection", "Upgrade");
            set("upgrade", "websocket");
            set("sec-websocket-version", "13");
            set("sec-websocket-key", "MTIzNDU2Nzg5MGFiY2RlZg==");
        } else if self.close {
            set("connection", "close");
        }
        request
    }

    fn body(&self) -> RequestBody {
        if self.kind != RequestKind::Post {
            return Empty::new().boxed_unsync();
        }
        if !self.chunked {
            return Full::new(self.body.clone()).boxed_unsync();
        }
        let pieces: Vec<Result<Frame<Bytes>, Infallible>> = self
            .body
            .chunks(PIECE)
            .map(|piece| Ok(Frame::data(self.body.slice_ref(piece))))
            .collect();
        StreamBody::new(stream::iter(pieces)).boxed_unsync()
    }
}

/// 1 byte to 1 MiB, each order of magnitude with the same probability.
fn body(rng: &mut Rng) -> Bytes {
    let most = 1_u64 << rng.below(BODY_BITS + 1);
    let length = usize::try_from(most / 2 + rng.below(most / 2 + 1))
        .unwrap_or(1)
        .max(1);
    rng.bytes(length).into()
}

/// The request that identifies the demo application.
pub(super) fn probe(host: &str) -> Request<RequestBody> {
    let mut request = Request::new(Empty::new().boxed_unsync());
    *request.uri_mut() = hyper::Uri::from_static("/echo?prove");
    if let Ok(host) = header::HeaderValue::from_str(host) {
        request.headers_mut().insert(header::HOST, host);
    }
    request
}

/// Whether this is the response to [`probe`] that only the demo application gives.
pub(super) fn is_echo(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(body)
        .is_ok_and(|echo| echo["query"] == "prove" && echo["sha256"].is_string())
}

/// A response with an unexpected status.
pub(super) fn refused(answer: &WireAnswer) -> RequestEnd {
    RequestEnd::Answered(answer.status.as_u16(), answer.text().into())
}

/// Checks that the response is the expected one.
pub(super) fn check(
    plan: &RequestPlan,
    context: &ProveContext,
    id: &str,
    answer: &WireAnswer,
) -> RequestEnd {
    if !answer.status.is_success() {
        return refused(answer);
    }
    if !plan.demo {
        return RequestEnd::Right;
    }
    let text = String::from_utf8_lossy(&answer.body);
    let fault = match plan.kind {
        RequestKind::Get | RequestKind::Post => echo_fault(plan, id, &answer.body),
        RequestKind::Slow => (!text.starts_with(&format!("name: {}\n", context.name)))
            .then_some("the answer names another application"),
        RequestKind::Stream => {
            let expected: String = (0..plan.chunks).fold(String::new(), |mut all, n| {
                let _ = writeln!(all, "chunk {n}");
                all
            });
            (text != expected).then_some("the stream has the wrong content")
        }
        RequestKind::Socket => None,
    };
    fault.map_or(RequestEnd::Right, |fault| {
        RequestEnd::Wrong(format!("{fault}: {text:.200}").into())
    })
}

fn echo_fault(plan: &RequestPlan, id: &str, body: &[u8]) -> Option<&'static str> {
    let Ok(echo) = serde_json::from_slice::<serde_json::Value>(body) else {
        return Some("the answer is not one of `/echo`");
    };
    if echo["headers"]["x-id"] != id || echo["query"] != id {
        return Some("the answer belongs to another request");
    }
    let sha256 = Sha256::digest(&plan.body)
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
    let method = if plan.kind == RequestKind::Post {
        "POST"
    } else {
        "GET"
    };
    if echo["method"] != method || echo["length"] != plan.body.len() || echo["sha256"] != sha256 {
        return Some("the body arrived changed");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_of_all_sizes() {
        let mut rng = Rng::new(1, 1);
        let lengths: Vec<usize> = (0..500).map(|_| body(&mut rng).len()).collect();
        assert!(lengths.iter().all(|n| (1..=1 << 20).contains(n)));
        assert!(lengths.contains(&1) && lengths.iter().any(|n| *n > 500_000));
    }

    #[test]
    fn a_stranger_gets_nothing_but_small_gets() {
        let mut rng = Rng::new(1, 1);
        for _ in 0..100 {
            let plan = RequestPlan::draw(&mut rng, false);
            assert_eq!(
                (plan.kind, plan.target("x").as_str()),
                (RequestKind::Get, "/")
            );
        }
        let kinds: Vec<RequestKind> = (0..200)
            .map(|_| RequestPlan::draw(&mut rng, true).kind)
            .collect();
        for kind in [
            RequestKind::Get,
            RequestKind::Post,
            RequestKind::Slow,
            RequestKind::Stream,
            RequestKind::Socket,
        ] {
            assert!(kinds.contains(&kind), "{kind:?}");
        }
    }

    #[test]
    fn an_echo_is_compared_in_all_it_says() {
        let plan = RequestPlan {
            kind: RequestKind::Post,
            body: Bytes::from_static(b"abc"),
            ..RequestPlan::draw(&mut Rng::new(1, 1), true)
        };
        let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let echo = |id: &str, method: &str, length: u32, sha: &str| {
            serde_json::json!({ "method": method, "query": id, "length": length, "sha256": sha, "headers": { "x-id": id } }).to_string()
        };
        assert_eq!(
            echo_fault(&plan, "t.1.1.1", echo("t.1.1.1", "POST", 3, sha).as_bytes()),
            None
        );
        for wrong in [
            echo("t.1.1.2", "POST", 3, sha),
            echo("t.1.1.1", "GET", 3, sha),
            echo("t.1.1.1", "POST", 2, sha),
            echo("t.1.1.1", "POST", 3, "00"),
            "{}".to_owned(),
            "hello".to_owned(),
        ] {
            assert!(
                echo_fault(&plan, "t.1.1.1", wrong.as_bytes()).is_some(),
                "{wrong}"
            );
        }
    }
}
