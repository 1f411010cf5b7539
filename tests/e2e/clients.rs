//! What one client, or an application that is careless with its connections, must not be able to
//! occupy.

use std::fs;
use std::io::{Read, Write};
use std::time::Duration;

use crate::support::{Combination, Fixture, http, need, now};

/// An application that serves one connection after the other. With `keep` it closes none, else it
/// closes each after its answer.
const APP: &str = r#"
import os, socket
s = socket.socket(socket.AF_UNIX); s.bind(os.environ["APP_SOCKET"]); s.listen(64)
kept = []
while True:
    c, _ = s.accept(); d = b""
    while b"\r\n\r\n" not in d:
        p = c.recv(65536)
        if not p: break
        d += p
    head, _, body = d.partition(b"\r\n\r\n")
    size = sum(int(l.split(b":")[1]) for l in head.split(b"\r\n") if l.lower().startswith(b"content-length:"))
    while len(body) < size:
        p = c.recv(65536)
        if not p: break
        body += p
    if b"transfer-encoding: chunked" in head.lower():
        while not body.endswith(b"0\r\n\r\n"):
            p = c.recv(65536)
            if not p: break
            body += p
    try:
        if d: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    except OSError: pass
    if KEEP: kept.append(c)
    else: c.close()
"#;

fn app(fixture: &Fixture, keep: bool) -> bool {
    if !need::programs(&["python3"]) {
        return false;
    }
    let dir = fixture.model(
        "one",
        "command = [\"python3\", \"app.py\"]\n[env]\nAPP_SOCKET = \"{{ socket }}\"\n",
    );
    fs::create_dir_all(dir.join("files")).unwrap();
    fs::write(
        dir.join("files/app.py"),
        APP.replace("KEEP", if keep { "True" } else { "False" }),
    )
    .unwrap();
    true
}

pub fn an_application_that_closes_nothing_sleeps_all_the_same(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| (s.idle, s.drain) = ("100ms", "1m")) else {
        return;
    };
    if !app(&fixture, true) {
        return;
    }
    fixture.create("shop", "one");
    for _ in 0..3 {
        fixture.get("shop", "/").status(200);
    }
    fixture.monitor_until_asleep("shop");
    fixture.get("shop", "/").status(200);
    let began = now();
    fixture.acc(&["stop", "shop"]).ok();
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "a stop waited {:?} for nobody",
        began.elapsed()
    );
}

pub fn a_slow_body_holds_no_application_that_serves_one_at_a_time(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    if !app(&fixture, false) {
        return;
    }
    fixture.create("shop", "one");
    let bodies = [
        "Content-Length: 1000\r\n\r\nx",
        "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
        "Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
        "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
    ];
    let mut held = Vec::new();
    for body in bodies {
        let mut client = http::connect(fixture.address()).unwrap();
        write!(
            client,
            "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{body}",
            fixture.host("shop")
        )
        .unwrap();
        if body.starts_with("Expect") {
            let mut told = [0; 25];
            client.read_exact(&mut told).unwrap();
            assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        held.push(client);
        for _ in 0..5 {
            fixture.get("shop", "/").status(200);
        }
    }
    // The held requests are served once those before them are done.
    let rests = [
        vec![b'x'; 999],
        b"0\r\n\r\n".to_vec(),
        vec![b'x'; 1000],
        b"1\r\nx\r\n0\r\n\r\n".to_vec(),
    ];
    for (mut client, rest) in held.into_iter().zip(rests) {
        client.write_all(&rest).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"),
            "{answer}"
        );
    }
}
