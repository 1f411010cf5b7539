//! Realistic clients and applications: slow ones, ones with a single thread, answers before the
//! request has ended, odd targets and many headers. Awake or asleep, on either edge, the same
//! request gets the same answer.

use std::fs;
use std::io::{Read, Write};
use std::time::Duration;

use crate::support::{Combination, Fixture, http, need};

/// An application that serves one connection after the other, and answers with the request that it
/// read, byte by byte. `keeps`: it keeps a connection until the client closes it.
const APP: &str = r##"
import json, os, socket
s = socket.socket(socket.AF_UNIX); s.bind(os.environ["APP_SOCKET"]); s.listen(64)
keeps = os.environ["KEEPS"] == "yes"
def serve(c):
    d = b""
    while True:
        while b"\r\n\r\n" not in d:
            p = c.recv(65536)
            if not p: return
            d += p
        head, _, d = d.partition(b"\r\n\r\n")
        target = head.split(b" ")[1]
        if target == b"/early":
            c.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            return
        size = sum(int(l.split(b":")[1]) for l in head.split(b"\r\n") if l.lower().startswith(b"content-length:"))
        while len(d) < size:
            p = c.recv(65536)
            if not p: return
            d += p
        d = d[size:]
        if target == b"/head":
            with open(os.environ["HOME"] + "/asked", "a") as f: f.write("x")
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Large: " + b"x" * int(os.environ["HEAD"]) + b"\r\n\r\nok")
            return
        if target == b"/big": body = b"x" * (4 << 20)
        else: body = json.dumps(head.decode("latin-1")).encode()
        more = b"".join(b"Set-Cookie: c%d=v\r\n" % n for n in range(150)) if target == b"/cookies" else b""
        more += b"X-CamelCase: 1\r\n" if keeps else b"X-CamelCase: 1\r\nConnection: close\r\n"
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(body) + more + b"\r\n" + body)
        if not keeps: return
while True:
    c, _ = s.accept()
    try: serve(c)
    except OSError: pass
    c.close()
"##;

fn fixture(combination: Combination, keeps: &str) -> Option<Fixture> {
    if !need::programs(&["python3"]) {
        return None;
    }
    let fixture = Fixture::with(combination, |s| s.idle = "60s")?;
    let text = format!(
        "command = [\"python3\", \"-u\", \"app.py\"]\n[env]\nAPP_SOCKET = \"{{{{ socket }}}}\"\nKEEPS = \"{keeps}\"\nHEAD = \"200000\"\n"
    );
    let dir = fixture.model("careless", &text);
    fs::create_dir_all(dir.join("files")).unwrap();
    fs::write(dir.join("files/app.py"), APP).unwrap();
    fixture.create("shop", "careless");
    Some(fixture)
}

/// Sends bytes on a new connection; returns everything that comes back.
fn say(fixture: &Fixture, bytes: &[u8]) -> Vec<u8> {
    let mut client = http::connect(fixture.address()).unwrap();
    client.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    answer
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len())
        .any(|window| window == part.as_bytes())
}

pub fn a_slow_client_holds_no_application(combination: Combination) {
    let Some(fixture) = fixture(combination, "no") else {
        return;
    };
    let host = fixture.host("shop");
    // A client that reads nothing of four megabytes; its receive window is small.
    let reader = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    reader.set_recv_buffer_size(8192).unwrap();
    reader.connect(&fixture.address().into()).unwrap();
    let mut reader: std::net::TcpStream = reader.into();
    reader
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    write!(
        reader,
        "GET /big HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    fixture.get("shop", "/").status(200);
    // These clients have sent nearly all of a body.
    let mut senders = Vec::new();
    for sent in [1, 70_000, 299_999] {
        let mut sender = http::connect(fixture.address()).unwrap();
        write!(
            sender,
            "POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 300000\r\n\r\n"
        )
        .unwrap();
        sender.write_all(&vec![b'y'; sent]).unwrap();
        fixture.get("shop", "/").status(200);
        senders.push((sender, 300_000 - sent));
    }
    // No request was lost.
    for (mut sender, left) in senders {
        sender.write_all(&vec![b'y'; left]).unwrap();
        assert_eq!(http::read_head(sender, "POST").unwrap().reply.status, 200);
    }
    let mut answer = http::read_head(reader, "GET").unwrap();
    let mut body = Vec::new();
    answer.body.read_to_end(&mut body).unwrap();
    assert!(
        body.len() == 4 << 20 && body.iter().all(|byte| *byte == b'x'),
        "{} bytes",
        body.len()
    );
}

/// The application would wait on a connection that is kept open, if there was one.
pub fn one_thread_and_kept_connections_are_no_wait(combination: Combination) {
    let Some(fixture) = fixture(combination, "yes") else {
        return;
    };
    for _ in 0..5 {
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| fixture.get("shop", "/").status(200));
            }
        });
    }
}

