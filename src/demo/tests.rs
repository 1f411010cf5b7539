//! The demo application as a process of its own: this test binary starts itself again and runs only
//! `child`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use clap::Parser as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::{self, Message};

/// Carries the arguments, one a line.
const ARGS: &str = "ACC_TEST_DEMO_ARGS";

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    options: super::DemoOptions,
}

#[test]
#[ignore = "the other side of the tests below"]
#[expect(
    clippy::disallowed_methods,
    reason = "a test binary that starts itself has no command line of its own"
)]
fn child() {
    let Ok(args) = std::env::var(ARGS) else {
        return;
    };
    super::start(Cli::parse_from(std::iter::once("demo").chain(args.lines())).options).unwrap();
}

/// A running demo application, killed when dropped.
struct Demo {
    child: Child,
    out: BufReader<ChildStdout>,
    dir: TempDir,
}

impl Demo {
    /// Starts it on a unix socket, with a log.
    fn unix(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s").display().to_string();
        Self::start(dir, &[&["--socket", &socket], more].concat())
    }

    fn start(dir: TempDir, args: &[&str]) -> Self {
        let log = dir.path().join("log").display().to_string();
        let args = [args, &["--log", &log]].concat().join("\n");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "demo::tests::child",
                "--exact",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(ARGS, args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out, dir }
    }

