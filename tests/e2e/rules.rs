//! Requests that may not wake, and requests that do not count as use.

use std::time::Duration;

use crate::support::{Ask, Combination, Fixture, now};

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
    let Some(fixture) = Fixture::with(combination, |s| s.rules = RULES.into()) else {
        return;
    };
    fixture
        .acc(&["create", "shop", "--model", "tester", "--asleep"])
        .ok();
    let reply = fixture.get("shop", "/health").status(503);
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    assert!(
        reply
            .header("cache-control")
            .is_some_and(|c| c.contains("no-store")),
        "{reply:?}"
    );
    fixture
        .send(&fixture.ask("OPTIONS", "shop", "/"))
        .status(503);
    assert_eq!(fixture.phase("shop"), "asleep");
    assert!(fixture.told("shop", "START").is_empty());
    let bot = |fixture: &Fixture| -> Ask {
        fixture
            .ask("GET", "shop", "/")
            .header("User-Agent", "Mozilla uptimebot/2.0")
    };
    fixture.send(&bot(&fixture)).status(200);
    fixture.wait_phase("shop", "awake");
    fixture.get("shop", "/health").status(204);
}

pub fn what_does_not_count_does_not_keep_it_awake(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| (s.rules, s.idle) = (RULES.into(), "1s"))
    else {
        return;
    };
    fixture.create("shop", "tester");
    // Requested all the time, but only by monitors: the instance falls asleep after about its idle
    // timeout.
    let began = now();
    while fixture.phase("shop") == "awake" {
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "requests that do not count keep it awake"
        );
        let _ = fixture.get("shop", "/health");
        fixture.monitor();
    }
    // Requested by people the instance stays awake.
    fixture.get("shop", "/").status(200);
    let pid = fixture.pid("shop");
    let began = now();
    while began.elapsed() < Duration::from_secs(3) {
        fixture.get("shop", "/").status(200);
        fixture.monitor();
    }
    assert_eq!(fixture.pid("shop"), pid);
}
