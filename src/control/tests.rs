//! The two sides against each other, with a handler that only notes what it is asked.

mod end;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use async_trait::async_trait;

use super::*;
use crate::service::error::{ErrorKind, ServiceError};
use crate::service::handler::{EntryPoint, Handler, RequestCaller};
use crate::service::outcome::Outcome;
use crate::service::request::Request;

/// Notes what it was asked; `Start` waits for `go`; `Stop` fails; `Purge` panics.
#[derive(Default)]
struct Fake {
    begun: Notify,
    go: Notify,
    ended: Notify,
    seen: Mutex<Vec<Request>>,
}

#[async_trait]
impl Handler for Fake {
    async fn answer(&self, _: &RequestCaller, request: Request) -> Result<Outcome, ServiceError> {
        self.seen.lock().unwrap().push(request.clone());
        match request {
            Request::Start { .. } => {
                self.begun.notify_one();
                self.go.notified().await;
                self.ended.notify_one();
                Ok(Outcome::Busy)
            }
            Request::Stop { .. } => Err(ServiceError::new(
                ErrorKind::Denied,
                "`a` is waking",
                "wait for it",
            )),
            Request::Purge { .. } => panic!("on purpose"),
            _ => Ok(Outcome::Pong {
                pid: 7,
                version: "1".to_owned(),
                outdated: false,
            }),
        }
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Arc::new(Fake::default());
        let shutdown = CancellationToken::new();
        let handler: Arc<dyn Handler> = Arc::clone(&fake) as _;
        let listener = bind(&dir.path().join("c.sock")).unwrap();
        let served = tokio::spawn(serve(listener, handler, shutdown.clone()));
        Self {
            dir,
            fake,
            shutdown,
            served,
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    async fn raw(&self, text: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // The server may reset a connection whose body it did not want to read to the end.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }
}

fn start() -> Request {
    Request::Start {
        instance: "a".into(),
    }
}

async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what)
        .await
        .expect("within 20 s")
}

#[tokio::test]
async fn a_request_gets_the_answer_of_the_handler() {
    let fixture = Fixture::new();
    let reply = call(&fixture.socket(), &Request::Ping).await.unwrap();
    assert!(
        matches!(
            reply,
            ControlReply::Answered(Ok(Outcome::Pong { pid: 7, .. }))
        ),
        "{reply:?}"
    );
    let stop = Request::Stop {
        instance: "a".into(),
        now: true,
    };
    let reply = call(&fixture.socket(), &stop).await.unwrap();
    let ControlReply::Answered(Err(error)) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(
        (error.kind, error.message.as_str(), error.hint.as_str()),
        (ErrorKind::Denied, "`a` is waking", "wait for it")
    );
    assert_eq!(
        *fixture.fake.seen.lock().unwrap(),
        vec![Request::Ping, stop]
    );
}

#[tokio::test]
async fn the_socket_is_for_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new();
    assert_eq!(
        std::fs::metadata(fixture.socket())
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
}

/// The mode alone would do; this also holds when the mode was changed.
#[tokio::test]
async fn another_user_is_refused_even_by_an_open_socket() {
    use std::os::unix::fs::PermissionsExt;
    let ci = std::env::vars_os().any(|(key, _)| key == "CI");
    if !rustix::process::geteuid().is_root() || !std::path::Path::new("/usr/bin/python3").exists() {
        assert!(!ci, "root and python3 are needed");
        println!("skipped: root and python3 are needed");
        return;
    }
    let fixture = Fixture::new();
    for path in [fixture.dir.path(), &fixture.socket()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
        b=b'{\"verb\":\"ping\"}'\ns.sendall(b'POST /v1/request HTTP/1.1\\r\\nhost: a\\r\\nconnection: close\\r\\ncontent-length: %d\\r\\n\\r\\n'%len(b)+b)\n\
        print(s.recv(4096).decode())";
    let asked = |uid: u32| {
        let mut command = tokio::process::Command::new("/usr/bin/python3");
        command
            .args(["-c", script])
            .arg(fixture.socket())
            .uid(uid)
            .gid(uid)
            .current_dir("/")
            .kill_on_drop(true);
        command
    };
    let answer = soon(asked(65_534).output()).await.unwrap();
    let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 403 ") && answer.contains("only its owner may use"),
        "{answer}"
    );
    assert!(fixture.fake.seen.lock().unwrap().is_empty());
    let answer = soon(asked(0).output()).await.unwrap();
    assert!(answer.stdout.starts_with(b"HTTP/1.1 200 "), "{answer:?}");
}

#[tokio::test]
async fn the_kernel_says_who_the_caller_is() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let own = rustix::process::geteuid().as_raw();
    let caller = RequestCaller::operator(own, EntryPoint::ControlSocket);
    assert_eq!(server::peer(&ours), Some(caller));
}

