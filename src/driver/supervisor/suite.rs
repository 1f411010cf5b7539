//! What every runner of instances, and of acc's own services, must do, run against each of them:
//! the builtin one, a real supervisord, and the fake as far as no process is needed.

mod family;
mod fixture;
mod real;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::instance::Process;
use fixture::Fixture;

/// A program with an empty environment.
pub(super) fn program(name: &str, dir: &Path, argv: &[&str]) -> Program {
    Program {
        name: InstanceName::parse(name).unwrap(),
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        env: Vec::new(),
        dir: dir.to_owned(),
        log: dir.join("log/app.log"),
        stop_signal: libc::SIGTERM,
        stop_timeout: Duration::from_secs(20),
        socket: None,
        account: Account::SameAsAcc,
        umask: 0o022,
        limits: ProcessLimits::default(),
        group: GroupLimits::default(),
    }
}

/// Polls until the answer is there; panics with what was waited for after ten seconds.
pub(super) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = check().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain for {what}");
}

/// Runs until a test lets it finish, then ends with this code.
fn obedient(name: &str, fixture: &Fixture, code: i32) -> Program {
    fixture.make_fifo(name);
    let script = format!("echo began; read x < go-{name}; exit {code}");
    program(name, fixture.dir(), &["/bin/sh", "-c", &script])
}

