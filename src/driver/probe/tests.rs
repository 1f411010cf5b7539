//! The probe against real sockets.

mod clear;
mod strangers;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, timeout};

use super::*;
use crate::config::accounts::Owner;
use crate::driver::listener::Listeners;

fn dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("acc").tempdir().unwrap()
}

fn unix(path: PathBuf, health: Option<&str>) -> ProbeTarget {
    ProbeTarget {
        listen: Listen::Unix(path),
        health: health.map(str::to_owned),
        handed: false,
        notify: None,
        host: "a.example".into(),
        account: Account::SameAsAcc,
    }
}

fn tcp(port: u16, health: Option<&str>) -> ProbeTarget {
    ProbeTarget {
        listen: Listen::Tcp(([127, 0, 0, 1], port).into()),
        health: health.map(str::to_owned),
        handed: false,
        notify: None,
        host: "a.example".into(),
        account: Account::SameAsAcc,
    }
}

/// The process of this test, which may stand for an instance's.
fn me() -> Process {
    crate::host::process::by_pid(std::process::id().cast_signed())
        .unwrap()
        .unwrap()
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// The delay from `start`, which makes the application listen, to the probe's answer.
async fn delay(target: ProbeTarget, start: impl Future<Output = ()>) -> Duration {
    let waiting = tokio::spawn(async move {
        SocketProbe::default()
            .ready(&target, None, None)
            .await
            .unwrap();
        Instant::now()
    });
    // Long enough for the probe to be in its steady state; nothing depends on it.
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(!waiting.is_finished());
    start.await;
    let listening = Instant::now();
    let ready = timeout(Duration::from_secs(10), waiting)
        .await
        .expect("not noticed")
        .unwrap();
    ready.saturating_duration_since(listening)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notices_a_unix_socket_within_milliseconds() {
    let dir = dir();
    let mut delays = Vec::new();
    for n in 0..5 {
        let path = dir.path().join(format!("{n}.sock"));
        let mut kept = None;
        delays.push(
            delay(unix(path.clone(), None), async {
                kept = Some(UnixListener::bind(&path).unwrap())
            })
            .await,
        );
    }
    delays.sort();
    assert!(delays[1] < Duration::from_millis(20), "{delays:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notices_a_socket_that_is_bound_elsewhere_and_renamed_or_listens_late() {
    let dir = dir();
    let (path, beside) = (dir.path().join("app.sock"), dir.path().join("beside"));
    let mut kept = None;
    let renamed = delay(unix(path.clone(), None), async {
        kept = Some(UnixListener::bind(&beside).unwrap());
        std::fs::rename(&beside, &path).unwrap();
    });
    assert!(renamed.await < Duration::from_millis(100));

    let late = dir.path().join("late.sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&socket2::SockAddr::unix(&late).unwrap())
        .unwrap();
    let listened = delay(unix(late, None), async { socket.listen(8).unwrap() });
    assert!(listened.await < Duration::from_millis(100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notices_a_port_within_its_step() {
    let port = free_port().await;
    let mut kept = None;
    let noticed = delay(tcp(port, None), async {
        kept = Some(TcpListener::bind(("127.0.0.1", port)).await.unwrap())
    })
    .await;
    assert!(noticed < Duration::from_millis(200), "{noticed:?}");
}

/// Answers each connection with the next of these; an empty one closes it.
async fn serve(listener: UnixListener, answers: Vec<&'static str>) -> Vec<String> {
    let mut asked = Vec::new();
    for answer in answers {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        asked.push(String::from_utf8(request).unwrap());
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    asked
}

#[tokio::test]
async fn asks_the_health_path_until_it_is_well() {
    let dir = dir();
    let path = dir.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let answers = vec![
        "HTTP/1.1 503 No\r\n\r\n",
        "",
        "nonsense\r\n",
        "HTTP/1.1 404 No\r\n\r\n",
        "HTTP/1.1 302 There\r\n\r\n",
    ];
    let served = tokio::spawn(serve(listener, answers));
    timeout(
        Duration::from_secs(10),
        SocketProbe::default().ready(&unix(path, Some("/up?x=1")), None, None),
    )
    .await
    .unwrap()
    .unwrap();
    let asked = served.await.unwrap();
    assert_eq!(asked.len(), 5);
    assert!(
        asked[0].starts_with("GET /up?x=1 HTTP/1.1\r\nHost: a.example\r\n"),
        "{}",
        asked[0]
    );
}

#[tokio::test]
async fn an_application_that_listens_and_never_answers_is_not_ready() {
    let dir = dir();
    let path = dir.path().join("app.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    assert!(
        timeout(
            Duration::from_millis(300),
            SocketProbe::default().ready(&unix(path.clone(), Some("/")), None, None)
        )
        .await
        .is_err()
    );
    timeout(
        Duration::from_secs(10),
        SocketProbe::default().ready(&unix(path, None), None, None),
    )
    .await
    .unwrap()
    .unwrap();
}

#[tokio::test]
async fn says_what_it_waits_for() {
    let dir = dir();
    let path = dir.path().join("app.sock");
    let probe = SocketProbe::default();
    assert!(
        probe
            .describe(&unix(path.clone(), None))
            .starts_with("the socket `")
    );
    let _listener = UnixListener::bind(&path).unwrap();
    assert_eq!(
        probe.describe(&unix(path.clone(), None)),
        format!("a connection on `{}`", path.display())
    );
    assert_eq!(
        probe.describe(&tcp(9, Some("/up"))),
        "a successful answer to `/up` on `127.0.0.1:9`"
    );
}

#[tokio::test]
async fn the_fake_is_ready_when_told() {
    let fake = Arc::new(FakeProbe::new());
    let target = tcp(9, None);
    let waiting = tokio::spawn({
        let (fake, target) = (fake.clone(), target.clone());
        async move { fake.ready(&target, None, None).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    fake.set_ready(&target.listen, true);
    timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    FakeProbe::always()
        .ready(&target, None, None)
        .await
        .unwrap();
    fake.set_obstacle(Some("in the way"));
    assert_eq!(
        fake.clear(&target).await.unwrap_err(),
        Obstacle::Other("in the way".into())
    );
}

#[tokio::test]
async fn one_that_says_when_it_is_ready_is_not_ready_before() {
    let dir = dir();
    let probe = SocketProbe::default();
    let path = dir.path().join("sock/a/app.sock");
    let target = ProbeTarget {
        notify: Some(dir.path().join("notify/a.sock")),
        ..unix(path.clone(), None)
    };
    let notify_socket = probe.clear(&target).await.unwrap().unwrap();
    let _listener = UnixListener::bind(&path).unwrap();
    let voice = tokio::net::UnixDatagram::unbound().unwrap();
    voice.connect(target.notify.as_ref().unwrap()).unwrap();
    let mut ready = Box::pin(probe.ready(&target, Some(me()), Some(notify_socket)));
    assert!(
        timeout(Duration::from_millis(100), &mut ready)
            .await
            .is_err()
    );
    assert_eq!(probe.describe(&target), "`READY=1` on NOTIFY_SOCKET");
    voice.send(b"STATUS=loading").await.unwrap();
    assert!(
        timeout(Duration::from_millis(100), &mut ready)
            .await
            .is_err()
    );
    assert_eq!(
        probe.describe(&target),
        "`READY=1` on NOTIFY_SOCKET (last status: `loading`)"
    );
    voice.send(b"READY=1").await.unwrap();
    timeout(Duration::from_secs(10), ready)
        .await
        .unwrap()
        .unwrap();
    // Messages are read for a moment longer, then no more: an awake instance costs no descriptor.
    voice.send(b"STATUS=x").await.unwrap();
    let sent = async {
        while voice.send(b"STOPPING=1").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await
        }
    };
    timeout(Duration::from_secs(10), sent).await.unwrap();
    // Begun by another acc: earlier messages are unknown, and an answer must do.
    timeout(Duration::from_secs(10), probe.ready(&target, None, None))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_handed_socket_is_ready_when_somebody_accepts() {
    let dir = dir();
    let path = dir.path().join("app.sock");
    let target = ProbeTarget {
        handed: true,
        ..unix(path.clone(), None)
    };
    let probe = SocketProbe::default();
    let listener = UnixListener::bind(&path).unwrap();
    let mut ready = Box::pin(probe.ready(&target, None, None));
    assert!(
        timeout(Duration::from_millis(100), &mut ready)
            .await
            .is_err()
    );
    assert_eq!(
        probe.describe(&target),
        format!("an accepted connection on `{}`", path.display())
    );
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(
        stream.read(&mut [0]).await.unwrap(),
        0,
        "it asks for nothing"
    );
    drop(stream);
    timeout(Duration::from_secs(10), ready)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn one_look_finds_who_listens_by_then_and_waits_for_nobody() {
    let dir = dir();
    let path = dir.path().join("s");
    let probe = SocketProbe::default();
    assert!(
        probe
            .at_once(&unix(path.clone(), None), Some(me()))
            .is_none()
    );
    let listener = UnixListener::bind(&path).unwrap();
    probe
        .at_once(&unix(path.clone(), None), Some(me()))
        .unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    assert_eq!(
        accepted.read(&mut [0]).await.unwrap(),
        0,
        "the connection was only a target"
    );
    // For each of these a successful connect proves nothing.
    let handed = ProbeTarget {
        handed: true,
        ..unix(path.clone(), None)
    };
    let notified = ProbeTarget {
        notify: Some(dir.path().join("n")),
        ..unix(path.clone(), None)
    };
    for target in [
        handed,
        notified,
        unix(path, Some("/health")),
        tcp(free_port().await, None),
    ] {
        assert!(probe.at_once(&target, Some(me())).is_none(), "{target:?}");
    }
}

/// From `listen` to the notice: less than the pauses grow to later, while a start is young. The
/// least of many tries: the host may be busy.
#[tokio::test]
async fn a_port_is_noticed_within_milliseconds_while_a_start_is_young() {
    let mut least = Duration::MAX;
    for _ in 0..20 {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], free_port().await));
        let probe = SocketProbe::default();
        let target = tcp(address.port(), None);
        let waiting = tokio::spawn(async move {
            probe
                .ready(&target, None, None)
                .await
                .map(|_| Instant::now())
        });
        tokio::time::sleep(Duration::from_millis(211)).await;
        let listener = TcpListener::bind(address).await.unwrap();
        let listens = Instant::now();
        let noticed = timeout(Duration::from_secs(10), waiting)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        drop(listener);
        least = least.min(noticed.saturating_duration_since(listens));
    }
    assert!(least < Duration::from_millis(5), "{least:?}");
}
