//! Who listens on the port of an instance: only the instance itself gets its requests.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::support::fixture::SOON;
use crate::support::wait::{holds, wait_until};
use crate::support::{Combination, Fixture, need, processes};

/// An application that reports when it has started, listens half a second later, and answers `own`;
/// on `/close` it stops listening and keeps running. If its port is taken it takes another, as many
/// applications do.
const APP: &str = r#"description = "an application on a port"
listen = "tcp"
command = ["python3", "-u", "app.py", "{{ port }}", "{{ data }}", "{{ params.how }}"]

[params.how]
description = "`reuse`: it sets SO_REUSEPORT"
default = "plain"

[timeouts]
start = "10s"
"#;

/// An application that listens in the process named by `how`; each of them ends with the first
/// process.
const FAMILY: &str = r#"description = "an application of several processes"
listen = "tcp"
command = ["python3", "-u", "app.py", "{{ port }}", "{{ params.how }}"]

[params.how]
description = "which of its processes listens"
default = "exec"
"#;

/// The path of the program [`APP`].
const APP_PY: &str = r#"import os, socket, sys, time
open(sys.argv[2] + "/started", "w").close()
time.sleep(0.5)
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if sys.argv[3] == "reuse": s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
try: s.bind(("127.0.0.1", int(sys.argv[1])))
except OSError: s.bind(("127.0.0.1", 0))
s.listen(64)
while True:
    c, _ = s.accept(); gone = c.recv(65536).startswith(b"GET /close")
    if gone: s.close()
    c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nown"); c.close()
    if gone: time.sleep(600)
"#;

/// The path of the program [`FAMILY`].
const FAMILY_PY: &str = r#"import os, socket, sys, threading, time
port, how = int(sys.argv[1]), sys.argv[2]
def bound():
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", port)); s.listen(64); return s
def serve(s):
    while True:
        c, _ = s.accept(); c.recv(65536)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nown"); c.close()
r, w = os.pipe()
def wait(): time.sleep(1000)
def leave():
    os.close(w)
    threading.Thread(target=lambda: (os.read(r, 1), os._exit(0)), daemon=True).start()
if how == "exec":
    if len(sys.argv) == 3: os.execvp("sh", ["sh", "-c", "exec \"$@\"", "sh"] + sys.orig_argv + ["again"])
    serve(bound())
elif how == "workers":
    s = bound(); [os.fork() or serve(s) for _ in range(3)]; s.close(); wait()
if os.fork(): wait()
if how in ("session", "daemon"): os.setsid()
if how in ("orphaned", "daemon") and os.fork(): os._exit(0)
leave(); serve(bound())
"#;

/// A program that listens where it should not, and notes what it is sent.
struct Thief {
    heard: Arc<Mutex<Vec<u8>>>,
    stop: Arc<AtomicBool>,
    task: Option<JoinHandle<()>>,
}

impl Thief {
    /// The socket bound, but not yet listening.
    fn bound(at: SocketAddr, reuse: bool) -> Socket {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(reuse).unwrap();
        socket.bind(&at.into()).unwrap();
        socket
    }

