//! Samples real sockets: every source must report the same.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use super::kernel::by;
use super::*;
use crate::host::clock::{Clock, SystemClock};

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self {
            dir: tempfile::Builder::new().prefix("acc").tempdir().unwrap(),
        }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn listener(&self) -> (UnixListener, Listen) {
        let path = self.path("app.sock");
        (UnixListener::bind(&path).unwrap(), Listen::Unix(path))
    }
}

/// What both ways see; they must agree.
fn seen(listen: &Listen) -> u32 {
    let count = by::netlink(listen);
    assert_eq!(
        by::procfs(listen),
        count,
        "netlink and /proc differ for {listen:?}"
    );
    count
}

#[tokio::test]
async fn accepted_and_waiting_connections_count_once_each() {
    let fixture = Fixture::new();
    let (listener, listen) = fixture.listener();
    let Listen::Unix(path) = &listen else {
        unreachable!()
    };
    assert_eq!(seen(&listen), 0);
    let clients: Vec<UnixStream> = (0..5).map(|_| UnixStream::connect(path).unwrap()).collect();
    assert_eq!(seen(&listen), 5);
    let mut accepted = Vec::new();
    for n in 1..=5 {
        accepted.push(listener.accept().unwrap());
        assert_eq!(seen(&listen), 5, "after {n} were accepted");
    }
    drop(clients);
    // The application has not noticed yet: one too many is allowed, and until it closes them they
    // are its work.
    assert!(seen(&listen) <= 5);
    drop(accepted);
    assert_eq!(seen(&listen), 0);
}

#[tokio::test]
async fn a_connection_through_the_gate_is_seen_after_the_gate_is_closed() {
    let fixture = Fixture::new();
    let (listener, listen) = fixture.listener();
    let Listen::Unix(path) = &listen else {
        unreachable!()
    };
    let gate = fixture.path("gate.sock");
    std::os::unix::fs::symlink(path, &gate).unwrap();
    let waiting = UnixStream::connect(&gate).unwrap();
    std::fs::remove_file(&gate).unwrap();
    assert_eq!(seen(&listen), 1);
    let (mut accepted, _) = listener.accept().unwrap();
    assert_eq!(seen(&listen), 1);
    accepted
        .write_all(b"as a web socket that stays open")
        .unwrap();
    // Even when the application's own file is gone.
    std::fs::remove_file(path).unwrap();
    assert_eq!(seen(&listen), 1);
    drop(waiting);
    drop(accepted);
    assert_eq!(seen(&listen), 0);
}

#[tokio::test]
async fn an_application_may_bind_by_a_relative_path_or_another_name_of_the_folder() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path("real")).unwrap();
    std::os::unix::fs::symlink("real", fixture.path("other")).unwrap();
    let listener = UnixListener::bind(fixture.path("other/app.sock")).unwrap();
    let listen = Listen::Unix(fixture.path("real/app.sock"));
    let _client = UnixStream::connect(fixture.path("real/app.sock")).unwrap();
    assert_eq!(by::netlink(&listen), 1);
    let _accepted = listener.accept().unwrap();
    assert_eq!(by::netlink(&listen), 1);
}

#[tokio::test]
async fn tcp_connections_count_once_each() {
    for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
        let Ok(listener) = TcpListener::bind(address) else {
            continue;
        };
        let port = listener.local_addr().unwrap().port();
        let listen = Listen::Tcp(([127, 0, 0, 1], port).into());
        let reached = if address.starts_with("[::1]") {
            format!("[::1]:{port}")
        } else {
            format!("127.0.0.1:{port}")
        };
        assert_eq!(seen(&listen), 0, "{address}");
        let clients: Vec<TcpStream> = (0..3)
            .map(|_| TcpStream::connect(&reached).unwrap())
            .collect();
        assert_eq!(seen(&listen), 3, "{address}, not accepted");
        let accepted: Vec<_> = (0..3).map(|_| listener.accept().unwrap()).collect();
        assert_eq!(seen(&listen), 3, "{address}, accepted");
        // Half closed by the client, then by the application: still its work.
        clients[0].shutdown(Shutdown::Write).unwrap();
        accepted[1].0.shutdown(Shutdown::Write).unwrap();
        assert_eq!(seen(&listen), 3, "{address}, half closed");
        drop(accepted);
        assert_eq!(seen(&listen), 0, "{address}, closed");
    }
}

