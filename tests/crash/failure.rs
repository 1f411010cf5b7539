//! Applications that die at start, hang, or die while they serve: phase, reason, back-off, and how
//! they recover.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::truth;
use crate::support::wait::{holds, now};
use crate::support::{Combination, Fixture, processes, wait_until};

/// Runs the demo application unless a file says otherwise: `exit` (with a line of output first) or
/// `hang`.
const FICKLE: &str = r#"description = "does what the file `mode` says"
listen = "unix"
command = ["/bin/sh", "-c", 'case "$(cat "$1" 2>/dev/null)" in exit) echo "no luck today"; exit 7;; hang) exec sleep 1000;; esac; shift; exec "$@"', "sh", "{{ data }}/mode", "{{ acc }}", "demo-app", "--socket", "{{ socket }}", "--name", "{{ name }}", "--log", "{{ data }}/demo.log"]
"#;

fn fixture(combination: Combination) -> Option<Fixture> {
    fixture_of(combination, "")
}

/// The same application with more lines in its model.
fn fixture_of(combination: Combination, line: &str) -> Option<Fixture> {
    let fixture = Fixture::with(combination, |s| {
        (s.idle, s.wake_timeout, s.stop_timeout) = ("60s", "2s", "1s")
    })?;
    fixture.model("fickle", &format!("{FICKLE}{line}"));
    fixture
        .acc(&["create", "shop", "--model", "fickle", "--asleep"])
        .ok();
    Some(fixture)
}

fn mode(fixture: &Fixture, mode: &str) {
    std::fs::write(fixture.instance("shop").join("data/mode"), mode).unwrap();
}

/// How often the instance was started, by its events.
fn failures(fixture: &Fixture) -> usize {
    let events = fixture.json(&["events", "shop"]);
    events
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["kind"] == "failed")
        .count()
}

#[test]
fn a_command_that_works_alone_writes_its_lines() {
    let Some(fixture) = Fixture::new(Combination::BUILTIN) else {
        return;
    };
    fixture.create("shop", "hello");
    truth::without_server(&fixture);
    for _ in 0..5 {
        fixture.acc(&["stop", "shop"]).ok();
        fixture.acc(&["start", "shop"]).ok();
    }
    let events = fixture.json(&["events", "shop"]);
    let count = |kind| {
        events
            .as_array()
            .unwrap()
            .iter()
            .filter(|e| e["kind"] == kind)
            .count()
    };
    assert_eq!((count("slept"), count("woke")), (5, 6), "{events}");
}

fn one_that_dies_at_start(combination: Combination) {
    let Some(fixture) = fixture(combination) else {
        return;
    };
    mode(&fixture, "exit");
    let reply = fixture.get("shop", "/").status(503);
    assert!(
        !reply.text().contains("no luck today"),
        "its output is shown to strangers: {}",
        reply.text()
    );
    let info = fixture.info("shop");
    assert_eq!(
        (info["phase"].as_str(), info["failure"].as_str()),
        (
            Some("failed"),
            Some("exited with code 7 before its first answer")
        )
    );
    assert_eq!(
        info["log_tail"].as_array().unwrap().last().unwrap(),
        "no luck today"
    );
    fixture.acc(&["info", "shop"]).ok().says(&[
        "exited with code 7",
        "last lines of its log:",
        "no luck today",
    ]);
    // However many requests there are: one try in each window, and the windows double.
    let began = now();
    let mut tries = vec![];
    while began.elapsed() < Duration::from_millis(7500) {
        fixture.get("shop", "/").status(503);
        let seen = failures(&fixture);
        if tries.last().is_none_or(|(n, _)| *n != seen) {
            tries.push((seen, began.elapsed()));
        }
        crate::support::wait::pause(Duration::from_millis(40));
    }
    // At 0 s, after 1 s, 3 s and 7 s; on a machine that stands still for a while, after 15 s too.
    let (seen, elapsed) = (failures(&fixture), began.elapsed());
    let most = (0..)
        .take_while(|n| Duration::from_secs((1 << n) - 1) <= elapsed)
        .count();
    assert!((3..=most).contains(&seen), "{tries:?}");
    for pair in tries.windows(2).skip(1) {
        let pause = pair[1].1 - pair[0].1;
        let least =
            Duration::from_millis(1000 << (pair[0].0 - 1).min(8)) - Duration::from_millis(300);
        assert!(pause >= least, "{tries:?}");
    }
    // An operator's start tries at once, and its success resets the back-off.
    let before = failures(&fixture);
    fixture
        .acc(&["start", "shop"])
        .error(1)
        .says(&["exited with code 7"]);
    assert_eq!(failures(&fixture), before + 1);
    mode(&fixture, "");
    fixture.get("shop", "/").status(503);
    fixture.acc(&["reset", "shop"]).ok();
    fixture.get("shop", "/").status(200);
    let info = fixture.info("shop");
    assert!(
        info["failure"].is_null() && info.get("log_tail").is_none(),
        "{info}"
    );
    // The back-off begins anew: the first window is a second.
    fixture.acc(&["stop", "shop"]).ok();
    mode(&fixture, "exit");
    fixture.get("shop", "/").status(503);
    mode(&fixture, "");
    let again = now();
    wait_until("it is tried again", Duration::from_secs(5), || {
        holds(fixture.get("shop", "/").status == 200, "503")
    });
    assert!(
        again.elapsed() < Duration::from_millis(2500),
        "{:?}",
        again.elapsed()
    );
    truth::becomes_true(&fixture, || ());
}

