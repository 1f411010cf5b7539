//! Requests longer than the idle timeout: open connections are use, and nothing cuts them.

use std::io::Read;
use std::time::Duration;

use crate::support::wait::pause;
use crate::support::{Combination, Fixture, now, processes};

pub fn a_web_socket_opens_through_a_wake_and_keeps_it_awake(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "400ms") else {
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
    let mut socket = fixture.web_socket("shop");
    assert_eq!(socket.echo("one").unwrap(), "one");
    let pid = fixture.pid("shop");
    // Silent, but open, for several idle timeouts.
    let began = now();
    while began.elapsed() < Duration::from_millis(1500) {
        fixture.monitor();
    }
    assert_eq!(fixture.pid("shop"), pid);
    assert_eq!(socket.echo("two").unwrap(), "two");
    socket.close();
    fixture.monitor_until_asleep("shop");
}

pub fn a_stream_longer_than_the_idle_timeout_is_not_cut(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "400ms") else {
        return;
    };
    fixture
        .acc(&["create", "shop", "--model", "tester", "--asleep"])
        .ok();
    for target in ["/stream?seconds=2", "/stream?seconds=2&kind=sse"] {
        let began = now();
        let mut open = fixture
            .ask("GET", "shop", target)
            .open(fixture.address())
            .unwrap();
        assert_eq!(open.reply.status, 200);
        let mut first = [0; 1];
        open.body.read_exact(&mut first).unwrap();
        assert!(
            began.elapsed() < Duration::from_millis(1500),
            "the stream was held back until it had ended"
        );
        let pid = fixture.pid("shop");
        let monitor = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut rest = Vec::new();
                open.body.read_to_end(&mut rest).map(|_| rest.len())
            });
            while !reader.is_finished() {
                fixture.monitor();
            }
            reader.join().unwrap()
        });
        assert!(monitor.unwrap() > 10);
        assert!(
            began.elapsed() >= Duration::from_millis(1900),
            "the stream ended early"
        );
        assert_eq!(
            fixture.told("shop", "START").len(),
            1,
            "it was restarted within its own stream"
        );
        assert!(processes::alive(pid));
    }
    fixture.monitor_until_asleep("shop");
}

pub fn an_operators_stop_waits_for_what_is_in_flight(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    fixture.create("shop", "tester");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            fixture.send(
                &fixture
                    .ask("GET", "shop", "/slow?ms=1500")
                    .header("X-Id", "slow-one"),
            )
        });
        crate::support::wait_until(
            "the slow request is under way",
            Duration::from_secs(5),
            || {
                crate::support::wait::holds(
                    fixture
                        .told("shop", "REQ")
                        .iter()
                        .any(|l| l.contains("slow-one")),
                    "no request seen",
                )
            },
        );
        let stop = scope.spawn(|| fixture.acc(&["stop", "shop"]));
        pause(Duration::from_millis(300));
        // Arrives during the drain: held, then answered by the next run.
        let late = scope.spawn(|| fixture.get("shop", "/"));
        slow.join().unwrap().status(200);
        stop.join().unwrap();
        late.join().unwrap().status(200);
    });
    assert_eq!(fixture.told("shop", "START").len(), 2);
}