    fn listening(socket: Socket) -> Self {
        socket.listen(64).unwrap();
        let listener = TcpListener::from(socket);
        listener.set_nonblocking(true).unwrap();
        let (heard, stop) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicBool::new(false)),
        );
        let task = std::thread::spawn({
            let (heard, stop) = (heard.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::SeqCst) {
                    let Ok((mut client, _)) = listener.accept() else {
                        crate::support::wait::pause(Duration::from_millis(2));
                        continue;
                    };
                    client.set_nonblocking(false).unwrap();
                    client
                        .set_read_timeout(Some(Duration::from_secs(2)))
                        .unwrap();
                    let mut bytes = [0; 4096];
                    if let Ok(length) = client.read(&mut bytes) {
                        heard.lock().unwrap().extend(&bytes[..length]);
                    }
                    let _ = std::io::Write::write_all(
                        &mut client,
                        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nthief",
                    );
                }
            }
        });
        Self {
            heard,
            stop,
            task: Some(task),
        }
    }

    /// What this program was sent until now.
    fn end(mut self) -> String {
        self.stop.store(true, Ordering::SeqCst);
        self.task.take().unwrap().join().unwrap();
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

fn address(fixture: &Fixture, name: &str) -> SocketAddr {
    fixture.info(name)["listen"]["tcp"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// With the model and a sleeping instance of it.
fn fixture(combination: Combination, how: &str) -> Option<Fixture> {
    if !need::programs(&["python3"]) {
        return None;
    }
    Some(with_app(
        Fixture::with(combination, |s| s.idle = "60s")?,
        how,
    ))
}

fn model(fixture: &Fixture, name: &str, text: &str, script: &str) {
    let files = fixture.model(name, text).join("files");
    std::fs::create_dir_all(&files).unwrap();
    std::fs::write(files.join("app.py"), script).unwrap();
}

fn with_app(fixture: Fixture, how: &str) -> Fixture {
    model(&fixture, "app", APP, APP_PY);
    fixture
        .acc(&[
            "create",
            "shop",
            "--model",
            "app",
            "--set",
            &format!("how={how}"),
        ])
        .ok();
    fixture.acc(&["stop", "shop"]).ok();
    fixture
}

/// Another program listens first, at any address that takes the instance's connections, after acc
/// has checked the port and before the application binds it.
pub fn a_stranger_that_listens_first_is_never_asked(combination: Combination) {
    if !need::programs(&["python3"]) {
        return;
    }
    let Some(mut fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    for (ip, how) in [
        ("127.0.0.1", "plain"),
        ("0.0.0.0", "plain"),
        ("::", "plain"),
        ("127.0.0.1", "reuse"),
        ("0.0.0.0", "reuse"),
    ] {
        fixture = with_app(fixture, how);
        let before = address(&fixture, "shop");
        let started = fixture.instance("shop").join("data/started");
        std::fs::remove_file(&started).unwrap();
        let socket = Thief::bound(
            SocketAddr::new(ip.parse::<IpAddr>().unwrap(), before.port()),
            how == "reuse",
        );
        let (reply, heard) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| fixture.get("shop", "/first"));
            wait_until("the application to start", SOON, || {
                holds(started.exists(), "not yet")
            });
            let thief = Thief::listening(socket);
            (asking.join().unwrap(), thief.end())
        });
        assert!(
            reply.status == 503 && heard.is_empty(),
            "{ip} {how}: {reply:?}, {heard}"
        );
        fixture.wait_phase("shop", "failed");
        let events = fixture.acc(&["events", "shop"]).ok();
        events.says(&[
            "is not part of the instance",
            &format!("pid {}, `", std::process::id()),
        ]);
        fixture.acc(&["reset", "shop"]).ok();
        assert_eq!(
            fixture.get("shop", "/").status(200).text(),
            "own",
            "{ip} {how}"
        );
        fixture.acc(&["destroy", "--force", "shop"]).ok();
        fixture.acc(&["purge", "shop"]).ok();
    }
}

/// The same, by another user than the instance's, who may not share the port: during the start, and
/// after the application has closed its port.
pub fn a_stranger_of_another_user_is_never_asked(combination: Combination) {
    if !need::root("instances of another user") || !need::programs(&["python3"]) {
        return;
    }
    let Some(fixture) = Fixture::of_tenants(combination, |s| s.idle = "60s")
        .map(|fixture| with_app(fixture, "plain"))
    else {
        return;
    };
    let before = address(&fixture, "shop");
    let started = fixture.instance("shop").join("data/started");
    std::fs::remove_file(&started).unwrap();
    let socket = Thief::bound(before, false);
    let (reply, heard) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| fixture.get("shop", "/first"));
        wait_until("the application to start", SOON, || {
            holds(started.exists(), "not yet")
        });
        let thief = Thief::listening(socket);
        (asking.join().unwrap(), thief.end())
    });
    assert!(
        reply.status == 503 && heard.is_empty(),
        "{reply:?}, {heard}"
    );
    fixture.wait_phase("shop", "failed");
    fixture
        .acc(&["events", "shop"])
        .ok()
        .says(&["a program of user 0 that is not part of the instance"]);
    fixture.acc(&["reset", "shop"]).ok();
    assert_eq!(fixture.get("shop", "/close").status(200).text(), "own");
    let before = address(&fixture, "shop");
    wait_until("it to close its port", SOON, || {
        holds(std::net::TcpStream::connect(before).is_err(), "it is open")
    });
    let thief = Thief::listening(Thief::bound(before, false));
    wait_displaced(
        &fixture,
        "shop",
        "a program of user 0 that is not part of the instance",
    );
    assert_eq!(fixture.get("shop", "/").status(200).text(), "own");
    assert_eq!(thief.end(), "", "somebody else was asked");
}

