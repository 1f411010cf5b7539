//! Requests that no client should send: ambiguous, forged, slow.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fixture::*;

#[tokio::test]
async fn hosts_that_are_none() {
    let fixture = Fixture::new().await;
    let long = format!("{}test", "a.".repeat(148));
    for (host, code) in [
        ("Host: app.test\nHost: app.test\n", 400),
        ("", 400),
        ("Host: \n", 400),
        ("Host: a..b\n", 400),
        ("Host: ../x\n", 400),
        ("Host: \u{e4}.test\n", 400),
        ("Host: app.test:x\n", 400),
        ("Host: nobody.test\n", 404),
        ("Host: a_b.test\n", 404),
        ("Host: 127.0.0.1\n", 404),
        ("Host: [::1]:80\n", 404),
        (&format!("Host: {long}\n"), 404),
        ("Host: APP.Test.:8080\n", 200),
    ] {
        let answer = fixture
            .say(&format!("GET / HTTP/1.1\n{host}Connection: close\n\n"))
            .await;
        assert_eq!(status(&answer), code, "{host:?}");
        if code != 200 {
            assert!(
                answer.contains("Cache-Control: no-store"),
                "{host:?}: {answer}"
            );
        }
    }
    assert_eq!(status(&fixture.say("GET / HTTP/1.0\n\n").await), 400);
}

