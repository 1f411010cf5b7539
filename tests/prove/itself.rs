//! The command itself: it notices what is lost, leaves nothing behind, and leaves others as they
//! were.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::run::{PROOF, nothing_is_left, prove};
use crate::support::bed::SOON;
use crate::support::run::run;
use crate::support::wait::holds;
use crate::support::{Bed, Combination, wait_until};

/// The one scratch instance that is there now.
fn scratch(bed: &Bed) -> String {
    wait_until("the scratch instance is there", SOON, || {
        let all = bed.json(&["list", "--phase", "awake"]);
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
    let Some(bed) = Bed::new(Combination::BUILTIN) else {
        return;
    };
    let (report, done) = std::thread::scope(|scope| {
        let proof = scope.spawn(|| prove(&bed, &["--for", "4s", "--clients", "16"]));
        let name = scratch(&bed);
        // What only an operator may do: ends it without waiting for what is in flight.
        while !proof.is_finished() {
            let _ = bed.acc(&["stop", "--now", &name]);
            let _ = bed.acc(&["start", &name]);
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
    nothing_is_left(&bed);
}

#[test]
fn it_notices_a_stream_that_does_not_end_in_order() {
    let Some(bed) = Bed::new(Combination::BUILTIN) else {
        return;
    };
    let (report, done) = std::thread::scope(|scope| {
        let proof =
            scope.spawn(|| prove(&bed, &["--cycles", "2", "--clients", "2", "--streams", "4"]));
        let name = scratch(&bed);
        // The streams have no ids: those of the proof's other requests are in the record.
        let record = bed.instance(&name).join("data/prove.log");
        wait_until("the streams are open", SOON, || {
            let text = std::fs::read_to_string(&record).unwrap_or_default();
            let streams = text
                .lines()
                .filter(|line| line.starts_with("REQ ") && line.ends_with(" GET -"))
                .count();
            holds(streams >= 8, text)
        });
        kill(Pid::from_raw(bed.pid(&name)), Signal::SIGKILL).unwrap();
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
    nothing_is_left(&bed);
}

#[test]
fn interrupted_it_leaves_nothing() {
    let Some(bed) = Bed::new(Combination::BUILTIN) else {
        return;
    };
    let child = bed
        .command(&["prove", "--cycles", "1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let name = scratch(&bed);
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
    nothing_is_left(&bed);
}

#[test]
fn another_instance_is_left_as_it_was_found() {
    let Some(bed) = Bed::new(Combination::BUILTIN) else {
        return;
    };
    bed.create("zebra", "tester");
    bed.acc(&["create", "okapi", "--model", "tester", "--asleep"])
        .ok();
    for (name, phase) in [("zebra", "awake"), ("okapi", "asleep")] {
        let (report, done) = prove(
            &bed,
            &["--instance", name, "--cycles", "3", "--clients", "4"],
        );
        assert_eq!(done.code, Some(0), "{report:#}{}", done.err);
        assert_eq!(
            (&report["instance"], &report["recorded"]),
            (&name.into(), &true.into()),
            "{report:#}"
        );
        assert_eq!(bed.phase(name), phase);
    }
}

#[test]
fn one_that_is_not_the_demo_application_is_only_asked() {
    let Some(bed) = Bed::new(Combination::BUILTIN) else {
        return;
    };
    if !std::path::Path::new("/usr/bin/python3").exists() {
        crate::support::need::skipped("not installed: /usr/bin/python3");
        return;
    }
    bed.create("pony", "python-http");
    let (report, done) = prove(
        &bed,
        &["--instance", "pony", "--cycles", "3", "--clients", "4"],
    );
    assert_eq!(done.code, Some(0), "{report:#}{}", done.err);
    assert_eq!(
        (&report["recorded"], &report["messages"]),
        (&false.into(), &0.into()),
        "{report:#}"
    );
    // What it cannot know is not told as nought.
    for key in ["held", "doubled", "wake", "wake_from_sleep"] {
        assert!(report[key].is_null(), "{report:#}");
    }
}

#[test]
fn what_cannot_be_proven_is_said() {
    let Some(bed) = Bed::new(Combination::BUILTIN) else {
        return;
    };
    let fails = |arguments: &[&str], code: i32| {
        run(&mut bed.command(&[&["prove"], arguments].concat()), PROOF).error(code)
    };
    fails(&["--instance", "nobody"], 3);
    fails(&["--app", "nothing"], 3).says(&["nothing"]);
    bed.acc(&["create", "zebra", "--model", "tester", "--desired", "down"])
        .ok();
    fails(&["--instance", "zebra"], 4).says(&["acc enable zebra"]);
    bed.acc(&["halt"]).ok();
    fails(&[], 1).says(&["acc boot"]);
}

/// supervisord has died, and with it the reader of the server's standard error: what the server has
/// to log is lost, but nothing else may be.
#[test]
fn a_log_that_cannot_be_written_costs_no_request() {
    let Some(bed) = Bed::unbooted(Combination::BUILTIN, |_| {}) else {
        return;
    };
    std::fs::create_dir_all(bed.home()).unwrap();
    let mut server = bed
        .command(&["server"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    bed.wait_server(None);
    drop(server.stderr.take());
    bed.acc(&["create", "zebra", "--model", "tester"]).ok();
    for _ in 0..3 {
        bed.acc(&["stop", "zebra"]).ok();
        bed.get("zebra", "/").status(200);
    }
    bed.acc(&["stop", "zebra"]).ok();
    kill(Pid::from_raw(server.id().cast_signed()), Signal::SIGTERM).unwrap();
    wait_until("the server has ended", Duration::from_secs(20), || {
        holds(server.try_wait().unwrap().is_some(), "it runs")
    });
}
