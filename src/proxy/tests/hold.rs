//! Requests to an instance that sleeps: held, woken once, served whole; and what a browser sees
//! meanwhile.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fixture::*;
use crate::domain::admission::Refusal;
use crate::domain::lifecycle::Phase;
use crate::domain::rule::Rule;

const NAVIGATION: &str = "GET / HTTP/1.1\nHost: app.test\nAccept: text/html\nConnection: close\n\n";

async fn asleep() -> Fixture {
    let fixture = Fixture::new().await;
    fixture.admission.set(Phase::Asleep);
    fixture
}

#[tokio::test]
async fn a_large_post_survives_the_wake_byte_for_byte() {
    let fixture = asleep().await;
    let body: Vec<u8> = (0..50u32 * 1024 * 1024 / 4)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let expected = format!("body: {} {}\n", body.len(), hex(&Sha256::digest(&body)));
    let mut client = fixture.connect().await;
    let (mut from, mut to) = client.split();
    let send = async {
        let head = format!(
            "POST /echo?a=1&b=%20 HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        to.write_all(head.as_bytes()).await.unwrap();
        to.write_all(&body).await.unwrap();
    };
    let wake = async {
        until("it is held", || fixture.admission.waiting() == 1).await;
        assert_eq!(fixture.app.seen.requests.load(Ordering::SeqCst), 0);
        fixture.admission.set(Phase::Awake);
    };
    let ((), (), answer) = tokio::join!(send, wake, read_all(&mut from));
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("POST /echo?a=1&b=%20\n"), "{answer}");
    assert!(answer.contains(&expected), "{answer}");
}

