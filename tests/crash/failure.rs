//! Applications that die at start, hang, or die while they serve: phase, reason, back-off, way out.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::truth;
use crate::support::wait::{holds, now};
use crate::support::{Bed, Combination, processes, wait_until};

/// Runs the demo application unless a file says how else: `exit` (with a line of output first) or
/// `hang`.
const FICKLE: &str = r#"description = "does what the file `mode` says"
listen = "unix"
command = ["/bin/sh", "-c", 'case "$(cat "$1" 2>/dev/null)" in exit) echo "no luck today"; exit 7;; hang) exec sleep 1000;; esac; shift; exec "$@"', "sh", "{{ data }}/mode", "{{ acc }}", "demo-app", "--socket", "{{ socket }}", "--name", "{{ name }}", "--log", "{{ data }}/demo.log"]
"#;

fn bed(combination: Combination) -> Option<Bed> {
    bed_of(combination, "")
}

/// The same with more in its model.
fn bed_of(combination: Combination, line: &str) -> Option<Bed> {
    let bed = Bed::with(combination, |s| {
        (s.idle, s.wake_timeout, s.stop_timeout) = ("60s", "2s", "1s")
    })?;
    bed.model("fickle", &format!("{FICKLE}{line}"));
    bed.acc(&["create", "zebra", "--model", "fickle", "--asleep"])
        .ok();
    Some(bed)
}

fn mode(bed: &Bed, mode: &str) {
    std::fs::write(bed.instance("zebra").join("data/mode"), mode).unwrap();
}

/// How often it was started, by its events.
fn failures(bed: &Bed) -> usize {
    let events = bed.json(&["events", "zebra"]);
    events
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["kind"] == "failed")
        .count()
}

#[test]
fn a_command_that_works_alone_writes_its_lines() {
    let Some(bed) = Bed::new(Combination::BUILTIN) else {
        return;
    };
    bed.create("zebra", "hello");
    truth::without_server(&bed);
    for _ in 0..5 {
        bed.acc(&["stop", "zebra"]).ok();
        bed.acc(&["start", "zebra"]).ok();
    }
    let events = bed.json(&["events", "zebra"]);
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
    let Some(bed) = bed(combination) else { return };
    mode(&bed, "exit");
    let reply = bed.get("zebra", "/").status(503);
    assert!(
        !reply.text().contains("no luck today"),
        "its output is shown to strangers: {}",
        reply.text()
    );
    let info = bed.info("zebra");
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
    bed.acc(&["info", "zebra"]).ok().says(&[
        "exited with code 7",
        "last lines of its log:",
        "no luck today",
    ]);
    // Any number of requests: one try a window, and the windows double.
    let began = now();
    let mut tries = vec![];
    while began.elapsed() < Duration::from_millis(7500) {
        bed.get("zebra", "/").status(503);
        let seen = failures(&bed);
        if tries.last().is_none_or(|(n, _)| *n != seen) {
            tries.push((seen, began.elapsed()));
        }
        crate::support::wait::pause(Duration::from_millis(40));
    }
    // At 0 s, after 1 s, 3 s and 7 s; on a machine that stands still for a while, after 15 s too.
    let (seen, elapsed) = (failures(&bed), began.elapsed());
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
    // The operator tries at once, and a success resets it.
    let before = failures(&bed);
    bed.acc(&["start", "zebra"])
        .error(1)
        .says(&["exited with code 7"]);
    assert_eq!(failures(&bed), before + 1);
    mode(&bed, "");
    bed.get("zebra", "/").status(503);
    bed.acc(&["reset", "zebra"]).ok();
    bed.get("zebra", "/").status(200);
    let info = bed.info("zebra");
    assert!(
        info["failure"].is_null() && info.get("log_tail").is_none(),
        "{info}"
    );
    // From the beginning again: the first window is a second.
    bed.acc(&["stop", "zebra"]).ok();
    mode(&bed, "exit");
    bed.get("zebra", "/").status(503);
    mode(&bed, "");
    let again = now();
    wait_until("it is tried again", Duration::from_secs(5), || {
        holds(bed.get("zebra", "/").status == 200, "503")
    });
    assert!(
        again.elapsed() < Duration::from_millis(2500),
        "{:?}",
        again.elapsed()
    );
    truth::becomes_true(&bed, || ());
}

/// A request waits as long as `wake.timeout` says, also where its application may take longer to
/// start.
fn one_that_takes_longer_than_a_request_waits(combination: Combination) {
    let Some(bed) = bed_of(combination, "[timeouts]\nstart = \"60s\"\n") else {
        return;
    };
    mode(&bed, "hang");
    bed.get("zebra", "/").status(504);
    assert_eq!(bed.phase("zebra"), "waking");
    bed.acc(&["stop", "--now", "zebra"]).ok();
    mode(&bed, "");
    bed.get("zebra", "/").status(200);
}

