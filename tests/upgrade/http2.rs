//! HTTP/2 on acc's builtin edge: a connection with many streams. Each stream is use, and none is
//! cut by an idle stop, an operator's stop or an upgrade. nginx as acc configures it speaks HTTP/1
//! to clients, so these tests do not apply to it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};

use tokio::task::JoinHandle;

use crate::support::fixture::SOON;
use crate::support::wait::holds;
use crate::support::{Combination, Fixture, wait_until};

type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// The builtin edge, with either supervisor.
fn speaks_it(combination: Combination) -> bool {
    combination.edge == "builtin"
}

async fn connect(fixture: &Fixture) -> SendRequest<Body> {
    let stream = tokio::net::TcpStream::connect(fixture.address())
        .await
        .unwrap();
    let (send, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    send
}

fn request(fixture: &Fixture, method: &str, name: &str, target: &str, body: Body) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(format!("http://{}{target}", fixture.host(name)))
        .header("x-id", name)
        .body(body)
        .unwrap()
}

fn empty() -> Body {
    Empty::new().boxed_unsync()
}

/// How many of this test's requests `shop` has received.
fn under_way(fixture: &Fixture) -> usize {
    fixture
        .told("shop", "REQ")
        .iter()
        .filter(|l| l.ends_with(" shop"))
        .count()
}

/// 20 pieces in 2.5 s.
fn slow_body() -> Body {
    let pieces = stream::unfold(0, |n| async move {
        tokio::time::sleep(Duration::from_millis(125)).await;
        (n < 20).then(|| (Ok(Frame::data(Bytes::from_static(b"piece"))), n + 1))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// Sends the request and reads the whole answer: status and text.
async fn whole(mut send: SendRequest<Body>, request: Request<Body>) -> (u16, String) {
    send.ready().await.unwrap();
    let answer = send.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    (
        status,
        String::from_utf8(
            answer
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .to_vec(),
        )
        .unwrap(),
    )
}

/// An HTTP/2 connection to a fixture, and the task that drives it.
struct Line<'a> {
    fixture: &'a Fixture,
    runtime: tokio::runtime::Runtime,
    send: SendRequest<Body>,
}

impl<'a> Line<'a> {
    fn open(fixture: &'a Fixture) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let send = runtime.block_on(connect(fixture));
        Self {
            fixture,
            runtime,
            send,
        }
    }

    /// Begins a stream.
    fn ask(&self, method: &str, name: &str, target: &str, body: Body) -> JoinHandle<(u16, String)> {
        self.runtime.spawn(whole(
            self.send.clone(),
            request(self.fixture, method, name, target, body),
        ))
    }

    /// Begins one request of each kind, each of which takes 2.5 s.
    fn all_kinds(&self, [slow, upload, chunks]: [&str; 3]) -> [JoinHandle<(u16, String)>; 3] {
        [
            self.ask("GET", slow, "/slow?ms=2500", empty()),
            self.ask("POST", upload, "/echo", slow_body()),
            self.ask("GET", chunks, "/stream?seconds=2.5", empty()),
        ]
    }

    /// The answer to one stream.
    #[track_caller]
    fn end(&self, stream: JoinHandle<(u16, String)>) -> String {
        let (status, text) = self.runtime.block_on(stream).unwrap();
        assert_eq!(status, 200, "{text}");
        text
    }

    /// The answers to all kinds are complete.
    #[track_caller]
    fn all_are_whole(&self, [slow, upload, chunks]: [JoinHandle<(u16, String)>; 3]) {
        self.end(slow);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&self.end(upload)).unwrap()["length"],
            100
        );
        assert_eq!(self.end(chunks).lines().count(), 25);
    }
}

pub fn streams_are_never_cut_by_an_idle_stop(combination: Combination) {
    if !speaks_it(combination) {
        return;
    }
    let Some(fixture) = Fixture::with(combination, |s| {
        (s.idle, s.check_every) = ("300ms", "100ms")
    }) else {
        return;
    };
    let names = ["slow", "upload", "chunks"];
    for name in names {
        fixture
            .acc(&["create", name, "--model", "tester", "--asleep"])
            .ok();
    }
    // One connection for all of them, which stays open: without a stream it keeps no instance
    // awake.
    let line = Line::open(&fixture);
    line.all_are_whole(line.all_kinds(names));
    for name in names {
        fixture.wait_phase(name, "asleep");
        assert_eq!(
            fixture.told(name, "START").len(),
            1,
            "`{name}` was stopped within its own request"
        );
    }
    // The same connection wakes it again.
    line.end(line.ask("GET", "slow", "/echo", empty()));
}

pub fn streams_go_on_through_an_operators_stop(combination: Combination) {
    if !speaks_it(combination) {
        return;
    }
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let line = Line::open(&fixture);
    let all = line.all_kinds(["shop"; 3]);
    // The application logs an upload when it is complete.
    wait_until("the others are under way", SOON, || {
        holds(under_way(&fixture) == 2, "not yet")
    });
    let (stopped, late) = std::thread::scope(|scope| {
        let stop = scope.spawn(|| fixture.acc(&["stop", "shop"]));
        fixture.wait_phase("shop", "draining");
        // On the same connection while the instance drains: the request is held, and wakes the
        // instance.
        let late = line.ask("POST", "shop", "/echo", empty());
        (stop.join().unwrap(), late)
    });
    stopped.ok();
    line.all_are_whole(all);
    line.end(late);
    assert_eq!(fixture.told("shop", "START").len(), 2);
    assert_eq!(under_way(&fixture), 4, "one was executed twice");
}

pub fn streams_go_on_through_an_upgrade(combination: Combination) {
    if !speaks_it(combination) {
        return;
    }
    let Some(fixture) = super::handover::fixture(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    fixture
        .acc(&[
            "create",
            "wiki",
            "--model",
            "tester",
            "--set",
            "start_delay=1500ms",
            "--asleep",
        ])
        .ok();
    let line = Line::open(&fixture);
    let all = line.all_kinds(["shop"; 3]);
    // The application logs an upload when it is complete.
    wait_until("the others are under way", SOON, || {
        holds(under_way(&fixture) == 2, "not yet")
    });
    // Held while the server is replaced.
    let held = line.ask("POST", "wiki", "/echo", empty());
    fixture.wait_phase("wiki", "waking");
    let before = super::handover::workers(&fixture);
    super::handover::put_in_place(&fixture, crate::support::fixture::ACC.as_ref());
    fixture.acc(&["boot"]).ok().says(&["upgraded the server"]);
    line.all_are_whole(all);
    line.end(held);
    // The client was told to close (GOAWAY), so the old worker ends although the client keeps the
    // connection.
    wait_until("the worker from before has finished", SOON, || {
        let now = super::handover::workers(&fixture);
        holds(
            now.len() == 1 && !before.contains(&now[0]),
            format!("{now:?}"),
        )
    });
    assert_eq!(
        (
            fixture.told("shop", "START").len(),
            fixture.told("wiki", "START").len()
        ),
        (1, 1)
    );
    let next = Line::open(&fixture);
    next.end(next.ask("GET", "shop", "/echo", empty()));
}
