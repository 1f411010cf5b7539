//! All processes of an instance, in each way to know them: those in a session of their own, those
//! that outlive the first.

use std::fs;

use super::fixture::Way;
use super::real::{gone, pid_in, read_eventually};
use super::*;
use crate::host::process;

/// Instances run as acc's own user.
const ACC: &[Account] = &[Account::SameAsAcc];

macro_rules! in_every_way {
    ($($test:ident),* $(,)?) => {
        in_every_way!(@ builtin_best, Fixture::builtin_by(Way::Best), $($test),*);
        in_every_way!(@ builtin_unified, Fixture::builtin_by(Way::Unified), $($test),*);
        in_every_way!(@ builtin_census, Fixture::builtin_by(Way::Census), $($test),*);
        in_every_way!(@ supervisord_best, Fixture::supervisord_by(Way::Best).await, $($test),*);
        in_every_way!(@ supervisord_unified, Fixture::supervisord_by(Way::Unified).await, $($test),*);
        in_every_way!(@ supervisord_census, Fixture::supervisord_by(Way::Census).await, $($test),*);
    };
    (@ $fixture:ident, $make:expr, $($test:ident),*) => {
        mod $fixture {
            use super::*;
            $(#[tokio::test] async fn $test() {
                let Some(fixture) = $make else { return println!("skipped: not possible on this host") };
                super::$test(fixture).await;
            })*
        }
    };
}

in_every_way![
    those_in_a_session_of_their_own_end_with_it,
    those_that_ignore_the_signal_are_killed,
    what_the_first_process_leaves_is_killed,
    those_with_work_to_finish_are_given_time,
    what_was_left_when_nobody_looked_is_ended,
    an_earlier_run_is_ended_before_the_next_start,
    who_forks_against_the_kill_loses,
    who_else_waits_for_an_earlier_run_is_not_in_the_way,
    a_neighbour_is_left_alone,
];

/// In a session of its own, twice forked: its parent has ended. It writes its pid into `far`.
const FAR: &str = "(setsid sh -c 'BEFORE echo $$ > far.new; mv far.new far; DURING' &) ; while [ ! -e far ]; do sleep 0.01; done;";

fn with_far(fixture: &Fixture, before: &str, during: &str, then: &str) -> Program {
    let script = format!(
        "{} {then}",
        FAR.replace("BEFORE", before).replace("DURING", during)
    );
    Program {
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        ..program("a", fixture.dir(), &["/bin/sh", "-c", &script])
    }
}

async fn far(fixture: &Fixture) -> i32 {
    let pid = pid_in(&read_eventually(fixture.dir().join("far")).await);
    fs::remove_file(fixture.dir().join("far")).unwrap();
    pid
}

fn lives(pid: i32) -> bool {
    process::start_time(pid).unwrap().is_some()
}

async fn those_in_a_session_of_their_own_end_with_it(fixture: Fixture) {
    let s = fixture.supervisor();
    let a = with_far(&fixture, "", "exec sleep 1000", "exec sleep 1000");
    for by_kill in [false, true] {
        let run = s.start(&a).await.unwrap();
        let far = far(&fixture).await;
        assert!(lives(far));
        if by_kill {
            s.kill(&a.name, &a.account, &run).await.unwrap()
        } else {
            s.terminate(&a, &run).await.unwrap()
        }
        let signal = if by_kill {
            libc::SIGKILL
        } else {
            libc::SIGTERM
        };
        assert_eq!(
            s.wait(&a.name, &a.account, &run).await.unwrap(),
            Exit::Signal(signal)
        );
        assert!(!lives(far), "its end was reported while it had a process");
    }
    s.forget(&a.name, &a.account).await.unwrap();
}

async fn those_that_ignore_the_signal_are_killed(fixture: Fixture) {
    let s = fixture.supervisor();
    let a = with_far(
        &fixture,
        "trap \"\" TERM;",
        "while :; do sleep 1000; done",
        "exec sleep 1000",
    );
    let run = s.start(&a).await.unwrap();
    let far = far(&fixture).await;
    s.terminate(&a, &run).await.unwrap();
    let waited = tokio::time::timeout(
        Duration::from_millis(300),
        s.wait(&a.name, &a.account, &run),
    )
    .await;
    assert!(waited.is_err() && lives(far), "{waited:?}");
    s.kill(&a.name, &a.account, &run).await.unwrap();
    s.wait(&a.name, &a.account, &run).await.unwrap();
    assert!(!lives(far));
}

async fn what_the_first_process_leaves_is_killed(fixture: Fixture) {
    let s = fixture.supervisor();
    let a = with_far(&fixture, "trap \"\" TERM HUP;", "exec sleep 1000", "exit 4");
    let run = s.start(&a).await.unwrap();
    assert_eq!(
        s.wait(&a.name, &a.account, &run).await.unwrap(),
        Exit::Code(4)
    );
    assert!(!lives(far(&fixture).await));
}

async fn those_with_work_to_finish_are_given_time(fixture: Fixture) {
    let s = fixture.supervisor();
    let a = with_far(
        &fixture,
        "trap \"sleep 0.3; echo done > work; exit 0\" TERM;",
        "while :; do sleep 0.02; done",
        "exec sleep 1000",
    );
    let run = s.start(&a).await.unwrap();
    let far = far(&fixture).await;
    s.terminate(&a, &run).await.unwrap();
    assert_eq!(
        s.wait(&a.name, &a.account, &run).await.unwrap(),
        Exit::Signal(libc::SIGTERM)
    );
    assert_eq!(
        fs::read_to_string(fixture.dir().join("work")).unwrap(),
        "done\n"
    );
    assert!(!lives(far));
}