#[tokio::test]
async fn methods_and_codings_that_no_application_gets() {
    let fixture = Fixture::new().await;
    for head in ["CONNECT app.test:80 HTTP/1.1", "TRACE / HTTP/1.1"] {
        let answer = fixture.say(&format!("{head}\nHost: app.test\n\n")).await;
        assert_eq!(status(&answer), 405, "{answer}");
        assert!(
            answer.contains("Allow: GET, ") && answer.contains("Cache-Control: no-store"),
            "{answer}"
        );
    }
    for coding in [
        "gzip, chunked",
        "chunked, chunked",
        "identity, chunked",
        "gzip\nTransfer-Encoding: chunked",
    ] {
        let answer = fixture
            .say(&format!(
                "POST /echo HTTP/1.1\nHost: app.test\nTransfer-Encoding: {coding}\n\n3\nabc\n0\n\n"
            ))
            .await;
        assert_eq!(status(&answer), 501, "{coding}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    assert_eq!(fixture.app.seen.requests.load(Ordering::SeqCst), 0);
    let answer = fixture.say("POST /echo HTTP/1.1\nHost: app.test\nConnection: close\nTransfer-Encoding: Chunked\n\n3\nabc\n0\n\n").await;
    assert_eq!(status(&answer), 200, "{answer}");
}

#[tokio::test]
async fn what_a_client_claims_about_itself_is_not_passed_on() {
    let fixture = Fixture::new().await;
    let answer = fixture
        .say(concat!(
            "GET /echo HTTP/1.1\nHost: app.test\nConnection: close, X-Gone\nX-Gone: 1\nX-Real-IP: 6.6.6.6\n",
            "X-Forwarded-For: 6.6.6.6\nX-Forwarded-Proto: https\nX_Forwarded_For: 6.6.6.6\nForwarded: for=6.6.6.6\n",
            "X-Acc-Connect: 1\nX-Acc-Status: 504\nX-Acc-Host: nobody.test\nProxy: evil\nX-Kept: 1\n\n"
        ))
        .await;
    assert_eq!(status(&answer), 200);
    for line in [
        "x-forwarded-for: 127.0.0.1\n",
        "x-forwarded-proto: http\n",
        "x-real-ip: 127.0.0.1\n",
        "x-kept: 1\n",
    ] {
        assert!(answer.contains(line), "{line} in {answer}");
    }
    for gone in ["6.6.6.6", "x-acc", "x-gone", "evil", "connection:"] {
        assert!(
            !answer.split_once("\r\n\r\n").unwrap().1.contains(gone),
            "{gone} in {answer}"
        );
    }
}

/// hyper takes the chunks, forgets the length and closes the connection afterwards (RFC 9112
/// section 6.3): what reaches the instance has one length, and what follows on the client's
/// connection is not taken for a request.
#[tokio::test]
async fn two_lengths_never_reach_an_instance() {
    let fixture = Fixture::new().await;
    for two in [
        "Content-Length: 4\nTransfer-Encoding: chunked\n",
        "Transfer-Encoding: chunked\nContent-Length: 4\n",
    ] {
        let smuggled = "0\n\nGET /smuggled HTTP/1.1\nHost: app.test\n\n";
        let answer = fixture
            .say(&format!(
                "POST /echo HTTP/1.1\nHost: app.test\n{two}\n{smuggled}"
            ))
            .await;
        if status(&answer) == 200 {
            assert!(
                answer.contains("body: 0 ") && !answer.contains("Content-Length: 4"),
                "{answer}"
            );
            assert!(answer.contains("Connection: close"), "{answer}");
        } else {
            assert_eq!(status(&answer), 400);
        }
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    for bad in [
        "Content-Length: 4\nContent-Length: 5\n",
        "Content-Length: -1\n",
        "Transfer-Encoding: gzip\n",
        "Content-Length: 1,1\n",
    ] {
        assert_eq!(
            status(
                &fixture
                    .say(&format!(
                        "POST /echo HTTP/1.1\nHost: app.test\n{bad}\nabcde"
                    ))
                    .await
            ),
            400,
            "{bad}"
        );
    }
    assert!(fixture.app.seen.requests.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut() {
    let fixture = Fixture::new().await;
    let mut silent = fixture.connect().await;
    let mut slow = fixture.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    let mut second = fixture.connect().await;
    second
        .write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\nGET /")
        .await
        .unwrap();
    read_to(&mut second, "hello").await;
    let mut idle = fixture.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
        .await
        .unwrap();
    read_to(&mut idle, "hello").await;
    let mut preface = fixture.connect().await;
    preface.write_all(b"PRI * HT").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begin = tokio::time::Instant::now();
    tokio::time::pause(); // the ten seconds of a head and the minute of an idle connection pass at once
    for socket in [&mut silent, &mut slow, &mut second, &mut idle, &mut preface] {
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
    }
    assert!(
        begin.elapsed() < Duration::from_secs(62),
        "{:?}",
        begin.elapsed()
    );
}

/// As many requests as one likes, each within its limits, on a connection older than all of them.
#[tokio::test]
async fn a_connection_in_use_is_never_cut() {
    let fixture = Fixture::new().await;
    let mut client = fixture.connect().await;
    for _ in 0..8 {
        client
            .write_all(b"GET /slow HTTP/1.1\r\nHost: app.test\r\n\r\n")
            .await
            .unwrap();
        read_to(&mut client, "slow").await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(30)).await;
        tokio::time::resume();
    }
}

#[tokio::test]
async fn nonsense_gets_an_answer_or_is_hung_up_on() {
    let fixture = Fixture::new().await;
    for nonsense in [
        "hello\n\n",
        "GET /\n\n",
        "GET / HTTP/9.9\nHost: app.test\n\n",
        "\u{16}\u{3}\u{1}\n\n",
    ] {
        let answer = fixture.say(nonsense).await;
        assert!(
            answer.is_empty() || status(&answer) == 400 || status(&answer) == 505,
            "{nonsense:?}: {answer}"
        );
    }
    // As much of a head as is buffered, and not its end: all of it has been read, so that nothing
    // left unread resets the connection under the answer.
    let begin = "GET / HTTP/1.1\nHost: app.test\nX-Long: ";
    // Each of the two ends of lines becomes two bytes.
    let head = begin.to_owned() + &"x".repeat(64 * 1024 - begin.len() - 2);
    let answer = fixture.say(&head).await;
    assert_eq!(status(&answer), 431, "{answer}");
    assert_eq!(status(&fixture.get("/").await), 200);
}
