//! Many at once: one start for many requests, one monitor run at a time, and no request lost to a
//! stop.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::wait::holds;
use crate::support::{Combination, Fixture, now, wait_until};

/// Sends `count` requests at the same time and counts the answers by status.
pub fn crowd(fixture: &Fixture, count: usize, target: &str) -> BTreeMap<String, usize> {
    let ready = std::sync::Barrier::new(count);
    let answers: Vec<String> = std::thread::scope(|scope| {
        let client = || {
            ready.wait();
            fixture
                .ask("GET", "shop", target)
                .send(fixture.address())
                .map_or_else(|e| e.to_string(), |r| r.status.to_string())
        };
        let clients: Vec<_> = (0..count).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|c| c.join().unwrap()).collect()
    });
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer).or_default() += 1;
    }
    counts
}

pub fn two_hundred_first_requests_make_one_start(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    fixture
        .acc(&[
            "create",
            "shop",
            "--model",
            "tester",
            "--set",
            "start_delay=200ms",
            "--asleep",
        ])
        .ok();
    assert_eq!(
        crowd(&fixture, 200, "/"),
        BTreeMap::from([("200".to_owned(), 200)])
    );
    assert_eq!(fixture.told("shop", "START").len(), 1);
    assert_eq!(fixture.info("shop")["wakes"], 1);
}

pub fn a_failed_start_is_reported_to_every_waiting_request(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    let text = r#"description = "ends at start"
listen = "unix"
command = ["{{ acc }}", "demo-app", "--socket", "{{ socket }}", "--exit-at-start", "7"]
"#;
    fixture.model("dies", text);
    fixture
        .acc(&["create", "shop", "--model", "dies", "--asleep"])
        .ok();
    let began = now();
    assert_eq!(
        crowd(&fixture, 30, "/"),
        BTreeMap::from([("503".to_owned(), 30)])
    );
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "an application that has ended was waited for"
    );
    let info = fixture.info("shop");
    assert_eq!(info["phase"], "failed", "{info}");
    assert_eq!(
        info["failure"], "exited with code 7 before its first answer",
        "{info}"
    );
    // Another request during the back-off starts nothing.
    let reply = fixture.get("shop", "/").status(503);
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    assert!(
        !reply.text().contains(fixture.dir.to_str().unwrap()),
        "internal paths are shown: {}",
        reply.text()
    );
}

pub fn two_monitor_runs_at_once(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "100ms") else {
        return;
    };
    for name in ["shop", "blog", "wiki"] {
        fixture.create(name, "tester");
    }
    std::thread::scope(|scope| {
        let passes: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| fixture.acc(&["monitor"])))
            .collect();
        for pass in passes {
            pass.join().unwrap().ok();
        }
    });
    for name in ["shop", "blog", "wiki"] {
        fixture.monitor_until_asleep(name);
        assert_eq!(
            fixture.told(name, "TERM").len(),
            1,
            "{name} was stopped more than once"
        );
    }
    let quiet = fixture.monitor();
    assert_eq!(
        (quiet.out.as_str(), quiet.err.as_str()),
        ("", ""),
        "a pass that did nothing is not quiet"
    );
}

pub fn no_request_is_lost_to_idle_stops(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| (s.idle, s.check_every) = ("50ms", "50ms"))
    else {
        return;
    };
    fixture.create("shop", "tester");
    let over = AtomicBool::new(false);
    let (answered, lost) = std::thread::scope(|scope| {
        let client = |n: u64| {
            let (over, fixture) = (&over, &fixture);
            move || {
                let (mut answered, mut lost) = (0, Vec::new());
                while !over.load(Ordering::Relaxed) {
                    match fixture
                        .ask("POST", "shop", "/echo")
                        .body("x")
                        .send(fixture.address())
                    {
                        Ok(reply) if reply.status == 200 => answered += 1,
                        Ok(reply) => lost.push(format!("{} {}", reply.status, reply.text())),
                        Err(e) => lost.push(e.to_string()),
                    }
                    // Pauses around the idle timeout, so that requests arrive at every moment of a
                    // stop.
                    crate::support::wait::pause(Duration::from_millis(
                        30 + (answered * 7 + n * 13) % 80,
                    ));
                }
                (answered, lost)
            }
        };
        let clients: Vec<_> = (0..2).map(|n| scope.spawn(client(n))).collect();
        let ending = crate::support::wait::Ending(&over);
        crate::support::wait::pause(Duration::from_secs(6));
        // On a busy host an idle stop is rarer, because there is always a request in progress.
        wait_until("it slept a few times", Duration::from_secs(60), || {
            let starts = fixture.told("shop", "START").len();
            holds(starts > 3, starts)
        });
        drop(ending);
        let all: Vec<_> = clients.into_iter().map(|c| c.join().unwrap()).collect();
        (
            all.iter().map(|(a, _)| *a).sum::<u64>(),
            all.into_iter().flat_map(|(_, l)| l).collect::<Vec<_>>(),
        )
    });
    assert!(
        lost.is_empty(),
        "{answered} answered, {} lost: {:#?}",
        lost.len(),
        &lost[..lost.len().min(5)]
    );
    let executed = fixture
        .told("shop", "REQ")
        .into_iter()
        .filter(|l| l.contains("POST"))
        .count() as u64;
    assert_eq!(executed, answered, "a POST was executed twice");
}
