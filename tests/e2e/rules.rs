//! Requests that may not wake, and requests that do not count as use.

use std::time::Duration;

use crate::support::{Ask, Bed, Combination, now};

const RULES: &str = r#"
[[rules]]
path = "/health"
wake = false
counts = false
[[rules]]
user_agent = "UptimeBot"
counts = false
[[rules]]
method = "OPTIONS"
wake = false
"#;

pub fn what_may_not_wake_does_not(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.rules = RULES.into()) else {
        return;
    };
    bed.acc(&["create", "zebra", "--model", "tester", "--asleep"])
        .ok();
    let reply = bed.get("zebra", "/health").status(503);
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    assert!(
        reply
            .header("cache-control")
            .is_some_and(|c| c.contains("no-store")),
        "{reply:?}"
    );
    bed.send(&bed.ask("OPTIONS", "zebra", "/")).status(503);
    assert_eq!(bed.phase("zebra"), "asleep");
    assert!(bed.told("zebra", "START").is_empty());
    let bot = |bed: &Bed| -> Ask {
        bed.ask("GET", "zebra", "/")
            .header("User-Agent", "Mozilla uptimebot/2.0")
    };
    bed.send(&bot(&bed)).status(200);
    assert_eq!(bed.phase("zebra"), "awake");
    bed.get("zebra", "/health").status(204);
}

pub fn what_does_not_count_does_not_keep_it_awake(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| (s.rules, s.idle) = (RULES.into(), "1s")) else {
        return;
    };
    bed.create("zebra", "tester");
    // Asked all the time, but only by monitors: it falls asleep after about its idle timeout.
    let began = now();
    while bed.phase("zebra") == "awake" {
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "requests that do not count keep it awake"
        );
        let _ = bed.get("zebra", "/health");
        bed.monitor();
    }
    // Asked by people it stays.
    bed.get("zebra", "/").status(200);
    let pid = bed.pid("zebra");
    let began = now();
    while began.elapsed() < Duration::from_secs(3) {
        bed.get("zebra", "/").status(200);
        bed.monitor();
    }
    assert_eq!(bed.pid("zebra"), pid);
}