#[tokio::test]
async fn no_server_is_told_from_could_not_ask() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.sock");
    assert!(matches!(
        call(&path, &Request::Ping).await,
        Ok(ControlReply::NoServer)
    ));
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert!(
        matches!(
            call(&path, &Request::Ping).await,
            Ok(ControlReply::NoServer)
        ),
        "a socket left behind"
    );
    let below_a_file = dir.path().join("file/c.sock");
    std::fs::write(dir.path().join("file"), "").unwrap();
    let error = call(&below_a_file, &Request::Ping).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.sock");
    drop(bind(&path).unwrap());
    let listener = bind(&path).unwrap();
    let (accepted, connected) = tokio::join!(listener.accept(), UnixStream::connect(&path));
    assert!(accepted.is_ok() && connected.is_ok());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_question_to_a_server_that_dies_is_asked_again() {
    for request in [Request::Ping, Request::Settings] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = async {
            drop(listener.accept().await.unwrap());
            // It is gone: no process listens any more.
            drop(listener);
        };
        let (reply, ()) = tokio::join!(call(&path, &request), server);
        assert!(
            matches!(reply, Ok(ControlReply::NoServer)),
            "{request:?}: {reply:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut some = [0; 64];
        stream.read_exact(&mut some).await.unwrap();
    };
    let (reply, ()) = tokio::join!(call(&path, &Request::Quiesce), server);
    let error = reply.unwrap_err();
    assert!(matches!(error, CallError::Broken(_)), "{error:?}");
    let error = ServiceError::from(error);
    assert!(
        error
            .message
            .starts_with("the connection to the server broke before its answer"),
        "{error:?}"
    );
    assert!(error.hint.contains("`acc info`"));
}

#[tokio::test]
async fn a_ping_to_a_dying_server_finds_that_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut some = [0; 64];
        stream.read_exact(&mut some).await.unwrap();
        drop(stream);
        drop(listener);
    };
    let (reply, ()) = tokio::join!(call(&path, &Request::Ping), server);
    assert!(matches!(reply, Ok(ControlReply::NoServer)), "{reply:?}");
}

