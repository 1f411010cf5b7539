//! Requests that kill their application: a safe request is sent once more and no more, an unsafe
//! one never, and none once its answer has begun.

use std::fs;
use std::io::{Read, Write};
use std::time::Duration;

use crate::support::http::{connect, read_head};
use crate::support::{Combination, Fixture, need};

/// An application that logs each request that it has read, before it acts on it. `pool`: it forks,
/// and only the child that serves the request dies.
const APP: &str = r#"
import os, socket, sys, threading
def serve(c):
    f = c.makefile("rb")
    while True:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = f.readline()
            if not line: return
            head += line
        method, path = head.split(b" ")[:2]
        log = os.open(os.environ["HOME"] + "/asked", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(log, method + b" " + path + b"\n"); os.close(log)
        if path.startswith(b"/die"):
            if path == b"/die-late": c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
            if path == b"/die-in-head": c.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")
            os._exit(1)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(64)
while sys.argv[2] == "pool":
    if os.fork() == 0: break
    os.wait()
while True:
    c, _ = s.accept(); threading.Thread(target=serve, args=(c,), daemon=True).start()
"#;

fn fixture(combination: Combination, kind: &str) -> Option<Fixture> {
    if !need::programs(&["python3"]) {
        return None;
    }
    let fixture = Fixture::with(combination, |s| s.idle = "60s")?;
    let dir = fixture.model(
        "mortal",
        &format!("command = [\"python3\", \"-u\", \"app.py\", \"{{{{ socket }}}}\", \"{kind}\"]\n"),
    );
    fs::create_dir_all(dir.join("files")).unwrap();
    fs::write(dir.join("files/app.py"), APP).unwrap();
    fixture.create("shop", "mortal");
    Some(fixture)
}

/// Sends a request; returns its status, 0 if it has none, and how often the application has read
/// it.
fn ask(fixture: &Fixture, method: &str, target: &str) -> (u16, usize) {
    let log = fixture.instance("shop").join("data/asked");
    let _ = fs::remove_file(&log);
    let status = match fixture.ask(method, "shop", target).open(fixture.address()) {
        Ok(mut open) => {
            let _ = open.body.read_to_end(&mut Vec::new());
            open.reply.status
        }
        Err(_) => 0,
    };
    (
        status,
        fs::read_to_string(&log)
            .unwrap_or_default()
            .lines()
            .filter(|line| line.ends_with(target))
            .count(),
    )
}

/// The instance is awake and serves, and no failure is recorded for it.
fn is_well(fixture: &Fixture) {
    fixture.acc(&["restart", "shop"]).ok();
    fixture.acc(&["reset", "shop"]);
    fixture.get("shop", "/").status(200);
}

pub fn each_is_read_as_often_as_it_may_be(combination: Combination) {
    let cases = [
        ("GET", "/die", 502, 2),
        ("POST", "/die", 502, 1),
        ("GET", "/die-in-head", 502, 1),
        ("GET", "/die-late", 200, 1),
    ];
    for (kind, cases) in [("alone", &cases[..]), ("pool", &cases[..2])] {
        let Some(fixture) = fixture(combination, kind) else {
            return;
        };
        for &(method, target, status, most) in cases {
            for state in ["awake", "asleep", "pooled"] {
                if state != "awake" {
                    // Without the seconds of grace that a drain gives to connections whose clients
                    // are gone.
                    fixture.acc(&["stop", "--now", "shop"]).ok();
                }
                // acc woke the instance, has a connection to it, and keeps that for the next
                // request.
                if state == "pooled" {
                    fixture.get("shop", "/").status(200);
                }
                let (said, reads) = ask(&fixture, method, target);
                let what = format!("{method} {target} {state} {kind} ({combination:?})");
                assert_eq!(said, status, "{what}: read {reads} times");
                assert!((1..=most).contains(&reads), "{what}: read {reads} times");
                is_well(&fixture);
            }
        }
    }
}

/// On a connection of the client that was used before and kept open.
pub fn so_is_one_on_a_kept_connection(combination: Combination) {
    let Some(fixture) = fixture(combination, "alone") else {
        return;
    };
    for (method, most) in [("GET", 2), ("POST", 1)] {
        let log = fixture.instance("shop").join("data/asked");
        let mut client = connect(fixture.address()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        for target in ["/", "/die"] {
            let _ = fs::remove_file(&log);
            let length = if method == "POST" {
                "Content-Length: 0\r\n"
            } else {
                ""
            };
            write!(
                client,
                "{method} {target} HTTP/1.1\r\nHost: {}\r\n{length}\r\n",
                fixture.host("shop")
            )
            .unwrap();
            let mut open = read_head(client.try_clone().unwrap(), method).unwrap();
            open.body.read_to_end(&mut Vec::new()).unwrap();
            assert_eq!(
                open.reply.status,
                if target == "/" { 200 } else { 502 },
                "{method} {target} ({combination:?})"
            );
        }
        let reads = fs::read_to_string(&log).unwrap().lines().count();
        assert!(
            (1..=most).contains(&reads),
            "{method}: read {reads} times ({combination:?})"
        );
        is_well(&fixture);
    }
}
