//! Keep-alive, versions, headers, access log: an awake instance.

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha2::{Digest, Sha256};
use std::sync::atomic::Ordering;
use tokio::io::AsyncWriteExt;

use super::fixture::*;
use crate::domain::rule::Rule;
use crate::proxy::access_log::AccessLog;

#[tokio::test]
async fn one_connection_carries_many_requests_on_both_sides() {
    let fixture = Fixture::new().await;
    let mut client = fixture.connect().await;
    for _ in 0..20 {
        client
            .write_all(b"GET /x HTTP/1.1\r\nHost: APP.test:80\r\n\r\n")
            .await
            .unwrap();
        let head = read_to(&mut client, "\r\n\r\n").await;
        assert_eq!(status(&head), 200);
        assert!(
            head.contains("x-app: yes") && !head.contains("keep-alive"),
            "{head}"
        );
        assert_eq!(read_to(&mut client, "hello").await, "hello");
    }
    assert_eq!(fixture.app.seen.connections.load(Ordering::SeqCst), 1);
    until("the ticket is back", || fixture.admission.in_flight() == 0).await;
    assert_eq!(fixture.pooled(), 1);
    fixture.upstreams.close(&fixture.admission.gate());
    assert_eq!(fixture.pooled(), 0);
    until("the instance sees it closed", || {
        fixture.app.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn every_kind_of_answer_gives_its_connection_back() {
    let fixture = Fixture::new().await;
    for path in ["/", "/empty", "/stream", "/echo", "/large"] {
        assert!(status(&fixture.get(path).await) < 300, "{path}");
        until("the ticket is back", || fixture.admission.in_flight() == 0).await;
    }
    let head = fixture
        .say("HEAD / HTTP/1.1\nHost: app.test\nConnection: close\n\n")
        .await;
    assert!(
        head.ends_with("\r\n\r\n") && head.contains("content-length: 5"),
        "{head}"
    );
    let posted = fixture
        .say("POST /echo HTTP/1.1\nHost: app.test\nConnection: close\nContent-Length: 3\n\nabc")
        .await;
    assert!(posted.contains("body: 3"), "{posted}");
    assert_eq!(fixture.app.seen.connections.load(Ordering::SeqCst), 1);
    assert_eq!(fixture.pooled(), 1);
}

#[tokio::test]
async fn a_parked_connection_is_closed_after_a_second() {
    let fixture = Fixture::new().await;
    fixture.get("/").await;
    assert_eq!(fixture.pooled(), 1);
    until("it is closed", || {
        fixture.app.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
    assert_eq!(fixture.pooled(), 0);
    // And the reaper is there for the next one too.
    fixture.get("/").await;
    until("it is closed again", || {
        fixture.app.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn without_pooling_every_request_has_its_own_connection() {
    let fixture = Fixture::with(settings(), false, DEADLINE).await;
    for _ in 0..3 {
        assert_eq!(status(&fixture.get("/").await), 200);
    }
    assert_eq!(fixture.app.seen.connections.load(Ordering::SeqCst), 3);
    assert_eq!(fixture.pooled(), 0);
    assert!(fixture.get("/echo").await.contains("connection: close"));
    until("all are closed", || {
        fixture.app.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn old_clients_and_absolute_targets() {
    let fixture = Fixture::new().await;
    let old = fixture
        .say("GET /echo?x=1 HTTP/1.0\nHost: app.test\n\n")
        .await;
    assert_eq!(status(&old), 200);
    assert!(old.contains("GET /echo?x=1\n"), "{old}");
    let streamed = fixture
        .say("GET /stream HTTP/1.0\nHost: app.test\n\n")
        .await;
    assert!(
        streamed.ends_with("abcdefghijklmnopqrst") && !streamed.contains("chunked"),
        "{streamed}"
    );
    let absolute = fixture
        .say("GET http://app.test:81/echo?x=1 HTTP/1.1\nHost: other.test\nConnection: close\n\n")
        .await;
    assert!(
        absolute.contains("GET /echo?x=1\n") && absolute.contains("host: app.test:81"),
        "{absolute}"
    );
    let bare = fixture.say("GET http://app.test/echo HTTP/1.0\n\n").await;
    assert_eq!(status(&bare), 200);
}

#[tokio::test]
async fn http2_without_tls() {
    let fixture = Fixture::new().await;
    let io = TokioIo::new(fixture.connect().await);
    let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let driven = tokio::spawn(connection);
    let request = Request::post("http://app.test:8080/echo?q")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("x-forwarded-for", "6.6.6.6")
        .body(Full::new(Bytes::from_static(b"body")))
        .unwrap();
    let response = send.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let text = String::from_utf8(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    )
    .unwrap();
    for line in [
        "POST /echo?q\n",
        "host: app.test:8080\n",
        "cookie: a=1; b=2\n",
        "x-forwarded-for: 127.0.0.1\n",
        "body: 4 ",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let unknown = Request::head("http://nobody.test/")
        .body(Full::new(Bytes::new()))
        .unwrap();
    assert_eq!(send.send_request(unknown).await.unwrap().status(), 404);
    until("the ticket is back", || fixture.admission.in_flight() == 0).await;
    driven.abort();
}

/// On two threads, because connections go from one task to another through the pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_all_get_their_own_answer() {
    let fixture = Fixture::new().await;
    let one = |i: usize| {
        let address = fixture.address;
        async move {
            let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
            for round in 0..10 {
                let ask = format!("GET /echo?i={i}-{round} HTTP/1.1\r\nHost: app.test\r\n\r\n");
                socket.write_all(ask.as_bytes()).await.unwrap();
                read_to(&mut socket, &format!("GET /echo?i={i}-{round}\n")).await;
                read_to(&mut socket, "\nbody: ").await;
                read_to(&mut socket, "\n").await;
            }
        }
    };
    let all: Vec<_> = (0..64).map(|i| tokio::spawn(one(i))).collect();
    for task in all {
        task.await.unwrap();
    }
    assert_eq!(fixture.app.seen.requests.load(Ordering::SeqCst), 640);
    assert_eq!(fixture.admission.in_flight(), 0);
}

#[tokio::test]
async fn settings_are_replaced_while_serving() {
    let fixture = Fixture::new().await;
    let ask = "POST /echo HTTP/1.1\nHost: app.test\nConnection: close\nContent-Length: 3\n\nabc";
    assert_eq!(status(&fixture.say(ask).await), 200);
    fixture.proxy.reload(crate::proxy::ProxySettings {
        max_body: 2,
        ..settings()
    });
    assert_eq!(status(&fixture.say(ask).await), 413);
}

#[tokio::test]
async fn what_was_served_is_in_the_log_of_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    let (log, _) = AccessLog::start(Box::new(move |name, counts| {
        root.join(format!("{name}-{counts}"))
    }));
    let rules = vec![Rule {
        path: Some("/ping".into()),
        wake: true,
        counts: false,
        ..Rule::default()
    }];
    let fixture = Fixture::logging(
        crate::proxy::ProxySettings {
            rules,
            ..settings()
        },
        true,
        DEADLINE,
        Some(log),
    )
    .await;
    fixture.get("/?q=1").await;
    fixture.get("/stream").await;
    fixture.get("/ping").await;
    fixture
        .say("GET / HTTP/1.1\nHost: nobody.test\nConnection: close\n\n")
        .await;
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    until("all is written", || {
        read("app-true").lines().count() == 2 && read("app-false").lines().count() == 1
    })
    .await;
    let counted = read("app-true");
    assert!(
        counted.starts_with("127.0.0.1 - - [") && counted.contains("\"GET /?q=1 HTTP/1.1\" 200 5 "),
        "{counted}"
    );
    assert!(
        counted.contains("\"GET /stream HTTP/1.1\" 200 20 "),
        "{counted}"
    );
    assert!(read("app-false").contains("GET /ping"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_carries_large_bodies_both_ways_at_once() {
    let fixture = Fixture::new().await;
    let io = TokioIo::new(fixture.connect().await);
    let (send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let driven = tokio::spawn(connection);
    let mut streams = tokio::task::JoinSet::new();
    for i in 0..20u8 {
        let mut send = send.clone();
        streams.spawn(async move {
            let body = Bytes::from(vec![i; 1024 * 1024]);
            let hash = hex(&Sha256::digest(&body));
            let request = Request::post("http://app.test/echo")
                .body(Full::new(body))
                .unwrap();
            let response = send.send_request(request).await.unwrap();
            let text = response.into_body().collect().await.unwrap().to_bytes();
            assert!(String::from_utf8_lossy(&text).contains(&format!("body: 1048576 {hash}")));
        });
    }
    let mut big = send.clone();
    streams.spawn(async move {
        let request = Request::get("http://app.test/big")
            .body(Full::new(Bytes::new()))
            .unwrap();
        let body = big
            .send_request(request)
            .await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes();
        assert_eq!(body.len(), 64 * 1024 * 1024);
    });
    while let Some(done) = streams.join_next().await {
        done.unwrap();
    }
    until("the passes are back", || fixture.admission.in_flight() == 0).await;
    driven.abort();
}