#[tokio::test]
async fn something_that_is_not_an_answer_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut some = [0; 64];
        stream.read_exact(&mut some).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 502 Bad\r\ncontent-length: 2\r\n\r\nhi")
            .await
            .unwrap();
    };
    let (reply, ()) = tokio::join!(call(&path, &Request::Quiesce), server);
    assert!(
        matches!(reply, Err(CallError::Garbled { status: 502, .. })),
        "{reply:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.sock");
    // The kernel accepts connections and no process ever answers.
    let _listener = UnixListener::bind(&path).unwrap();
    assert!(matches!(
        call(&path, &Request::Ping).await,
        Err(CallError::Silent(_))
    ));
    let error = call(&path, &Request::Quiesce).await.unwrap_err();
    assert!(matches!(error, CallError::Silent(_)), "{error:?}");
    assert_eq!(ServiceError::from(error).kind, ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_client_that_leaves_does_not_cancel_the_verb() {
    let fixture = Fixture::new();
    let socket = fixture.socket();
    let client = tokio::spawn(async move { call(&socket, &start()).await.map(|_| ()) });
    soon(fixture.fake.begun.notified()).await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    // Another call is answered meanwhile: the client's end has reached the server before that.
    call(&fixture.socket(), &Request::Ping).await.unwrap();
    fixture.fake.go.notify_one();
    soon(fixture.fake.ended.notified()).await;
}

#[tokio::test]
async fn shutdown_finishes_what_was_begun() {
    let fixture = Fixture::new();
    let socket = fixture.socket();
    let client = tokio::spawn(async move { call(&socket, &start()).await });
    soon(fixture.fake.begun.notified()).await;
    fixture.shutdown.cancel();
    fixture.fake.go.notify_one();
    let reply = soon(client).await.unwrap().unwrap();
    assert!(
        matches!(reply, ControlReply::Answered(Ok(Outcome::Busy))),
        "{reply:?}"
    );
    soon(fixture.served).await.unwrap();
    assert!(matches!(
        call(&fixture.dir.path().join("c.sock"), &Request::Ping).await,
        Ok(ControlReply::NoServer)
    ));
}

#[tokio::test]
async fn a_fault_in_the_handler_is_an_answer() {
    let fixture = Fixture::new();
    let reply = call(
        &fixture.socket(),
        &Request::Purge {
            instance: "a".into(),
        },
    )
    .await
    .unwrap();
    assert!(
        matches!(&reply, ControlReply::Answered(Err(e)) if e.kind == ErrorKind::Failed),
        "{reply:?}"
    );
    assert!(matches!(
        call(&fixture.socket(), &Request::Ping).await,
        Ok(ControlReply::Answered(Ok(_)))
    ));
}

/// A word that is no desired state.
const SIDEWAYS: &str = r#"{"verb":"set_desired","instance":"a","desired":"sideways"}"#;

#[tokio::test]
async fn malformed_requests_are_refused() {
    let fixture = Fixture::new();
    let post = |body: &str| {
        format!(
            "POST /v1/request HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (text, status) in [
        (post("{"), "400"),
        (post("{\"verb\":\"no_such\"}"), "400"),
        (post("{\"verb\":\"start\"}"), "400"),
        (post(SIDEWAYS), "400"),
        (
            "GET /v1/request HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(),
            "405",
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                .to_owned(),
            "404",
        ),
        (post(&format!("\"{}\"", "x".repeat(BODY_MAX))), "400"),
    ] {
        let answer = soon(fixture.raw(&text)).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        for part in [
            "\"kind\":\"invalid\"",
            "\r\ncontent-type: application/json\r\n",
        ] {
            assert!(answer.contains(part), "{answer}");
        }
        let allow = answer.contains("\r\nallow: POST\r\n");
        assert_eq!(allow, status == "405", "{answer}");
    }
    assert!(fixture.fake.seen.lock().unwrap().is_empty());
    let refused: ServiceError = serde_json::from_str(
        soon(fixture.raw(&post(SIDEWAYS)))
            .await
            .split_once("\r\n\r\n")
            .unwrap()
            .1,
    )
    .unwrap();
    assert_eq!(
        refused.message,
        "not a request: `sideways` is not a desired state: use auto, up or down"
    );
}

#[test]
fn every_kind_has_its_status() {
    let all = [
        ErrorKind::Failed,
        ErrorKind::Invalid,
        ErrorKind::NotFound,
        ErrorKind::Denied,
        ErrorKind::TimedOut,
    ];
    assert_eq!(
        all.map(|kind| status(kind).as_u16()),
        [500, 400, 404, 409, 504]
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_come_to_its_end_is_let_go() {
    let fixture = Fixture::new();
    let begun = tokio::time::Instant::now();
    assert_eq!(
        soon_paused(fixture.raw("POST /v1/request HTTP/1.1\r\nHost: a\r\nX: ")).await,
        ""
    );
    let slow = "POST /v1/request HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"verb\":";
    let chunks =
        "POST /v1/request HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"v\r\n";
    for body in [slow, chunks] {
        let answer = soon_paused(fixture.raw(body)).await;
        assert!(
            answer.starts_with("HTTP/1.1 408 ") && answer.contains("within 10 s"),
            "{answer}"
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert!(fixture.fake.seen.lock().unwrap().is_empty());
    fixture.shutdown.cancel();
    soon_paused(fixture.served).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_answer_is_let_go() {
    let fixture = Fixture::new();
    let mut stream = UnixStream::connect(fixture.socket()).await.unwrap();
    let ping = serde_json::to_string(&Request::Ping).unwrap();
    let one = format!(
        "POST /v1/request HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{ping}",
        ping.len()
    );
    let begun = tokio::time::Instant::now();
    // Without a limit it would never be written, as no client reads the answers.
    let written = soon_paused(stream.write_all(one.repeat(20_000).as_bytes())).await;
    assert!(
        written.is_err() && begun.elapsed() >= server::ANSWER_TIMEOUT,
        "{written:?} after {:?}",
        begun.elapsed()
    );
    fixture.shutdown.cancel();
    soon_paused(fixture.served).await.unwrap();
}

async fn soon_paused<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(600), what)
        .await
        .expect("within 600 s")
}