macro_rules! for_all {
    ($($test:ident),* $(,)?) => {
        mod builtin { $(#[tokio::test] async fn $test() { super::$test(super::Fixture::builtin()).await; })* }
        mod fake { $(#[tokio::test] async fn $test() { super::$test(super::Fixture::fake()).await; })* }
        mod supervisord {
            $(#[tokio::test] async fn $test() {
                let Some(fixture) = super::Fixture::supervisord().await else { return };
                super::$test(fixture).await;
            })*
        }
    };
}

for_all![
    a_start_returns_a_live_process_and_a_second_start_the_same,
    two_starts_at_once_are_one,
    an_end_by_itself_is_noticed_with_its_code,
    terminate_ends_it_and_an_ended_process_is_success,
    a_process_that_does_not_listen_needs_a_kill,
    forget_may_be_repeated_and_a_start_follows,
    names_do_not_get_in_each_others_way,
    tidy_leaves_the_running_alone,
    services_are_ensured_found_and_stopped,
];

async fn a_start_returns_a_live_process_and_a_second_start_the_same(fixture: Fixture) {
    let (s, a) = (fixture.runner(), obedient("a", &fixture, 0));
    assert_eq!(s.find(&a.name).await.unwrap(), None);
    assert_eq!(s.running().await.unwrap(), []);
    let first = s.start(&a).await.unwrap();
    assert!(fixture.is_alive(&first));
    assert_eq!(s.find(&a.name).await.unwrap(), Some(first.clone()));
    assert_eq!(s.start(&a).await.unwrap(), first);
    assert_eq!(s.running().await.unwrap(), [(a.name.clone(), first)]);
}

async fn two_starts_at_once_are_one(fixture: Fixture) {
    let (s, a) = (fixture.runner(), obedient("a", &fixture, 0));
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let (s, a) = (Arc::clone(&s), a.clone());
            tokio::spawn(async move { s.start(&a).await.unwrap() })
        })
        .collect();
    let mut processes = Vec::new();
    for start in starts {
        processes.push(start.await.unwrap());
    }
    processes.dedup();
    assert_eq!(processes.len(), 1, "{processes:?}");
    assert_eq!(fixture.count(&a.name).await, 1);
}

async fn an_end_by_itself_is_noticed_with_its_code(fixture: Fixture) {
    let (s, a) = (fixture.runner(), obedient("a", &fixture, 7));
    let run = s.start(&a).await.unwrap();
    let waiting = tokio::spawn({
        let (s, name, run) = (Arc::clone(&s), a.name.clone(), run.clone());
        async move { s.wait(&name, &Account::SameAsAcc, &run).await.unwrap() }
    });
    fixture.finish(&a.name, Exit::Code(7));
    assert_eq!(waiting.await.unwrap(), Exit::Code(7));
    assert_eq!(s.find(&a.name).await.unwrap(), None);
    assert_eq!(s.running().await.unwrap(), []);
    let second = s.start(&a).await.unwrap();
    assert_ne!(second, run);
    assert!(fixture.is_alive(&second));
}

async fn terminate_ends_it_and_an_ended_process_is_success(fixture: Fixture) {
    let (s, a) = (fixture.runner(), obedient("a", &fixture, 0));
    let run = s.start(&a).await.unwrap();
    s.terminate(&a, &run).await.unwrap();
    assert_eq!(
        s.wait(&a.name, &a.account, &run).await.unwrap(),
        Exit::Signal(libc::SIGTERM)
    );
    assert!(!fixture.is_alive(&run));
    s.terminate(&a, &run).await.unwrap();
    s.kill(&a.name, &a.account, &run).await.unwrap();
    assert_eq!(s.find(&a.name).await.unwrap(), None);
    // A signal meant for the ended one does not reach its successor.
    let next = s.start(&a).await.unwrap();
    s.terminate(&a, &run).await.unwrap();
    s.kill(&a.name, &a.account, &run).await.unwrap();
    assert_eq!(s.find(&a.name).await.unwrap(), Some(next));
}

async fn a_process_that_does_not_listen_needs_a_kill(fixture: Fixture) {
    let s = fixture.runner();
    let script = "trap '' TERM; : > ready; read x < go-a";
    fixture.make_fifo("a");
    let a = program("a", fixture.dir(), &["/bin/sh", "-c", script]);
    fixture.make_stubborn(&a.name);
    let run = s.start(&a).await.unwrap();
    fixture.wait_for_file("ready").await;
    s.terminate(&a, &run).await.unwrap();
    let waited = tokio::time::timeout(
        Duration::from_millis(200),
        s.wait(&a.name, &a.account, &run),
    )
    .await;
    assert!(waited.is_err(), "{waited:?}");
    s.kill(&a.name, &a.account, &run).await.unwrap();
    assert_eq!(
        s.wait(&a.name, &a.account, &run).await.unwrap(),
        Exit::Signal(libc::SIGKILL)
    );
}

async fn forget_may_be_repeated_and_a_start_follows(fixture: Fixture) {
    let (s, a) = (fixture.runner(), obedient("a", &fixture, 0));
    s.forget(&a.name, &a.account).await.unwrap();
    let run = s.start(&a).await.unwrap();
    s.kill(&a.name, &a.account, &run).await.unwrap();
    s.wait(&a.name, &a.account, &run).await.unwrap();
    s.forget(&a.name, &a.account).await.unwrap();
    s.forget(&a.name, &a.account).await.unwrap();
    assert_eq!(fixture.traces("a"), Vec::<std::path::PathBuf>::new());
    assert_eq!(s.find(&a.name).await.unwrap(), None);
    assert!(fixture.is_alive(&s.start(&a).await.unwrap()));
}

async fn names_do_not_get_in_each_others_way(fixture: Fixture) {
    let s = fixture.runner();
    let (a, b) = (obedient("a", &fixture, 1), obedient("a-b", &fixture, 2));
    let (pa, pb) = (s.start(&a).await.unwrap(), s.start(&b).await.unwrap());
    assert_ne!(pa, pb);
    assert_eq!(
        s.running().await.unwrap(),
        [(a.name.clone(), pa.clone()), (b.name.clone(), pb.clone())]
    );
    fixture.finish(&a.name, Exit::Code(1));
    assert_eq!(
        s.wait(&a.name, &a.account, &pa).await.unwrap(),
        Exit::Code(1)
    );
    assert_eq!(s.find(&b.name).await.unwrap(), Some(pb));
}

async fn tidy_leaves_the_running_alone(fixture: Fixture) {
    let (s, a) = (fixture.runner(), obedient("a", &fixture, 0));
    s.tidy(&[]).await.unwrap();
    let run = s.start(&a).await.unwrap();
    s.tidy(&[]).await.unwrap();
    s.tidy(std::slice::from_ref(&a.name)).await.unwrap();
    assert_eq!(s.find(&a.name).await.unwrap(), Some(run.clone()));
    assert!(fixture.is_alive(&run));
}

async fn services_are_ensured_found_and_stopped(fixture: Fixture) {
    let s = fixture.own_services();
    let nginx = Service {
        name: "nginx",
        argv: [
            "/bin/sh",
            "-c",
            // Until it is another program, the child looks like the service.
            "trap 'exit 0' QUIT; sh -c ': > \"$0\"; exec sleep 1000' \"$0\" & wait",
            &format!("{}/up", fixture.dir().display()),
        ]
        .map(str::to_owned)
        .to_vec(),
        log: fixture.dir().join("log/nginx.log"),
        stop_signal: libc::SIGQUIT,
        stop_timeout: Duration::from_secs(20),
    };
    assert_eq!(s.service("nginx").await.unwrap(), None);
    s.stop_service(&nginx).await.unwrap();
    assert_eq!(s.ensure_service(&nginx).await.unwrap(), Ensured::Started);
    fixture.wait_for_file("up").await;
    assert_eq!(s.ensure_service(&nginx).await.unwrap(), Ensured::Already);
    let process = s.service("nginx").await.unwrap().unwrap();
    assert!(fixture.is_alive(&process));
    assert_eq!(
        fixture.runner().running().await.unwrap(),
        [],
        "a service is no instance"
    );
    // One whose record was taken away is not started twice.
    let _ = std::fs::remove_dir_all(fixture.pid_dir());
    assert_eq!(s.ensure_service(&nginx).await.unwrap(), Ensured::Already);
    assert_eq!(s.service("nginx").await.unwrap(), Some(process));
    s.stop_service(&nginx).await.unwrap();
    assert!(!fixture.is_alive(&process));
    assert_eq!(s.service("nginx").await.unwrap(), None);
    assert_eq!(s.ensure_service(&nginx).await.unwrap(), Ensured::Started);
    s.stop_service(&nginx).await.unwrap();
}