pub fn an_answer_before_the_body_was_read_arrives(combination: Combination) {
    let Some(fixture) = fixture(combination, "no") else {
        return;
    };
    let host = fixture.host("shop");
    for asleep in [false, true] {
        for size in [100, 60_000, 300_000, 8 << 20] {
            for _ in 0..4 {
                if asleep {
                    fixture.acc(&["stop", "shop"]).ok();
                }
                let mut client = http::connect(fixture.address()).unwrap();
                write!(
                    client,
                    "POST /early HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n"
                )
                .unwrap();
                // A client that sends everything first is not cut off.
                client
                    .write_all(&vec![b'x'; size])
                    .unwrap_or_else(|e| panic!("{size}: {e}"));
                assert_eq!(
                    http::read_head(client, "POST").unwrap().reply.status,
                    401,
                    "{size} asleep: {asleep}"
                );
            }
        }
    }
}

pub fn targets_and_headers_pass_as_they_are(combination: Combination) {
    let Some(fixture) = fixture(combination, "no") else {
        return;
    };
    let host = fixture.host("shop");
    let targets: [&[u8]; 8] = [
        b"/a?q=<b>",
        b"/a<b>",
        b"/a?q=\"x\"",
        b"/a`b",
        b"/\xe4",
        b"/a%2Fb//c/./%2e%2e/d?x[]=1&y={z}|^",
        "/\u{e4}?q=\u{20ac}".as_bytes(),
        b"/?",
    ];
    for asleep in [false, true] {
        let ask = |target: &[u8], headers: &str| {
            if asleep {
                fixture.acc(&["stop", "shop"]).ok();
            }
            let rest = format!(" HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
            let answer = say(&fixture, &[b"GET ", target, rest.as_bytes()].concat());
            assert!(
                answer.starts_with(b"HTTP/1.1 200 "),
                "{} asleep: {asleep}: {}",
                target.escape_ascii(),
                answer.escape_ascii()
            );
            answer
        };
        for target in targets {
            let answer = ask(target, "");
            let body = answer.split(|byte| *byte == b'\n').next_back().unwrap();
            let head: String = serde_json::from_slice(body).unwrap();
            let sent: Vec<u8> = head
                .split(' ')
                .nth(1)
                .unwrap()
                .chars()
                .map(|c| u8::try_from(c).unwrap())
                .collect();
            assert_eq!(sent, target, "{}", target.escape_ascii());
        }
        let many: String = (0..150)
            .map(|n| format!("X-CamelCase-{n}: v\r\n"))
            .collect();
        let answer = ask(b"/cookies", &many);
        for part in [
            "X-CamelCase: 1\r\n",
            "Content-Length: ",
            "Set-Cookie: c149=v\r\n",
            "X-CamelCase-149: v",
        ] {
            assert!(contains(&answer, part), "{part} asleep: {asleep}");
        }
    }
}

/// Such an answer cannot be passed on, and sending the request again would only execute it twice.
pub fn an_answer_with_a_head_that_is_too_large_is_asked_for_once(combination: Combination) {
    let Some(fixture) = fixture(combination, "no") else {
        return;
    };
    let log = fixture.instance("shop").join("data/asked");
    for asleep in [false, true] {
        if asleep {
            fixture.acc(&["stop", "shop"]).ok();
        }
        fixture.get("shop", "/head").status(502);
        assert_eq!(fs::read_to_string(&log).unwrap(), "x", "asleep: {asleep}");
        fs::remove_file(&log).unwrap();
    }
}

/// Several requests on one connection, with bodies, and with pieces between them: only bytes that
/// begin a request are parsed as one.
pub fn odd_targets_on_a_connection_with_other_requests(combination: Combination) {
    let Some(fixture) = fixture(combination, "yes") else {
        return;
    };
    let host = fixture.host("shop");
    let mut client = http::connect(fixture.address()).unwrap();
    for nth in 0..6 {
        let body = format!("GET /<{nth}> HTTP/1.1\r\n\r\n");
        let post = format!(
            "POST /<post> HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let get = format!("GET /`{nth}`< HTTP/1.1\r\nHost: {host}\r\n\r\n");
        for request in [post, get] {
            let half = if nth % 2 == 0 { request.len() } else { 6 + nth };
            client.write_all(&request.as_bytes()[..half]).unwrap();
            client.flush().unwrap();
            client.write_all(&request.as_bytes()[half..]).unwrap();
            let mut answer = http::read_head(client.try_clone().unwrap(), "GET").unwrap();
            let mut said = String::new();
            answer.body.read_to_string(&mut said).unwrap();
            let head: String = serde_json::from_str(&said).unwrap();
            assert_eq!(head.lines().next(), request.lines().next(), "{nth}");
        }
    }
}