async fn what_was_left_when_nobody_looked_is_ended(fixture: Fixture) {
    let s = fixture.supervisor();
    let (a, b) = (
        with_far(&fixture, "", "exec sleep 1000", "exec sleep 1000"),
        obedient("b", &fixture, 0),
    );
    let first = s.start(&a).await.unwrap();
    let beside = s.start(&b).await.unwrap();
    let far = far(&fixture).await;
    assert_eq!(
        s.sweep(&[a.name.clone(), b.name.clone()], ACC)
            .await
            .unwrap(),
        []
    );
    // As when acc is killed, and then the first process.
    process::signal_one(first.process().unwrap(), libc::SIGKILL).unwrap();
    gone(first.process().unwrap().pid).await;
    assert!(lives(far));
    let next = fixture.again();
    assert_eq!(
        next.sweep(std::slice::from_ref(&a.name), ACC)
            .await
            .unwrap(),
        [],
        "another task handles its end"
    );
    // The shell may have been killed beside a `sleep` of its own.
    let ended = next.sweep(&[], ACC).await.unwrap();
    assert!(
        matches!(ended.as_slice(), [(name, 1 | 2)] if *name == a.name),
        "{ended:?}"
    );
    assert!(!lives(far) && fixture.is_alive(&beside));
    assert_eq!(next.sweep(&[], ACC).await.unwrap(), []);
}

async fn an_earlier_run_is_ended_before_the_next_start(fixture: Fixture) {
    let s = fixture.supervisor();
    let a = with_far(&fixture, "", "exec sleep 1000", "exec sleep 1000");
    let first = s.start(&a).await.unwrap();
    let before = far(&fixture).await;
    process::signal_one(first.process().unwrap(), libc::SIGKILL).unwrap();
    gone(first.process().unwrap().pid).await;
    let next = fixture.again();
    assert_eq!(next.find(&a.name).await.unwrap(), None);
    let second = next.start(&a).await.unwrap();
    assert!(fixture.is_alive(&second) && !lives(before));
    next.kill(&a.name, &a.account, &second).await.unwrap();
    next.wait(&a.name, &a.account, &second).await.unwrap();
}

async fn who_forks_against_the_kill_loses(fixture: Fixture) {
    let s = fixture.supervisor();
    // Each generation begins the next in a session of its own and ends.
    let script = "trap '' TERM; echo began; go() { n=$((n+1)); [ $n -gt 3000 ] || setsid sh -c \"$1\" sh \"$1\" & }; n=0; while :; do go 'sleep 0.01; setsid sh -c \"sleep 0.01; exec sleep 30\" & '; sleep 0.02; done";
    let a = Program {
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        ..program("a", fixture.dir(), &["/bin/sh", "-c", script])
    };
    let run = s.start(&a).await.unwrap();
    assert_eq!(fixture.count(&a.name).await, 1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    s.kill(&a.name, &a.account, &run).await.unwrap();
    let ended =
        tokio::time::timeout(Duration::from_secs(10), s.wait(&a.name, &a.account, &run)).await;
    ended.expect("it went on").unwrap();
    assert_eq!(s.sweep(&[], ACC).await.unwrap(), []);
}

async fn who_else_waits_for_an_earlier_run_is_not_in_the_way(fixture: Fixture) {
    let a = obedient("a", &fixture, 0);
    let s = fixture.supervisor();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let run = s.start(&a).await.unwrap();
        for _ in 0..3 {
            let (s, name, run) = (s.clone(), a.name.clone(), run.clone());
            waiting.spawn(async move { s.wait(&name, &Account::SameAsAcc, &run).await });
        }
        s.kill(&a.name, &a.account, &run).await.unwrap();
        assert_eq!(
            s.wait(&a.name, &a.account, &run).await.unwrap(),
            Exit::Signal(libc::SIGKILL)
        );
    }
    let last = s.start(&a).await.unwrap();
    while let Some(waited) = waiting.join_next().await {
        waited.unwrap().unwrap();
    }
    assert!(fixture.is_alive(&last));
    s.kill(&a.name, &a.account, &last).await.unwrap();
    s.wait(&a.name, &a.account, &last).await.unwrap();
}

async fn a_neighbour_is_left_alone(fixture: Fixture) {
    let s = fixture.supervisor();
    let (a, b) = (
        with_far(&fixture, "", "exec sleep 1000", "exec sleep 1000"),
        obedient("a-b", &fixture, 0),
    );
    let (first, neighbour) = (s.start(&a).await.unwrap(), s.start(&b).await.unwrap());
    let far = far(&fixture).await;
    s.kill(&a.name, &a.account, &first).await.unwrap();
    s.wait(&a.name, &a.account, &first).await.unwrap();
    assert!(!lives(far) && fixture.is_alive(&neighbour));
    // Nor does what was meant for an ended run reach the next.
    let second = s.start(&a).await.unwrap();
    s.kill(&a.name, &a.account, &first).await.unwrap();
    s.terminate(&a, &first).await.unwrap();
    assert!(fixture.is_alive(&second));
    s.wait(&a.name, &a.account, &first).await.unwrap();
    assert!(fixture.is_alive(&second));
    s.kill(&a.name, &a.account, &second).await.unwrap();
    s.wait(&a.name, &a.account, &second).await.unwrap();
}