/// Waits until an event contains this text; no event may say that the operator asked for it.
fn wait_displaced(fixture: &Fixture, name: &str, why: &str) {
    wait_until("it to be displaced", SOON, || {
        let events = fixture.acc(&["events", name]).ok().out;
        holds(
            events.contains("displaced")
                && events.contains(why)
                && events.contains("it was not reachable"),
            events,
        )
    });
    let events = fixture.acc(&["events", name]).ok().out;
    // The stop at the beginning of the test, and no other.
    assert!(
        events.matches("stopped by the operator").count() <= 1,
        "{events}"
    );
}

/// The instance stops listening while it runs, and another program takes the port: noticed without
/// a monitor run.
pub fn a_port_that_an_awake_instance_has_lost_is_noticed(combination: Combination) {
    let Some(fixture) = fixture(combination, "plain") else {
        return;
    };
    assert_eq!(fixture.get("shop", "/close").status(200).text(), "own");
    let before = address(&fixture, "shop");
    wait_until("it to close its port", SOON, || {
        holds(std::net::TcpStream::connect(before).is_err(), "it is open")
    });
    let thief = Thief::listening(Thief::bound(before, false));
    if combination.edge == "builtin" {
        // Also before it is noticed: acc checks the owner at every connection, and the request
        // waits for the next run.
        assert_eq!(fixture.get("shop", "/lost").status(200).text(), "own");
    }
    wait_displaced(&fixture, "shop", "is not part of the instance");
    assert_eq!(fixture.get("shop", "/").status(200).text(), "own");
    assert_ne!(address(&fixture, "shop"), before);
    assert_eq!(thief.end(), "", "somebody else was asked");
}

/// The application sets `SO_REUSEPORT`, and another program of its user listens on the same port.
pub fn who_joins_the_port_of_an_awake_instance_is_noticed(combination: Combination) {
    let Some(fixture) = fixture(combination, "reuse") else {
        return;
    };
    assert_eq!(fixture.get("shop", "/").status(200).text(), "own");
    let before = address(&fixture, "shop");
    let thief = Thief::listening(Thief::bound(before, true));
    wait_displaced(&fixture, "shop", "is not part of the instance");
    assert_eq!(fixture.get("shop", "/").status(200).text(), "own");
    assert_ne!(address(&fixture, "shop"), before);
    assert_eq!(thief.end(), "", "somebody else was asked");
}

/// An instance that does not listen any more is restarted, and one that does is left alone.
pub fn one_that_stops_listening_is_started_again(combination: Combination) {
    let Some(fixture) = fixture(combination, "plain") else {
        return;
    };
    assert_eq!(fixture.get("shop", "/").status(200).text(), "own");
    let pid = fixture.pid("shop");
    assert_eq!(fixture.monitor().out, "");
    fixture.get("shop", "/close").status(200);
    assert_eq!(fixture.get("shop", "/").status(200).text(), "own");
    wait_displaced(&fixture, "shop", "no longer listens on");
    assert_ne!(fixture.pid("shop"), pid);
    assert!(!processes::alive(pid));
}