    /// Waits until it reports that it listens; returns the address.
    fn ready(&mut self) -> String {
        let mut line = String::new();
        while self.out.read_line(&mut line).unwrap() > 0 {
            if let Some((_, rest)) = line.split_once(" listening on ") {
                return rest.split(',').next().unwrap().to_owned();
            }
            line.clear();
        }
        panic!("it ended before it listened");
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Sends raw bytes and reads until the other side closes.
    fn raw(&self, request: &[u8]) -> String {
        talk(UnixStream::connect(self.socket()).unwrap(), request)
    }

    fn get(&self, path: &str) -> String {
        self.raw(
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Id: 7\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )
    }

    fn wait_for_log(&self, what: &str) {
        poll(&format!("`{what}` in the log"), || {
            self.log().contains(what)
        });
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn talk(mut stream: impl Read + Write, request: &[u8]) -> String {
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn poll(what: &str, mut done: impl FnMut() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        for _ in 0..2000 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("waited 10 s for {what}");
    });
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn it_answers_every_path() {
    let mut demo = Demo::unix(&["--name", "shop"]);
    assert_eq!(Path::new(&demo.ready()), demo.socket());
    let home = demo.get("/");
    assert!(
        body(&home).starts_with(&format!("name: shop\npid: {}\nstarted: 2", demo.child.id())),
        "{home}"
    );
    assert!(body(&home).ends_with("requests: 1\n"), "{home}");
    assert!(demo.get("/health").starts_with("HTTP/1.1 204 "));
    assert!(demo.get("/nowhere").starts_with("HTTP/1.1 404 "));
    assert!(demo.get("/ws").starts_with("HTTP/1.1 426 "));
    let slow = demo.get("/slow?ms=20");
    assert!(slow.starts_with("HTTP/1.1 200 "));
    assert!(
        slow.ends_with("requests: 4\n"),
        "counted a health check: {slow}"
    );
    let headers: serde_json::Value = serde_json::from_str(body(
        &demo.raw(b"GET /headers HTTP/1.1\r\nHost: a\r\nA: 1\r\nA: 2\r\nConnection: close\r\n\r\n"),
    ))
    .unwrap();
    assert_eq!(headers["a"], "1, 2");
    let stream = demo.get("/stream?seconds=0.3&kind=sse");
    assert!(
        stream.contains("text/event-stream")
            && stream.contains("data: 0\n\n")
            && stream.contains("data: 2\n\n"),
        "{stream}"
    );
    assert!(demo.log().contains(" GET 7\n"));
    assert_eq!(
        std::fs::metadata(demo.socket())
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o666
    );
}

#[test]
fn echo_says_what_was_sent_however_it_was_sent() {
    let mut demo = Demo::unix(&[]);
    demo.ready();
    let chunked =
        demo.raw(b"PUT /echo?a=b%20c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let reported: serde_json::Value = serde_json::from_str(body(&chunked)).unwrap();
    assert_eq!(
        (
            &reported["method"],
            &reported["path"],
            &reported["query"],
            &reported["length"]
        ),
        (&"PUT".into(), &"/echo".into(), &"a=b%20c".into(), &3.into())
    );
    assert_eq!(
        reported["sha256"],
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    let long = [
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\nConnection: close\r\n\r\n"
            .as_slice(),
        &[b'x'; 3_000_000],
    ]
    .concat();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(body(&demo.raw(&long))).unwrap()["length"],
        3_000_000
    );
}

#[test]
fn a_port_of_the_kernels_choice() {
    let mut demo = Demo::start(tempfile::tempdir().unwrap(), &["--port", "0"]);
    let address = demo.ready();
    let answer = talk(
        TcpStream::connect(&address).unwrap(),
        b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
}

#[test]
fn the_end_waits_for_what_is_in_flight() {
    let mut demo = Demo::unix(&["--finish-delay", "50ms"]);
    demo.ready();
    let idle = UnixStream::connect(demo.socket()).unwrap();
    let (mut ws, _) =
        tungstenite::client("ws://a/ws", UnixStream::connect(demo.socket()).unwrap()).unwrap();
    ws.send(Message::Ping("p".into())).unwrap();
    assert_eq!(ws.read().unwrap(), Message::Pong("p".into()));
    ws.send(Message::Binary(vec![1, 2].into())).unwrap();
    assert_eq!(ws.read().unwrap(), Message::Binary(vec![1, 2].into()));
    let mut slow = UnixStream::connect(demo.socket()).unwrap();
    slow.write_all(
        b"POST /slow?ms=300 HTTP/1.1\r\nHost: a\r\nX-Id: slow\r\nContent-Length: 0\r\n\r\n",
    )
    .unwrap();
    demo.wait_for_log("POST slow");
    ws.send(Message::Text("last words".into())).unwrap();
    demo.signal(Signal::SIGTERM);
    assert_eq!(ws.read().unwrap(), Message::Text("last words".into()));
    assert!(
        matches!(ws.read().unwrap(), Message::Close(Some(frame)) if u16::from(frame.code) == 1001)
    );
    let _ = ws.read();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("name: demo"),
        "{answer}"
    );
    assert!(demo.wait().success());
    drop(idle);
    assert!(demo.socket().exists(), "it removes nothing");
    assert!(UnixStream::connect(demo.socket()).is_err());
    let words: Vec<String> = demo
        .log()
        .lines()
        .map(|l| l.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(words, ["START", "REQ", "REQ", "TERM", "EXIT"]);
}

#[test]
fn it_can_die_in_several_ways() {
    let mut demo = Demo::unix(&[]);
    demo.ready();
    // Kept open: a client that leaves at once is not always served.
    let mut stream = UnixStream::connect(demo.socket()).unwrap();
    stream
        .write_all(b"GET /crash HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    assert_eq!(demo.wait().code(), Some(3));
    assert_eq!(Demo::unix(&["--exit-at-start", "5"]).wait().code(), Some(5));
}

#[test]
fn a_stop_during_the_start_is_not_lost() {
    for more in [["--start-delay", "1h"].as_slice(), &["--never-listen"]] {
        let mut demo = Demo::unix(more);
        demo.wait_for_log("START");
        demo.signal(Signal::SIGTERM);
        assert!(demo.wait().success());
        assert!(!demo.socket().exists());
    }
}

#[test]
fn it_can_be_deaf_and_dumb() {
    let mut demo = Demo::unix(&["--ignore-term", "--never-answer"]);
    demo.ready();
    let mut stream = UnixStream::connect(demo.socket()).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    demo.signal(Signal::SIGTERM);
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    assert!(
        stream.read(&mut [0; 1]).is_err(),
        "neither an answer nor an end"
    );
    assert!(demo.child.try_wait().unwrap().is_none());
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap());
    let socket = dir.path().join("s").display().to_string();
    Demo::start(dir, &["--socket", &socket]).ready();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("s"), "precious").unwrap();
    let options = super::DemoOptions {
        socket: Some(dir.path().join("s")),
        ..Default::default()
    };
    let error = super::start(options).unwrap_err().to_string();
    assert!(error.ends_with("exists and is not a socket"), "{error}");
    assert!(super::start(super::DemoOptions::default()).is_err());
}
