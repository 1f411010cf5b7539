//! `kill -9` of the whole server in each phase: the next one makes it true within seconds, and
//! starts nothing twice.

use std::time::Duration;

use crate::support::bed::SOON;
use crate::support::wait::holds;
use crate::support::{Bed, Combination, processes, wait_until};

/// Kills master and worker and boots again.
fn killed(bed: &Bed) {
    bed.wait_server(None);
    let before = bed.kill_server();
    bed.acc(&["boot"]).ok();
    bed.wait_server(Some(before));
}

pub fn killed_while_waking(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.idle = "60s") else {
        return;
    };
    bed.acc(&[
        "create",
        "zebra",
        "--model",
        "tester",
        "--set",
        "start_delay=1200ms",
        "--asleep",
    ])
    .ok();
    std::thread::scope(|scope| {
        scope.spawn(|| bed.ask("GET", "zebra", "/").send(bed.address()));
        wait_until("its process runs", SOON, || {
            holds(!bed.told("zebra", "START").is_empty(), "not yet")
        });
        killed(&bed);
    });
    bed.wait_phase("zebra", "awake");
    bed.get("zebra", "/").status(200);
    assert_eq!(bed.told("zebra", "START").len(), 1, "it was started twice");
}

pub fn killed_while_draining(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.idle = "60s") else {
        return;
    };
    bed.create("zebra", "tester");
    let pid = bed.pid("zebra");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            bed.ask("GET", "zebra", "/slow?ms=3000")
                .header("X-Id", "slow-one")
                .send(bed.address())
        });
        wait_until("the slow request is under way", SOON, || {
            holds(
                bed.told("zebra", "REQ")
                    .iter()
                    .any(|l| l.contains("slow-one")),
                "not yet",
            )
        });
        let stop = scope.spawn(|| bed.acc(&["stop", "zebra"]));
        bed.wait_phase("zebra", "draining");
        killed(&bed);
        stop.join().unwrap();
        // Why it drained nobody knows any more: nothing may be cut, so it serves again.
        bed.wait_phase("zebra", "awake");
        let slow = slow.join().unwrap();
        if combination.edge == "nginx" {
            assert_eq!(slow.unwrap().status, 200, "a request in flight was cut");
        }
    });
    assert_eq!(bed.pid("zebra"), pid);
    bed.get("zebra", "/").status(200);
    assert_eq!(bed.told("zebra", "START").len(), 1);
}

pub fn killed_while_stopping(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.idle = "60s") else {
        return;
    };
    let text = r#"description = "takes a moment to end"
listen = "unix"
command = ["{{ acc }}", "demo-app", "--socket", "{{ socket }}", "--name", "{{ name }}", "--log", "{{ data }}/demo.log", "--finish-delay", "1500ms"]
"#;
    bed.model("lingers", text);
    bed.create("zebra", "lingers");
    let pid = bed.pid("zebra");
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| bed.acc(&["stop", "zebra"]));
        bed.wait_phase("zebra", "stopping");
        killed(&bed);
        stop.join().unwrap();
    });
    bed.wait_phase("zebra", "asleep");
    wait_until("its process has ended", Duration::from_secs(5), || {
        holds(!processes::alive(pid), pid)
    });
    bed.get("zebra", "/").status(200);
    assert_eq!(bed.told("zebra", "START").len(), 2);
    assert_eq!(bed.told("zebra", "EXIT").len(), 1);
}
