//! Request bodies: held during a wake and passed on byte for byte.

use std::io::{Read, Write};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::support::http::{self, Ask, Reply};
use crate::support::wait::pause;
use crate::support::{Combination, Fixture};

/// Bytes without a pattern that a buffer could hide.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// The answer of `/echo` must be what was sent.
#[track_caller]
fn assert_echo(reply: Reply, method: &str, query: &str, body: &[u8]) {
    let echo = reply.status(200).json();
    assert_eq!(
        (&echo["method"], echo["query"].as_str().unwrap_or_default()),
        (&method.into(), query),
        "{echo}"
    );
    assert_eq!(echo["length"], body.len(), "{echo}");
    assert_eq!(echo["sha256"], sha256(body).as_str(), "{echo}");
}

pub fn fifty_megabytes_are_posted_through_a_wake(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    fixture
        .acc(&[
            "create",
            "shop",
            "--model",
            "tester",
            "--set",
            "start_delay=300ms",
            "--asleep",
        ])
        .ok();
    let body = noise(50 << 20);
    let ask = fixture
        .ask("POST", "shop", "/echo?a=%2F%20b&c=//d")
        .body(body.clone());
    assert_echo(fixture.send(&ask), "POST", "a=%2F%20b&c=//d", &body);
    assert_echo(fixture.send(&ask), "POST", "a=%2F%20b&c=//d", &body);
    let requests = fixture
        .told("shop", "REQ")
        .into_iter()
        .filter(|l| l.contains("POST"))
        .count();
    assert_eq!(requests, 2, "a POST was sent twice");
}

pub fn a_chunked_body_and_one_that_expects_continue_go_through_a_wake(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.max_body = "8MiB") else {
        return;
    };
    fixture
        .acc(&[
            "create",
            "shop",
            "--model",
            "tester",
            "--set",
            "start_delay=100ms",
            "--asleep",
        ])
        .ok();
    let body = noise(3 << 20);
    assert_echo(
        fixture.send(
            &fixture
                .ask("PUT", "shop", "/echo")
                .body(body.clone())
                .chunked(),
        ),
        "PUT",
        "",
        &body,
    );
    fixture.acc(&["stop", "shop"]).ok();

    // The client sends its body only after it got `100 Continue`.
    let mut stream = http::connect(fixture.address()).unwrap();
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        fixture.host("shop"),
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 100");
    let mut writing = stream.try_clone().unwrap();
    let sent = body.clone();
    let writer = std::thread::spawn(move || writing.write_all(&sent));
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    writer.join().unwrap().unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        text.contains("HTTP/1.1 200") && text.contains(&sha256(&body)),
        "{text}"
    );

    // Longer than `max_body`: refused, and no instance is woken for it.
    fixture.acc(&["stop", "shop"]).ok();
    let big: Ask = fixture.ask("POST", "shop", "/echo").body(noise(9 << 20));
    fixture.send(&big).status(413);
    assert_eq!(fixture.phase("shop"), "asleep");
}

pub fn a_slow_upload_is_not_cut_by_the_idle_timeout(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "500ms") else {
        return;
    };
    fixture.create("shop", "tester");
    let body = noise(30 << 20);
    let mut stream = http::connect(fixture.address()).unwrap();
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        fixture.host("shop"),
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // Thirty parts over three seconds, six idle timeouts, with monitor runs all the while. The body
    // is collected before it is passed on, so the instance may sleep meanwhile.
    for part in body.chunks(1 << 20) {
        stream.write_all(part).unwrap();
        fixture.monitor();
        pause(Duration::from_millis(60));
    }
    let mut open = http::read_head(stream, "POST").unwrap();
    let mut answer = Vec::new();
    open.body.read_to_end(&mut answer).unwrap();
    assert_echo(
        Reply {
            body: answer,
            ..open.reply
        },
        "POST",
        "",
        &body,
    );
    fixture.monitor_until_asleep("shop");
}
