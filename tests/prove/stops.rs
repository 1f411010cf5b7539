//! Stops and wakes under load.

use std::time::Duration;

use super::run::proven;
use crate::support::wait::holds;
use crate::support::{Combination, Fixture, wait_until};

pub fn nothing_is_lost_on_a_unix_socket(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    let mut idle_stops = 0;
    // An idle stop is cancelled by a request that arrives in its last moment, and on a busy host
    // that can happen to all stops of a run: about half of the tries end in a stop, and a run has
    // two.
    for _ in 0..10 {
        let report = proven(&fixture, &["--cycles", "10", "--clients", "8"]);
        assert!(
            report["cycles"] == 10 && report["held"].as_u64().unwrap() > 0,
            "{report:#}"
        );
        // Every stop was followed by a wake, and no request started a second process.
        assert!(report["right"].as_u64().unwrap() >= 80, "{report:#}");
        idle_stops += report["idle_stops"].as_u64().unwrap();
        if idle_stops > 0 {
            return;
        }
    }
    panic!("no idle stop in ten runs");
}

pub fn nothing_is_lost_on_a_port(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    proven(
        &fixture,
        &["--cycles", "10", "--clients", "8", "--app", "hello-tcp"],
    );
}

pub fn nothing_is_lost_on_a_handed_socket(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    proven(
        &fixture,
        &["--cycles", "10", "--clients", "8", "--app", "hello-fd"],
    );
}

/// WebSockets and event streams are open all the time: each is ended in order, and no request waits
/// much longer because of them.
pub fn streams_end_in_order(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    let report = proven(&fixture, &["--cycles", "3", "--clients", "4", "--streams"]);
    let of = |what: &str| report["streams"][what].as_u64().unwrap();
    // A stop finds most of them open, and none is left when it is over.
    assert!(
        of("ended_in_order") >= 3 * 10 && of("opened") >= of("ended_in_order") + 20,
        "{report:#}"
    );
    assert_eq!((of("broken"), of("cut_by_the_crash")), (0, 0), "{report:#}");
}

/// The application stops accepting at once on SIGTERM (the demo application always does) and takes
/// 3 s to end.
pub fn nothing_is_lost_when_it_takes_long_to_end(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    let text = |listen: &str, address: &str| {
        format!(
            r#"description = "takes 3 s to end"
listen = "{listen}"
command = ["{{{{ acc }}}}", "demo-app", {address}, "--name", "{{{{ name }}}}", "--finish-delay", "3s", "--log", "{{{{ params.log }}}}"]
health = "/health"

[params.log]
default = ""
description = "a file for its record"
"#
        )
    };
    fixture.model("long", &text("unix", r#""--socket", "{{ socket }}""#));
    fixture.model("long-tcp", &text("tcp", r#""--port", "{{ port }}""#));
    for model in ["long", "long-tcp"] {
        let report = proven(
            &fixture,
            &["--cycles", "3", "--clients", "8", "--app", model],
        );
        assert!(
            report["wake"]["longest_ms"].as_f64().unwrap() >= 3000.0,
            "{report:#}"
        );
    }
}

/// The drain is over after half a second, the request takes three: the application gets SIGTERM,
/// and finishes the request.
pub fn a_request_that_outlasts_the_drain_is_finished_by_the_application(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.drain = "500ms") else {
        return;
    };
    for (name, model) in [("shop", "tester"), ("blog", "tester-tcp")] {
        fixture.create(name, model);
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| {
                fixture.send(
                    &fixture
                        .ask("GET", name, "/slow?ms=3000")
                        .header("X-Id", "slow-one"),
                )
            });
            wait_until(
                "the slow request is under way",
                Duration::from_secs(5),
                || {
                    holds(
                        fixture
                            .told(name, "REQ")
                            .iter()
                            .any(|l| l.contains("slow-one")),
                        "no request seen",
                    )
                },
            );
            fixture.acc(&["stop", name]).ok();
            slow.join().unwrap().status(200);
        });
        fixture.get(name, "/").status(200);
        assert_eq!(
            fixture
                .told(name, "REQ")
                .iter()
                .filter(|l| l.contains("slow-one"))
                .count(),
            1,
            "delivered twice"
        );
    }
}
