//! The command itself: it notices losses, leaves nothing behind, and does not change other
//! instances.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::run::{PROOF, nothing_is_left, prove};
use crate::support::fixture::SOON;
use crate::support::run::run;
use crate::support::wait::holds;
use crate::support::{Combination, Fixture, wait_until};

/// The only scratch instance that exists now.
fn scratch(fixture: &Fixture) -> String {
    wait_until("the scratch instance is there", SOON, || {
        let all = fixture.json(&["list", "--phase", "awake"]);
        let name = all.as_array().unwrap().iter().find_map(|i| {
            i["name"]
                .as_str()
                .filter(|n| n.starts_with("prove-"))
                .map(str::to_owned)
        });
        name.ok_or("none")
    })
}

#[test]
fn it_notices_what_is_lost() {
    let Some(fixture) = Fixture::new(Combination::BUILTIN) else {
        return;
    };
    let (report, done) = std::thread::scope(|scope| {
        let proof = scope.spawn(|| prove(&fixture, &["--for", "4s", "--clients", "16"]));
        let name = scratch(&fixture);
        // As only an operator may: ends the instance without waiting for requests in flight.
        while !proof.is_finished() {
            let _ = fixture.acc(&["stop", "--now", &name]);
            let _ = fixture.acc(&["start", &name]);
        }
        proof.join().unwrap()
    });
    assert_eq!(
        (done.code, &report["proven"]),
        (Some(1), &false.into()),
        "{report:#}"
    );
    assert!(
        report["lost"].as_u64().unwrap() > 0 && !report["faults"].as_array().unwrap().is_empty(),
        "{report:#}"
    );
    nothing_is_left(&fixture);
}

#[test]
fn it_notices_a_stream_that_does_not_end_in_order() {
    let Some(fixture) = Fixture::new(Combination::BUILTIN) else {
        return;
    };
    let (report, done) = std::thread::scope(|scope| {
        let proof = scope.spawn(|| {
            prove(
                &fixture,
                &["--cycles", "2", "--clients", "2", "--streams", "4"],
            )
        });
        let name = scratch(&fixture);
        // The streams have no ids; the ids of the proof's other requests are in the record.
        let record = fixture.instance(&name).join("data/prove.log");
        wait_until("the streams are open", SOON, || {
            let text = std::fs::read_to_string(&record).unwrap_or_default();
            let streams = text
                .lines()
                .filter(|line| line.starts_with("REQ ") && line.ends_with(" GET -"))
                .count();
            holds(streams >= 8, text)
        });
        kill(Pid::from_raw(fixture.pid(&name)), Signal::SIGKILL).unwrap();
        proof.join().unwrap()
    });
    assert_eq!(
        (done.code, &report["proven"]),
        (Some(1), &false.into()),
        "{report:#}"
    );
    assert!(
        report["streams"]["broken"].as_u64().unwrap() > 0,
        "{report:#}"
    );
    nothing_is_left(&fixture);
}

#[test]
fn interrupted_it_leaves_nothing() {
    let Some(fixture) = Fixture::new(Combination::BUILTIN) else {
        return;
    };
    let child = fixture
        .command(&["prove", "--cycles", "1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let name = scratch(&fixture);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        said.contains("interrupted") && said.contains(&name),
        "{said}"
    );
    nothing_is_left(&fixture);
}

#[test]
fn another_instance_is_left_as_it_was_found() {
    let Some(fixture) = Fixture::new(Combination::BUILTIN) else {
        return;
    };
    fixture.create("shop", "tester");
    fixture
        .acc(&["create", "blog", "--model", "tester", "--asleep"])
        .ok();
    for (name, phase) in [("shop", "awake"), ("blog", "asleep")] {
        let (report, done) = prove(
            &fixture,
            &["--instance", name, "--cycles", "3", "--clients", "4"],
        );
        assert_eq!(done.code, Some(0), "{report:#}{}", done.err);
        assert_eq!(
            (&report["instance"], &report["recorded"]),
            (&name.into(), &true.into()),
            "{report:#}"
        );
        assert_eq!(fixture.phase(name), phase);
    }
}

#[test]
fn one_that_is_not_the_demo_application_is_only_asked() {
    let Some(fixture) = Fixture::new(Combination::BUILTIN) else {
        return;
    };
    if !std::path::Path::new("/usr/bin/python3").exists() {
        crate::support::need::skipped("not installed: /usr/bin/python3");
        return;
    }
    fixture.create("docs", "python-http");
    let (report, done) = prove(
        &fixture,
        &["--instance", "docs", "--cycles", "3", "--clients", "4"],
    );
    assert_eq!(done.code, Some(0), "{report:#}{}", done.err);
    assert_eq!(
        (&report["recorded"], &report["messages"]),
        (&false.into(), &0.into()),
        "{report:#}"
    );
    // A value that cannot be known is not reported as zero.
    for key in ["held", "doubled", "wake", "wake_from_sleep"] {
        assert!(report[key].is_null(), "{report:#}");
    }
}

#[test]
fn what_cannot_be_proven_is_said() {
    let Some(fixture) = Fixture::new(Combination::BUILTIN) else {
        return;
    };
    let fails = |arguments: &[&str], code: i32| {
        run(
            &mut fixture.command(&[&["prove"], arguments].concat()),
            PROOF,
        )
        .error(code)
    };
    fails(&["--instance", "nobody"], 3);
    fails(&["--app", "nothing"], 3).says(&["nothing"]);
    fixture
        .acc(&["create", "shop", "--model", "tester", "--desired", "down"])
        .ok();
    fails(&["--instance", "shop"], 4).says(&["acc enable shop"]);
    fixture.acc(&["halt"]).ok();
    fails(&[], 1).says(&["acc boot"]);
}

/// supervisord has died, and with it the reader of the server's standard error: the server's log
/// lines are lost, but nothing else may be lost.
#[test]
fn a_log_that_cannot_be_written_costs_no_request() {
    let Some(fixture) = Fixture::unbooted(Combination::BUILTIN, |_| {}) else {
        return;
    };
    std::fs::create_dir_all(fixture.home()).unwrap();
    let mut server = fixture
        .command(&["server"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    fixture.wait_server(None);
    drop(server.stderr.take());
    fixture.acc(&["create", "shop", "--model", "tester"]).ok();
    for _ in 0..3 {
        fixture.acc(&["stop", "shop"]).ok();
        fixture.get("shop", "/").status(200);
    }
    fixture.acc(&["stop", "shop"]).ok();
    kill(Pid::from_raw(server.id().cast_signed()), Signal::SIGTERM).unwrap();
    wait_until("the server has ended", Duration::from_secs(20), || {
        holds(server.try_wait().unwrap().is_some(), "it runs")
    });
}
