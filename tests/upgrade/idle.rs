//! An open request is use: no idle stop cuts it, however quiet it is.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::{Combination, Fixture, Settings, http, now};

pub fn what_is_open_is_never_cut_by_an_idle_stop(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| {
        (s.idle, s.check_every) = ("300ms", "100ms")
    }) else {
        return;
    };
    // One instance for each kind, so that no kind keeps another awake.
    for name in ["answer", "upload", "reader", "socket", "silent", "events"] {
        fixture
            .acc(&["create", name, "--model", "tester", "--asleep"])
            .ok();
    }
    let length = Duration::from_millis(2500);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            fixture.get("answer", "/slow?ms=2500").status(200);
        });
        scope.spawn(|| slow_upload(&fixture, length));
        scope.spawn(|| slow_reader(&fixture, length));
        scope.spawn(|| {
            let (mut socket, began) = (fixture.web_socket("socket"), now());
            while began.elapsed() < length {
                assert_eq!(socket.echo("traffic").unwrap(), "traffic");
                crate::support::wait::pause(Duration::from_millis(100));
            }
            socket.close();
        });
        scope.spawn(|| {
            let mut socket = fixture.web_socket("silent");
            crate::support::wait::pause(length);
            assert_eq!(socket.echo("still there").unwrap(), "still there");
            socket.close();
        });
        scope.spawn(|| {
            let mut open = fixture
                .ask("GET", "events", "/stream?seconds=2.5&kind=sse")
                .open(fixture.address())
                .unwrap();
            let mut text = String::new();
            open.body.read_to_string(&mut text).unwrap();
            assert_eq!(text.matches("data: ").count(), 25);
        });
    });
    for name in ["answer", "upload", "reader", "socket", "silent", "events"] {
        fixture.wait_phase(name, "asleep");
        let starts = fixture.told(name, "START").len();
        // nginx holds an upload back until it is complete, so the upload reaches the instance only
        // then.
        assert_eq!(starts, 1, "`{name}` was stopped within its own request");
    }
}

pub fn a_silent_web_socket_ends_when_the_config_says_so(combination: Combination) {
    let silent = |s: &mut Settings| {
        (s.idle, s.check_every, s.silent_connections) = ("300ms", "100ms", "600ms");
    };
    if combination.edge == "nginx" {
        let Some(fixture) = Fixture::unbooted(combination, silent) else {
            return;
        };
        fixture
            .acc(&["config", "check"])
            .code(2)
            .says(&["idle.silent_connections", "never"]);
        fixture.configure(&Settings::default());
        return;
    }
    let Some(fixture) = Fixture::with(combination, silent) else {
        return;
    };
    for name in ["silent", "lively"] {
        fixture
            .acc(&["create", name, "--model", "tester", "--asleep"])
            .ok();
    }
    let (mut silent, mut lively) = (fixture.web_socket("silent"), fixture.web_socket("lively"));
    assert_eq!(silent.echo("once").unwrap(), "once");
    let began = now();
    while fixture.phase("silent") != "asleep" {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "it never slept: {}",
            fixture.info("silent")
        );
        assert_eq!(lively.echo("again").unwrap(), "again");
    }
    assert!(
        began.elapsed() >= Duration::from_millis(600),
        "it slept after {:?}",
        began.elapsed()
    );
    assert!(silent.echo("gone").is_err());
    assert_eq!(lively.echo("there").unwrap(), "there");
    lively.close();
}

fn slow_upload(fixture: &Fixture, length: Duration) {
    let mut stream = http::connect(fixture.address()).unwrap();
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: {}\r\nContent-Length: 50\r\nConnection: close\r\n\r\n",
        fixture.host("upload")
    );
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..50 {
        crate::support::wait::pause(length / 50);
        stream.write_all(b"x").unwrap();
    }
    assert_eq!(http::read_head(stream, "POST").unwrap().reply.status, 200);
}

/// Reads a stream more slowly than it is sent.
fn slow_reader(fixture: &Fixture, length: Duration) {
    let mut open = fixture
        .ask("GET", "reader", "/stream?seconds=2")
        .open(fixture.address())
        .unwrap();
    let (mut byte, mut all, began) = ([0; 16], Vec::new(), now());
    loop {
        let n = open.body.read(&mut byte).unwrap();
        if n == 0 {
            break;
        }
        all.extend_from_slice(&byte[..n]);
        if began.elapsed() < length {
            crate::support::wait::pause(Duration::from_millis(100));
        }
    }
    assert_eq!(String::from_utf8(all).unwrap().lines().count(), 20);
}