/// A request waits as long as `wake.timeout` says, even if its application may take longer to
/// start.
fn one_that_takes_longer_than_a_request_waits(combination: Combination) {
    let Some(fixture) = fixture_of(combination, "[timeouts]\nstart = \"60s\"\n") else {
        return;
    };
    mode(&fixture, "hang");
    fixture.get("shop", "/").status(504);
    assert_eq!(fixture.phase("shop"), "waking");
    fixture.acc(&["stop", "--now", "shop"]).ok();
    mode(&fixture, "");
    fixture.get("shop", "/").status(200);
}

fn one_that_hangs(combination: Combination) {
    // Earlier than the client itself gives up.
    let Some(fixture) = fixture_of(combination, "[timeouts]\nstart = \"1s\"\n") else {
        return;
    };
    mode(&fixture, "hang");
    let began = now();
    fixture.get("shop", "/").status(503);
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    wait_until("it failed", truth::SETTLED, || {
        holds(fixture.phase("shop") == "failed", fixture.phase("shop"))
    });
    let info = fixture.info("shop");
    let failure = info["failure"].as_str().unwrap();
    assert!(
        failure.starts_with("did not answer within 1.") && failure.contains("app.sock"),
        "{failure}"
    );
    fixture
        .acc(&["start", "shop"])
        .error(5)
        .says(&["did not answer within"]);
    mode(&fixture, "");
    fixture.acc(&["start", "shop"]).ok();
    fixture.get("shop", "/").status(200);
    truth::becomes_true(&fixture, || ());
}

fn one_that_dies_while_it_serves(combination: Combination) {
    let Some(fixture) = fixture(combination) else {
        return;
    };
    fixture.get("shop", "/").status(200);
    for signal in [Signal::SIGKILL, Signal::SIGABRT] {
        let pid = fixture.pid("shop");
        let began = now();
        processes::signal(pid, signal);
        wait_until("its death is noticed", truth::SETTLED, || {
            holds(fixture.phase("shop") == "failed", fixture.phase("shop"))
        });
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "noticed only after {:?}",
            began.elapsed()
        );
        let failure = fixture.info("shop")["failure"].as_str().unwrap().to_owned();
        assert_eq!(failure, format!("was killed by {signal} while it served"));
        assert!(!fixture.run().join("gate/shop.sock").exists());
        if signal == Signal::SIGKILL {
            // The first crash: the next request starts the instance at once.
            fixture.get("shop", "/").status(200);
        }
    }
    // The second crash within ten seconds of a wake is a crash loop.
    fixture.get("shop", "/").status(503);
    fixture.acc(&["reset", "shop"]).ok();
    fixture.get("shop", "/").status(200);
    truth::becomes_true(&fixture, || ());
}