#[tokio::test]
async fn many_targets_in_one_look_in_their_order() {
    let fixture = Fixture::new();
    let mut targets = Vec::new();
    let mut open = Vec::new();
    for n in 0_u32..20 {
        let path = fixture.path(&format!("{n}.sock"));
        let listener = UnixListener::bind(&path).unwrap();
        for _ in 0..n % 4 {
            open.push((UnixStream::connect(&path).unwrap(), None));
            if n % 2 == 0 {
                open.last_mut().unwrap().1 = Some(listener.accept().unwrap());
            }
        }
        targets.push((
            Target {
                listen: Listen::Unix(path),
                log: None,
            },
            listener,
        ));
    }
    let asked: Vec<Target> = targets.iter().map(|(t, _)| t.clone()).collect();
    let counts: Vec<u32> = KernelActivity::default()
        .sample(&asked)
        .await
        .unwrap()
        .iter()
        .map(|s| s.connections)
        .collect();
    assert_eq!(counts, (0..20).map(|n| n % 4).collect::<Vec<_>>());
    assert!(
        KernelActivity::default()
            .sample(&[])
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn the_mark_changes_with_every_line_and_with_a_new_file() {
    let fixture = Fixture::new();
    let log = fixture.path("access.log");
    let target = Target {
        listen: Listen::Unix(fixture.path("x")),
        log: Some(log.clone()),
    };
    let mark = async || {
        KernelActivity::default()
            .sample(std::slice::from_ref(&target))
            .await
            .unwrap()[0]
            .mark
    };
    assert_eq!(mark().await, LogMark::default());
    std::fs::write(&log, "").unwrap();
    let empty = mark().await;
    std::fs::write(&log, "a line").unwrap();
    let one = mark().await;
    assert!(empty != LogMark::default() && one != empty);
    std::fs::rename(&log, fixture.path("access.log.1")).unwrap();
    std::fs::write(&log, "a line").unwrap();
    assert_ne!(mark().await.inode, one.inode);
}

#[tokio::test]
async fn a_log_that_cannot_be_looked_at_is_use_of_its_own_instance_alone() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("file"), "").unwrap();
    let loops = fixture.path("loop.log");
    std::os::unix::fs::symlink("loop.log", &loops).unwrap();
    let target = |log| Target {
        listen: Listen::Unix(fixture.path("x")),
        log: Some(log),
    };
    let targets = [
        target(fixture.path("file/access.log")),
        target(loops),
        target(fixture.path("none")),
    ];
    let first = KernelActivity::default().sample(&targets).await.unwrap();
    let second = loop {
        let again = KernelActivity::default().sample(&targets).await.unwrap();
        // It counts as written just now.
        if first[0].mark != again[0].mark {
            break again;
        }
    };
    assert_eq!(
        (first[1].mark, first[2].mark),
        (second[1].mark, LogMark::default()),
        "a link is not followed"
    );
}

/// An application that forgets to close what its client has closed would never be idle.
#[tokio::test]
async fn what_the_other_side_has_closed_is_use_for_seconds_only() {
    let fixture = Fixture::new();
    let (listener, listen) = fixture.listener();
    let Listen::Unix(path) = listen.clone() else {
        unreachable!()
    };
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let targets = [
        Target { listen, log: None },
        Target {
            listen: Listen::Tcp(address),
            log: None,
        },
    ];
    let activity = KernelActivity::default();
    let seen = async || {
        let seen = activity.sample(&targets).await.unwrap();
        (seen[0].connections, seen[1].connections)
    };
    let half_closed = UnixStream::connect(&path).unwrap();
    half_closed.shutdown(Shutdown::Write).unwrap();
    let closed = (
        UnixStream::connect(&path).unwrap(),
        TcpStream::connect(address).unwrap(),
    );
    let accepted = (
        listener.accept().unwrap(),
        listener.accept().unwrap(),
        tcp.accept().unwrap(),
    );
    assert_eq!(seen().await, (2, 1));
    drop(closed);
    assert_eq!(
        seen().await,
        (2, 1),
        "the application may be at work on what it was asked"
    );
    let deadline = SystemClock.now().after(Duration::from_secs(20));
    while seen().await != (1, 0) {
        assert!(SystemClock.now() < deadline, "{:?}", seen().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop((half_closed, accepted));
}

#[tokio::test]
async fn nothing_is_missed_while_connections_are_accepted() {
    let fixture = Fixture::new();
    let (listener, listen) = fixture.listener();
    let Listen::Unix(path) = listen.clone() else {
        unreachable!()
    };
    let target = [Target { listen, log: None }];
    for _ in 0..200 {
        let client = UnixStream::connect(&path).unwrap();
        let accepting = listener.try_clone().unwrap();
        let accepted = std::thread::spawn(move || accepting.accept().unwrap());
        // Twice is allowed: seen in the queue first and in its own place later in the same dump.
        let connections = KernelActivity::default().sample(&target).await.unwrap()[0].connections;
        assert!((1..=2).contains(&connections), "{connections}");
        drop((client, accepted.join().unwrap()));
    }
}

#[tokio::test]
async fn the_fake_sees_what_it_is_told() {
    let fake = FakeActivity::new();
    let target = [Target {
        listen: Listen::Unix("/a".into()),
        log: Some("/l".into()),
    }];
    assert_eq!(fake.sample(&target).await.unwrap(), [Seen::default()]);
    fake.set(&target[0].listen, 3);
    fake.touch("/l");
    let seen = fake.sample(&target).await.unwrap()[0];
    assert_eq!((seen.connections, seen.mark.size), (3, 1));
    fake.set_failing(true);
    assert!(fake.sample(&target).await.is_err());
    assert_eq!(fake.samples(), 3);
}