fn one_that_hangs(combination: Combination) {
    // Earlier than the request gives up by itself.
    let Some(bed) = bed_of(combination, "[timeouts]\nstart = \"1s\"\n") else {
        return;
    };
    mode(&bed, "hang");
    let began = now();
    bed.get("zebra", "/").status(503);
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    wait_until("it failed", truth::SETTLED, || {
        holds(bed.phase("zebra") == "failed", bed.phase("zebra"))
    });
    let info = bed.info("zebra");
    let failure = info["failure"].as_str().unwrap();
    assert!(
        failure.starts_with("did not answer within 1.") && failure.contains("app.sock"),
        "{failure}"
    );
    bed.acc(&["start", "zebra"])
        .error(5)
        .says(&["did not answer within"]);
    mode(&bed, "");
    bed.acc(&["start", "zebra"]).ok();
    bed.get("zebra", "/").status(200);
    truth::becomes_true(&bed, || ());
}

fn one_that_dies_while_it_serves(combination: Combination) {
    let Some(bed) = bed(combination) else { return };
    bed.get("zebra", "/").status(200);
    for signal in [Signal::SIGKILL, Signal::SIGABRT] {
        let pid = bed.pid("zebra");
        let began = now();
        processes::signal(pid, signal);
        wait_until("its death is noticed", truth::SETTLED, || {
            holds(bed.phase("zebra") == "failed", bed.phase("zebra"))
        });
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "noticed only after {:?}",
            began.elapsed()
        );
        let failure = bed.info("zebra")["failure"].as_str().unwrap().to_owned();
        assert_eq!(failure, format!("was killed by {signal} while it served"));
        assert!(!bed.run().join("gate/zebra.sock").exists());
        if signal == Signal::SIGKILL {
            // The first death: the next request starts it at once.
            bed.get("zebra", "/").status(200);
        }
    }
    // The second within ten seconds of a wake is a crash loop.
    bed.get("zebra", "/").status(503);
    bed.acc(&["reset", "zebra"]).ok();
    bed.get("zebra", "/").status(200);
    truth::becomes_true(&bed, || ());
}

/// Killed at moments all over its idle stop, while a request comes: the drain is over in
/// milliseconds, so chance finds it.
fn one_that_is_killed_while_it_is_put_to_sleep(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.idle = "50ms") else {
        return;
    };
    let slow_end = r#"description = "takes a moment to end"
listen = "unix"
command = ["{{ acc }}", "demo-app", "--socket", "{{ socket }}", "--name", "{{ name }}", "--finish-delay", "6s", "--log", "{{ data }}/demo.log"]
"#;
    bed.model("slow-end", slow_end);
    for (n, model) in (0..12).map(|n| (n, if n < 9 { "tester" } else { "slow-end" })) {
        let name = format!("a{n}");
        bed.create(&name, model);
        let pid = bed.pid(&name);
        let idle = || {
            bed.acc(&["monitor", "--dry-run"])
                .ok()
                .out
                .contains("sleep")
        };
        wait_until("it is idle", truth::SETTLED, || {
            holds(idle(), bed.info(&name))
        });
        let began = now();
        // How long the pass takes is another matter: it may be late, and put the new one to sleep.
        let (reply, took) = std::thread::scope(|scope| {
            scope.spawn(|| bed.acc(&["monitor"]));
            // A command needs some milliseconds to begin.
            crate::support::wait::pause(Duration::from_millis(4 + n % 9 * 2));
            let post = scope.spawn(|| {
                bed.ask("POST", &name, "/echo")
                    .header("X-Id", "the-post")
                    .body("x")
                    .send(bed.address())
            });
            processes::signal(pid, Signal::SIGKILL);
            (post.join().unwrap(), began.elapsed())
        });
        let seen: Vec<String> = bed
            .told(&name, "REQ")
            .into_iter()
            .filter(|l| l.ends_with("the-post"))
            .collect();
        assert!(seen.len() <= 1, "it was executed twice: {seen:?}");
        let died_with_it = seen.iter().any(|l| l.contains(&format!(" {pid} ")));
        match reply {
            Ok(reply) if reply.status == 200 => assert_eq!(seen.len(), 1),
            // In its socket, or in itself, when it was killed: it may have been executed, so it is
            // not sent again.
            Ok(reply) if reply.status == 502 => {
                assert!(died_with_it || seen.is_empty(), "{seen:?}")
            }
            other => panic!("{model} {n}: {other:?}, {seen:?}"),
        }
        assert!(
            took < Duration::from_secs(5),
            "it waited for one that was dead: {took:?}"
        );
        bed.get(&name, "/").status(200);
        // Once more for each time that the pass, late, has put the new one to sleep in order.
        let (starts, ends) = (bed.told(&name, "START"), bed.told(&name, "TERM").len());
        assert!(
            starts.len() <= 2 + ends,
            "{starts:?}, {ends} ended in order"
        );
        if model == "slow-end" {
            // Its end is not waited for once more.
            processes::signal(bed.pid(&name), Signal::SIGKILL);
        } else {
            bed.acc(&["stop", &name]).ok();
        }
    }
    truth::becomes_true(&bed, || ());
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
