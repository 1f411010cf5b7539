//! The actions of a script: verbs over the control socket, one connection each, and whole commands.
//! Returns only how long each took.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Fixture, now};

/// Longest time a verb may take.
const LIMIT: Duration = Duration::from_secs(60);

/// In milliseconds.
pub fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1000.0
}

/// Sends one request to the server of this fixture and waits for its answer; returns the duration
/// in milliseconds.
pub fn verb(fixture: &Fixture, request: &Value) -> f64 {
    let began = now();
    let answer = exchange(&fixture.run().join("control.sock"), request)
        .unwrap_or_else(|e| panic!("no answer to {request}: {e}"));
    let took = ms(began.elapsed());
    assert!(answer.starts_with("HTTP/1.1 200"), "{request}: {answer}");
    took
}

/// Does a server answer?
pub fn pings(fixture: &Fixture) -> bool {
    exchange(
        &fixture.run().join("control.sock"),
        &json!({ "verb": "ping" }),
    )
    .is_ok_and(|a| a.starts_with("HTTP/1.1 200"))
}

fn exchange(socket: &Path, request: &Value) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let body = request.to_string();
    let head = "POST /v1/request HTTP/1.1\r\nHost: acc\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length";
    stream.write_all(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// `acc create NAME --model MODEL --asleep`.
pub fn create(fixture: &Fixture, name: &str, model: &str) -> f64 {
    verb(
        fixture,
        &json!({ "verb": "create", "name": name, "model": model, "hosts": [], "owner": null, "set": {}, "idle_ms": null, "wanted": null,
            "asleep": true }),
    )
}

/// `acc start NAME` for all of them, from a few connections at once.
pub fn start_all(fixture: &Fixture, names: &[String]) {
    std::thread::scope(|scope| {
        for part in names.chunks(names.len().div_ceil(8).max(1)) {
            scope.spawn(move || {
                for name in part {
                    verb(fixture, &json!({ "verb": "start", "instance": name }));
                }
            });
        }
    });
}

/// Puts the instance to sleep, then sends it a request on a new connection; returns the time from
/// the connect to the whole answer.
pub fn wake(fixture: &Fixture, name: &str) -> f64 {
    verb(
        fixture,
        &json!({ "verb": "stop", "instance": name, "now": false }),
    );
    let ask = fixture.ask("GET", name, "/");
    let began = now();
    let reply = ask.send(fixture.address()).unwrap();
    let took = ms(began.elapsed());
    reply.status(200);
    took
}

/// Runs a whole command to its end.
pub fn command(mut command: Command) -> f64 {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let began = now();
    let status = command.status().unwrap();
    let took = ms(began.elapsed());
    assert!(status.success(), "{command:?}: {status}");
    took
}