/// The file of the instance's unix socket is removed: noticed at once. Another program creates its
/// own socket there: a monitor run notices.
pub fn one_whose_socket_is_gone_is_started_again(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let path = PathBuf::from(fixture.info("shop")["listen"]["unix"].as_str().unwrap());
    for replaced in [false, true] {
        fixture.get("shop", "/").status(200);
        let pid = fixture.pid("shop");
        assert_eq!(fixture.monitor().out, "");
        let thief = replaced.then(|| UnixListener::bind(path.with_extension("other")).unwrap());
        if replaced {
            std::fs::rename(path.with_extension("other"), &path).unwrap();
            fixture
                .monitor()
                .says(&["shop", "displaced", "is not part of the instance"]);
        } else {
            std::fs::remove_file(&path).unwrap();
            wait_displaced(&fixture, "shop", "can no longer be reached");
        }
        assert!(fixture.get("shop", "/").status(200).text().contains("shop"));
        assert_ne!(fixture.pid("shop"), pid);
        drop(thief);
    }
}

/// Whichever process of the instance listens, and whichever has ended since: the socket is the
/// instance's.
pub fn every_process_of_an_instance_may_listen_for_it(combination: Combination) {
    if !need::programs(&["python3"]) {
        return;
    }
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    model(&fixture, "family", FAMILY, FAMILY_PY);
    for how in ["exec", "child", "session", "workers", "orphaned", "daemon"] {
        if how == "daemon" && !marked(&fixture) {
            // The parent of the process has ended and the process has a session of its own: only a
            // control group, or a mark, tells which instance it belongs to.
            continue;
        }
        fixture
            .acc(&[
                "create",
                how,
                "--model",
                "family",
                "--set",
                &format!("how={how}"),
            ])
            .ok();
        assert_eq!(fixture.get(how, "/").status(200).text(), "own", "{how}");
        let pid = fixture.pid(how);
        assert_eq!(fixture.monitor().out, "", "{how}");
        assert_eq!(
            (fixture.phase(how), fixture.pid(how)),
            ("awake".to_owned(), pid),
            "{how}"
        );
        fixture.acc(&["stop", how]).ok();
    }
}

/// Do instances keep a mark by which their processes are recognised everywhere?
fn marked(fixture: &Fixture) -> bool {
    let pid = fixture.create("marked", "tester")["pid"]
        .as_i64()
        .unwrap_or_else(|| fixture.pid("marked").into());
    let read = |file: &str| {
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default())
            .into_owned()
    };
    read("environ").contains("ACC_INSTANCE=") || read("cgroup").contains("/acc-")
}

/// Two installations of one user that use the same port, and wake at the same time.
pub fn two_installations_with_one_port_keep_their_requests_apart(combination: Combination) {
    let Some(one) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    let first = one.first_port();
    let ports = format!("{first}-{}", first + 3);
    let Some(other) = Fixture::with(combination, |s| (s.idle, s.ports) = ("60s", ports)) else {
        return;
    };
    for (fixture, name) in [(&one, "shop"), (&other, "blog")] {
        fixture
            .acc(&[
                "create",
                name,
                "--model",
                "tester-tcp",
                "--set",
                "start_delay=300ms",
                "--asleep",
            ])
            .ok();
    }
    assert_eq!(address(&one, "shop"), address(&other, "blog"));
    std::thread::scope(|scope| {
        let asked = [(&one, "shop"), (&other, "blog")]
            .map(|(fixture, name)| (name, scope.spawn(move || fixture.get(name, "/"))));
        for (name, asking) in asked {
            let reply = asking.join().unwrap();
            let of = format!("name: {name}\n");
            assert!(
                reply.status == 503 || reply.status == 200 && reply.text().starts_with(&of),
                "{name}: {reply:?}"
            );
        }
    });
    for (fixture, name) in [(&one, "shop"), (&other, "blog")] {
        fixture.acc(&["reset", name]).ok();
        assert!(fixture.get(name, "/").status(200).text().contains(name));
    }
    assert_ne!(address(&one, "shop"), address(&other, "blog"));
}
