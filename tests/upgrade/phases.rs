//! `kill -9` of the whole server in each phase: the next server makes the phase true within
//! seconds, and starts nothing twice.

use std::time::Duration;

use crate::support::fixture::SOON;
use crate::support::wait::holds;
use crate::support::{Combination, Fixture, processes, wait_until};

/// Kills master and worker and boots again.
fn killed(fixture: &Fixture) {
    fixture.wait_server(None);
    let before = fixture.kill_server();
    fixture.acc(&["boot"]).ok();
    fixture.wait_server(Some(before));
}

pub fn killed_while_waking(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture
        .acc(&[
            "create",
            "shop",
            "--model",
            "tester",
            "--set",
            "start_delay=1200ms",
            "--asleep",
        ])
        .ok();
    std::thread::scope(|scope| {
        scope.spawn(|| fixture.ask("GET", "shop", "/").send(fixture.address()));
        wait_until("its process runs", SOON, || {
            holds(!fixture.told("shop", "START").is_empty(), "not yet")
        });
        killed(&fixture);
    });
    fixture.wait_phase("shop", "awake");
    fixture.get("shop", "/").status(200);
    assert_eq!(
        fixture.told("shop", "START").len(),
        1,
        "it was started twice"
    );
}

pub fn killed_while_draining(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let pid = fixture.pid("shop");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            fixture
                .ask("GET", "shop", "/slow?ms=3000")
                .header("X-Id", "slow-one")
                .send(fixture.address())
        });
        wait_until("the slow request is under way", SOON, || {
            holds(
                fixture
                    .told("shop", "REQ")
                    .iter()
                    .any(|l| l.contains("slow-one")),
                "not yet",
            )
        });
        let stop = scope.spawn(|| fixture.acc(&["stop", "shop"]));
        fixture.wait_phase("shop", "draining");
        killed(&fixture);
        stop.join().unwrap();
        // The reason of the drain is no longer known: no request may be cut, so the instance serves
        // again.
        fixture.wait_phase("shop", "awake");
        let slow = slow.join().unwrap();
        if combination.edge == "nginx" {
            assert_eq!(slow.unwrap().status, 200, "a request in flight was cut");
        }
    });
    assert_eq!(fixture.pid("shop"), pid);
    fixture.get("shop", "/").status(200);
    assert_eq!(fixture.told("shop", "START").len(), 1);
}

pub fn killed_while_stopping(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    let text = r#"description = "takes a moment to end"
listen = "unix"
command = ["{{ acc }}", "demo-app", "--socket", "{{ socket }}", "--name", "{{ name }}", "--log", "{{ data }}/demo.log", "--finish-delay", "1500ms"]
"#;
    fixture.model("lingers", text);
    fixture.create("shop", "lingers");
    let pid = fixture.pid("shop");
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| fixture.acc(&["stop", "shop"]));
        fixture.wait_phase("shop", "stopping");
        killed(&fixture);
        stop.join().unwrap();
    });
    fixture.wait_phase("shop", "asleep");
    wait_until("its process has ended", Duration::from_secs(5), || {
        holds(!processes::alive(pid), pid)
    });
    fixture.get("shop", "/").status(200);
    assert_eq!(fixture.told("shop", "START").len(), 2);
    assert_eq!(fixture.told("shop", "EXIT").len(), 1);
}