#[tokio::test]
async fn a_chunked_post_survives_the_wake() {
    let fixture = asleep().await;
    let mut client = fixture.connect().await;
    client
        .write_all(b"PUT /echo HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await
        .unwrap();
    // The end of the stop is waited for first: no instance is woken before.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(fixture.admission.waiting(), 0);
    client.write_all(b"2\r\nde\r\n0\r\n\r\n").await.unwrap();
    until("it is held", || fixture.admission.waiting() == 1).await;
    fixture.admission.set(Phase::Awake);
    let answer = read_all(&mut client).await;
    assert!(
        answer.contains(&format!("body: 5 {}", hex(&Sha256::digest(b"abcde")))),
        "{answer}"
    );
    assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_it_can_be_used() {
    let fixture = asleep().await;
    let mut client = fixture.connect().await;
    let head = b"POST /echo HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    client.write_all(head).await.unwrap();
    until("it is held", || fixture.admission.waiting() == 1).await;
    let mut byte = [0u8; 1];
    assert_eq!(
        client.try_read(&mut byte).unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    fixture.admission.set(Phase::Awake);
    assert_eq!(status(&read_to(&mut client, "\r\n\r\n").await), 100);
    client.write_all(b"abc").await.unwrap();
    let answer = read_all(&mut client).await;
    assert_eq!(status(&answer), 200);
    assert!(
        answer.contains("body: 3 ") && !answer.contains("expect"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_first_requests_are_held_and_all_answered() {
    let fixture = asleep().await;
    let mut clients = tokio::task::JoinSet::new();
    for i in 0..1000 {
        let address = fixture.address;
        clients.spawn(async move {
            let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
            let ask =
                format!("GET /echo?n={i} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n");
            socket.write_all(ask.as_bytes()).await.unwrap();
            let answer = read_all(&mut socket).await;
            status(&answer) == 200 && answer.contains(&format!("GET /echo?n={i}\n"))
        });
    }
    until("all are held", || fixture.admission.waiting() == 1000).await;
    fixture.admission.set(Phase::Awake);
    while let Some(good) = clients.join_next().await {
        assert!(good.unwrap());
    }
    assert_eq!(fixture.app.seen.requests.load(Ordering::SeqCst), 1000);
    until("all passes are back", || fixture.admission.in_flight() == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_gives_up_its_own_place_only() {
    let fixture = asleep().await;
    let mut stays = fixture.connect().await;
    let ask = b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
    stays.write_all(ask).await.unwrap();
    let mut leaves = fixture.connect().await;
    leaves.write_all(ask).await.unwrap();
    until("both are held", || fixture.admission.waiting() == 2).await;
    drop(leaves);
    until("one has left", || fixture.admission.waiting() == 1).await;
    fixture.admission.set(Phase::Awake);
    assert_eq!(status(&read_all(&mut stays).await), 200);
    assert_eq!(fixture.app.seen.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_person_gets_the_waiting_page_and_nobody_else_does() {
    let fixture = asleep().await;
    let page = fixture.say(NAVIGATION).await;
    assert_eq!(status(&page), 503);
    for part in [
        "Retry-After: 1\r\n",
        "Cache-Control: no-store\r\n",
        "Content-Type: text/html",
        "app is starting",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    until("its place is given up", || fixture.admission.waiting() == 0).await;
    let mut held = Vec::new();
    for other in [
        "GET / HTTP/1.1\nHost: app.test\nConnection: close\n\n",
        "POST / HTTP/1.1\nHost: app.test\nAccept: text/html\nConnection: close\nContent-Length: 0\n\n",
        "GET / HTTP/1.1\nHost: app.test\nAccept: text/html\nSec-Fetch-Dest: image\nConnection: close\n\n",
    ] {
        let mut client = fixture.connect().await;
        client
            .write_all(other.replace('\n', "\r\n").as_bytes())
            .await
            .unwrap();
        held.push(client);
    }
    until("they are held", || fixture.admission.waiting() == 3).await;
    tokio::time::sleep(Duration::from_millis(200)).await; // longer than `page_after`: nothing may come
    assert_eq!(fixture.admission.waiting(), 3);
    fixture.admission.set(Phase::Awake);
    for mut client in held {
        assert_eq!(status(&read_all(&mut client).await), 200);
    }
}

#[tokio::test]
async fn a_wake_quicker_than_the_page_shows_no_page() {
    let fixture = asleep().await;
    fixture.admission.quick.store(true, Ordering::SeqCst);
    let answer = fixture.say(NAVIGATION).await;
    assert_eq!(status(&answer), 200);
    assert!(answer.ends_with("hello"));
}

#[tokio::test]
async fn the_page_follows_the_wake_and_never_causes_one() {
    let fixture = asleep().await;
    let ask = "GET /.well-known/acc/wake HTTP/1.1\nHost: app.test\nConnection: close\n\n";
    let mut client = fixture.connect().await;
    client
        .write_all(ask.replace('\n', "\r\n").as_bytes())
        .await
        .unwrap();
    let head = read_to(&mut client, "\r\n\r\n").await;
    for part in [
        "200 OK",
        "text/event-stream",
        "X-Acc-Wake: 1",
        "no-store",
        "X-Accel-Buffering: no",
    ] {
        assert!(head.contains(part), "{part} in {head}");
    }
    read_to(&mut client, "\"phase\":\"asleep\"").await;
    assert_eq!(
        (
            fixture.admission.asked.load(Ordering::SeqCst),
            fixture.admission.wakes.load(Ordering::SeqCst)
        ),
        (0, 0)
    );
    fixture.admission.set(Phase::Waking);
    read_to(&mut client, "\"phase\":\"waking\",\"elapsed_ms\":").await;
    fixture.admission.set(Phase::Awake);
    let end = read_all(&mut client).await;
    assert!(
        end.contains("\"phase\":\"awake\"") && end.ends_with("0\r\n\r\n"),
        "{end}"
    );
    // Awake: the path is the application's own.
    let answer = fixture.say(ask).await;
    assert!(
        answer.ends_with("hello") && !answer.contains("X-Acc-Wake"),
        "{answer}"
    );
}

#[tokio::test]
async fn the_live_report_ends_when_nobody_wakes_the_instance() {
    let fixture = asleep().await;
    let answer = fixture
        .say("GET /.well-known/acc/wake HTTP/1.1\nHost: app.test\nConnection: close\n\n")
        .await;
    assert!(
        answer.matches("asleep").count() >= 3 && answer.ends_with("0\r\n\r\n"),
        "{answer}"
    );
    assert_eq!(fixture.admission.wakes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_failed_wake_reaches_everybody_who_waits() {
    let fixture = asleep().await;
    let ask = "GET / HTTP/1.1\nHost: app.test\nConnection: close\n\n";
    let waits = futures_util::future::join_all((0..20).map(|_| fixture.say(ask)));
    let fail = async {
        until("all are held", || fixture.admission.waiting() == 20).await;
        fixture.admission.set(Phase::Failed);
    };
    let (answers, ()) = tokio::join!(waits, fail);
    for answer in answers {
        assert_eq!(status(&answer), 503);
        for part in [
            "Retry-After: 3",
            "no-store",
            "application/problem+json",
            "ended at start",
        ] {
            assert!(answer.contains(part), "{part} in {answer}");
        }
    }
}

#[tokio::test]
async fn a_wait_that_the_service_does_not_end_is_ended() {
    let fixture = Fixture::with(
        crate::proxy::ProxySettings {
            wake_timeout: Duration::ZERO,
            ..settings()
        },
        true,
        DEADLINE,
    )
    .await;
    tokio::time::pause(); // the margin of five seconds passes at once; nothing else moves
    fixture.admission.set(Phase::Asleep);
    let mut client = fixture.connect().await;
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status(&answer), 504);
    assert!(answer.contains("Retry-After: 5"), "{answer}");
}

#[tokio::test]
async fn refusals_have_their_status() {
    let fixture = asleep().await;
    for (refusal, code) in [
        (Refusal::Destroyed, 410),
        (Refusal::Disabled, 503),
        (Refusal::Halting, 503),
        (Refusal::TooManyWaiting, 503),
    ] {
        fixture.admission.refuse(Some(refusal));
        let answer = fixture.get("/").await;
        assert_eq!(status(&answer), code);
        assert!(answer.contains("no-store"), "{answer}");
    }
    let page = fixture.say(NAVIGATION).await;
    assert!(
        page.contains("text/html") && page.contains("Too many requests wait"),
        "{page}"
    );
}

#[tokio::test]
async fn a_rule_keeps_a_monitor_from_waking() {
    let rules = vec![Rule {
        user_agent: Some("bot".into()),
        wake: false,
        counts: false,
        ..Rule::default()
    }];
    let fixture = Fixture::with(
        crate::proxy::ProxySettings {
            rules,
            ..settings()
        },
        true,
        DEADLINE,
    )
    .await;
    fixture.admission.set(Phase::Asleep);
    let answer = fixture
        .say("GET / HTTP/1.1\nHost: app.test\nUser-Agent: UptimeBot\nConnection: close\n\n")
        .await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("Retry-After"), "{answer}");
    assert_eq!(fixture.admission.wakes.load(Ordering::SeqCst), 0);
    fixture.admission.set(Phase::Awake);
    assert_eq!(
        status(
            &fixture
                .say("GET / HTTP/1.1\nHost: app.test\nUser-Agent: UptimeBot\nConnection: close\n\n")
                .await
        ),
        200
    );
}
