//! Streams both ways, WebSockets, back-pressure, limits on bodies, clients that leave.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fixture::*;
use crate::domain::lifecycle::Phase;
use crate::proxy::ProxySettings;

const UPGRADE: &str = "GET /ws HTTP/1.1\nHost: app.test\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\n";

#[tokio::test]
async fn a_websocket_goes_through_a_wake_and_counts_as_use() {
    for pooling in [true, false] {
        let fixture = Fixture::with(settings(), pooling, DEADLINE).await;
        fixture.admission.set(Phase::Asleep);
        let mut client = fixture.connect().await;
        client
            .write_all(UPGRADE.replace('\n', "\r\n").as_bytes())
            .await
            .unwrap();
        until("it is held", || fixture.admission.waiting() == 1).await;
        fixture.admission.set(Phase::Awake);
        let head = read_to(&mut client, "\r\n\r\n").await;
        assert_eq!(status(&head), 101);
        assert!(
            head.contains("upgrade: websocket") && head.contains("connection: upgrade"),
            "{head}"
        );
        assert_eq!(read_to(&mut client, "hello ").await, "hello ");
        for i in 0..50 {
            client
                .write_all(format!("ping {i};").as_bytes())
                .await
                .unwrap();
            read_to(&mut client, &format!("ping {i};")).await;
        }
        assert_eq!(fixture.admission.in_flight(), 1);
        assert_eq!(fixture.pooled(), 0);
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, "");
        until("the ticket is back", || fixture.admission.in_flight() == 0).await;
        until("the connection is closed", || {
            fixture.app.seen.open.load(Ordering::SeqCst) == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_websocket_through_nginx() {
    let fixture = Fixture::with(settings(), false, DEADLINE).await;
    let mut client = tokio::net::UnixStream::connect(&fixture.wake_socket)
        .await
        .unwrap();
    client
        .write_all(UPGRADE.replace('\n', "\r\n").as_bytes())
        .await
        .unwrap();
    assert_eq!(status(&read_to(&mut client, "\r\n\r\n").await), 101);
    client.write_all(b"x!").await.unwrap();
    assert_eq!(read_to(&mut client, "x!").await, "hello x!");
}

#[tokio::test]
async fn a_websocket_whose_client_vanishes_is_over() {
    let fixture = Fixture::new().await;
    let mut client = fixture.connect().await;
    client
        .write_all(UPGRADE.replace('\n', "\r\n").as_bytes())
        .await
        .unwrap();
    read_to(&mut client, "hello ").await;
    drop(client);
    until("the ticket is back", || fixture.admission.in_flight() == 0).await;
}

/// Neither an application nor a client that never closes is use for ever.
#[tokio::test]
async fn a_websocket_of_which_one_side_has_ended_is_over_soon() {
    let fixture = Fixture::new().await;
    let mut clients = Vec::new();
    for (path, by) in [
        ("/ws-deaf", "client"),
        ("/ws-mute", "application"),
        ("/ws-deaf", "nobody"),
    ] {
        let mut client = fixture.connect().await;
        client
            .write_all(
                UPGRADE
                    .replace("/ws", path)
                    .replace('\n', "\r\n")
                    .as_bytes(),
            )
            .await
            .unwrap();
        read_to(&mut client, "hello ").await;
        if by == "client" {
            client.shutdown().await.unwrap();
        }
        clients.push(client);
    }
    until("two are over", || fixture.admission.in_flight() == 1).await;
    assert_eq!(read_all(&mut clients[0]).await, "");
    // It is silent, and lasts.
    let mut byte = [0];
    assert!(
        tokio::time::timeout(Duration::from_millis(200), clients[2].read(&mut byte))
            .await
            .is_err()
    );
    assert_eq!(fixture.admission.in_flight(), 1);
}

#[tokio::test]
async fn an_upgrade_nobody_asked_for_is_a_broken_application() {
    let fixture = Fixture::new().await;
    assert_eq!(status(&fixture.get("/switch").await), 502);
    until("the ticket is back", || fixture.admission.in_flight() == 0).await;
}

#[tokio::test]
async fn a_stream_arrives_piece_by_piece() {
    let fixture = Fixture::new().await;
    let mut client = fixture.connect().await;
    client
        .write_all(b"GET /stream HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    read_to(&mut client, "\r\na\r\n").await;
    assert!(
        fixture.app.seen.produced.load(Ordering::SeqCst) < 20,
        "the first piece came with the last"
    );
    assert_eq!(fixture.admission.in_flight(), 1);
    assert!(read_all(&mut client).await.ends_with("\r\nt\r\n0\r\n\r\n"));
    until("the ticket is back", || fixture.admission.in_flight() == 0).await;
}

#[tokio::test]
async fn an_application_does_not_wait_for_a_slow_reader() {
    let fixture = Fixture::new().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut client = socket.connect(fixture.address).await.unwrap();
    client
        .write_all(b"GET /four HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    read_to(&mut client, "\r\n\r\n").await;
    until("the application is done", || {
        fixture.admission.in_flight() == 0
    })
    .await;
    let answer = read_all(&mut client).await;
    for (at, letter) in (b'a'..=b'z').take(26).enumerate() {
        assert!(
            answer.contains(&String::from_utf8(vec![letter; 4096]).unwrap()),
            "piece {at}"
        );
    }
    assert!(answer.len() >= 4 * 1024 * 1024 && answer.ends_with("\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn a_slow_reader_costs_little() {
    for path in ["/big", "/big-stream"] {
        costs_little(path).await;
    }
}

async fn costs_little(path: &str) {
    let fixture = Fixture::new().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut client = socket.connect(fixture.address).await.unwrap();
    client
        .write_all(
            format!("GET {path} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )
        .await
        .unwrap();
    read_to(&mut client, "\r\n\r\n").await;
    // Wait until nothing moves any more, then check how far the application came.
    let produced = || fixture.app.seen.produced.load(Ordering::SeqCst);
    let mut last = produced();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if produced() == last {
            break;
        }
        last = produced();
    }
    // 64 MiB were to be sent; what is on the way lies in kernel buffers and at most a few of ours.
    assert!(
        last < 16 * 1024 * 1024,
        "{last} bytes were taken from the application"
    );
    assert_eq!(fixture.admission.in_flight(), 1);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() >= 64 * 1024 * 1024);
    until("the ticket is back", || fixture.admission.in_flight() == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_work_for_it() {
    let fixture = Fixture::new().await;
    let mut client = fixture.connect().await;
    client
        .write_all(b"GET /never HTTP/1.1\r\nHost: app.test\r\n\r\n")
        .await
        .unwrap();
    until("it is in flight", || {
        fixture.app.seen.requests.load(Ordering::SeqCst) == 1
    })
    .await;
    drop(client);
    until("the ticket is back", || fixture.admission.in_flight() == 0).await;
    until("the application noticed", || {
        fixture.app.seen.aborted.load(Ordering::SeqCst) == 1
    })
    .await;

    let mut client = fixture.connect().await;
    client
        .write_all(b"GET /big HTTP/1.1\r\nHost: app.test\r\n\r\n")
        .await
        .unwrap();
    read_to(&mut client, "\r\n\r\n").await;
    drop(client);
    until("the ticket is back", || fixture.admission.in_flight() == 0).await;
    until("the application noticed", || {
        fixture.app.seen.aborted.load(Ordering::SeqCst) == 2
    })
    .await;
}

#[tokio::test]
async fn too_large_is_said_before_anything_is_woken() {
    let fixture = Fixture::with(
        ProxySettings {
            max_body: 10,
            ..settings()
        },
        true,
        DEADLINE,
    )
    .await;
    fixture.admission.set(Phase::Asleep);
    let answer = fixture
        .say("POST /echo HTTP/1.1\nHost: app.test\nContent-Length: 11\n\n")
        .await;
    assert_eq!(status(&answer), 413);
    assert!(answer.contains("no-store"), "{answer}");
    assert_eq!(fixture.admission.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_chunked_body_beyond_the_limit_is_cut() {
    let fixture = Fixture::with(
        ProxySettings {
            max_body: 10,
            ..settings()
        },
        true,
        DEADLINE,
    )
    .await;
    let answer = fixture.say("POST /echo HTTP/1.1\nHost: app.test\nTransfer-Encoding: chunked\n\n8\n12345678\n8\n12345678\n0\n\n").await;
    assert_eq!(status(&answer), 413);
    assert_eq!(fixture.app.seen.requests.load(Ordering::SeqCst), 0);
    let just_right =
        fixture.say("POST /echo HTTP/1.1\nHost: app.test\nConnection: close\nTransfer-Encoding: chunked\n\na\n1234567890\n0\n\n").await;
    assert!(just_right.contains("body: 10 "), "{just_right}");
}

/// Beyond what is taken in first, the application is asked, and notices.
#[tokio::test]
async fn a_long_chunked_body_beyond_the_limit_is_cut() {
    let fixture = Fixture::with(
        ProxySettings {
            max_body: 100_000,
            ..settings()
        },
        true,
        DEADLINE,
    )
    .await;
    let chunk = format!("ea60\n{}\n", "x".repeat(60_000));
    let answer = fixture
        .say(&format!(
            "POST /echo HTTP/1.1\nHost: app.test\nTransfer-Encoding: chunked\n\n{chunk}{chunk}0\n\n"
        ))
        .await;
    assert_eq!(status(&answer), 413);
    until("nothing is under way", || {
        fixture.admission.in_flight() == 0
    })
    .await;
    assert_eq!(fixture.pooled(), 0);
}

#[tokio::test]
async fn an_instance_is_not_held_while_a_client_sends_its_body_slowly() {
    let fixture = Fixture::new().await;
    for length in ["Content-Length: 6", "Transfer-Encoding: chunked"] {
        let before = fixture.app.seen.requests.load(Ordering::SeqCst);
        let piece = |text: &str| {
            if length.starts_with('C') {
                text.to_owned()
            } else {
                format!("3\r\n{text}\r\n")
            }
        };
        let mut client = fixture.connect().await;
        let head = format!(
            "POST /echo HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nExpect: 100-continue\r\n{length}\r\n\r\n"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(status(&read_to(&mut client, "\r\n\r\n").await), 100);
        client.write_all(piece("abc").as_bytes()).await.unwrap();
        until("it holds nothing", || fixture.admission.in_flight() == 0).await;
        assert_eq!(fixture.app.seen.requests.load(Ordering::SeqCst), before);
        // It may fall asleep meanwhile: then it is woken.
        fixture.admission.quick.store(true, Ordering::SeqCst);
        fixture.admission.set(Phase::Asleep);
        client.write_all(piece("def").as_bytes()).await.unwrap();
        if length.starts_with('T') {
            client.write_all(b"0\r\n\r\n").await.unwrap();
        }
        let answer = read_all(&mut client).await;
        assert!(
            status(&answer) == 200 && answer.contains("body: 6 "),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_body_that_stops_arriving_is_cut() {
    let fixture = Fixture::with(
        ProxySettings {
            body_stall: Duration::from_millis(100),
            ..settings()
        },
        true,
        DEADLINE,
    )
    .await;
    let answer = fixture
        .say("POST /echo HTTP/1.1\nHost: app.test\nContent-Length: 10\n\nabc")
        .await;
    assert_eq!(status(&answer), 408);
    until("the ticket is back", || fixture.admission.in_flight() == 0).await;
}

#[tokio::test]
async fn a_silent_web_socket_is_use_only_while_there_is_traffic() {
    let settings = ProxySettings {
        silent: Some(Duration::from_millis(100)),
        ..settings()
    };
    let fixture = Fixture::with(settings, true, DEADLINE).await;
    let mut client = fixture.connect().await;
    client
        .write_all(UPGRADE.replace('\n', "\r\n").as_bytes())
        .await
        .unwrap();
    read_to(&mut client, "hello ").await;
    for _ in 0..2 {
        until("it is silent", || fixture.admission.in_flight() == 0).await;
        client.write_all(b"x").await.unwrap();
        until("it is use again", || fixture.admission.in_flight() == 1).await;
        read_to(&mut client, "x").await;
    }
    drop(client);
    until("it has ended", || fixture.admission.in_flight() == 0).await;
}