/// Killed at many moments of its idle stop, while a request arrives: the drain takes only
/// milliseconds, so the moment is left to chance.
fn one_that_is_killed_while_it_is_put_to_sleep(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "50ms") else {
        return;
    };
    let slow_end = r#"description = "takes a moment to end"
listen = "unix"
command = ["{{ acc }}", "demo-app", "--socket", "{{ socket }}", "--name", "{{ name }}", "--finish-delay", "6s", "--log", "{{ data }}/demo.log"]
"#;
    fixture.model("slow-end", slow_end);
    for (n, model) in (0..12).map(|n| (n, if n < 9 { "tester" } else { "slow-end" })) {
        let name = format!("a{n}");
        fixture.create(&name, model);
        let pid = fixture.pid(&name);
        let idle = || {
            fixture
                .acc(&["monitor", "--dry-run"])
                .ok()
                .out
                .contains("sleep")
        };
        wait_until("it is idle", truth::SETTLED, || {
            holds(idle(), fixture.info(&name))
        });
        let began = now();
        // The duration of the monitor run is not measured: the run may be late, and put the new
        // process to sleep.
        let (reply, took) = std::thread::scope(|scope| {
            scope.spawn(|| fixture.acc(&["monitor"]));
            // A command needs some milliseconds to start.
            crate::support::wait::pause(Duration::from_millis(4 + n % 9 * 2));
            let post = scope.spawn(|| {
                fixture
                    .ask("POST", &name, "/echo")
                    .header("X-Id", "the-post")
                    .body("x")
                    .send(fixture.address())
            });
            processes::signal(pid, Signal::SIGKILL);
            (post.join().unwrap(), began.elapsed())
        });
        let seen: Vec<String> = fixture
            .told(&name, "REQ")
            .into_iter()
            .filter(|l| l.ends_with("the-post"))
            .collect();
        assert!(seen.len() <= 1, "it was executed twice: {seen:?}");
        let died_with_it = seen.iter().any(|l| l.contains(&format!(" {pid} ")));
        match reply {
            Ok(reply) if reply.status == 200 => assert_eq!(seen.len(), 1),
            // The request was in the socket of the killed process, or in the process itself: it may
            // have been executed, so it is not sent again.
            Ok(reply) if reply.status == 502 => {
                assert!(died_with_it || seen.is_empty(), "{seen:?}")
            }
            other => panic!("{model} {n}: {other:?}, {seen:?}"),
        }
        assert!(
            took < Duration::from_secs(5),
            "it waited for one that was dead: {took:?}"
        );
        fixture.get(&name, "/").status(200);
        // One more start for each time that a late monitor run has put the new process to sleep in
        // order.
        let (starts, ends) = (
            fixture.told(&name, "START"),
            fixture.told(&name, "TERM").len(),
        );
        assert!(
            starts.len() <= 2 + ends,
            "{starts:?}, {ends} ended in order"
        );
        if model == "slow-end" {
            // The test does not wait for the slow end a second time.
            processes::signal(fixture.pid(&name), Signal::SIGKILL);
        } else {
            fixture.acc(&["stop", &name]).ok();
        }
    }
    truth::becomes_true(&fixture, || ());
}

macro_rules! on {
    ($($module:ident $combination:expr;)+) => {
        $(mod $module {
            use super::*;
            #[test]
            fn dies_at_start() {
                one_that_dies_at_start($combination);
            }
            #[test]
            fn takes_longer_than_a_request_waits() {
                one_that_takes_longer_than_a_request_waits($combination);
            }
            #[test]
            fn hangs() {
                one_that_hangs($combination);
            }
            #[test]
            fn dies_while_it_serves() {
                one_that_dies_while_it_serves($combination);
            }
            #[test]
            fn is_killed_while_it_is_put_to_sleep() {
                one_that_is_killed_while_it_is_put_to_sleep($combination);
            }
        })+
    };
}

on! {
    nginx_supervisord Combination::REAL;
    builtin_builtin Combination::BUILTIN;
}
