//! Streams that are open when their instance is stopped: they end in order, and the stop does not
//! wait for them.

use std::io::Read;
use std::time::Duration;

use crate::support::{Combination, Fixture, holds, wait_until};

/// `stop.drain` is ten minutes here: a restart that waited for a stream would not end within the
/// time of this test.
pub fn a_restart_ends_them_in_order(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| (s.idle, s.drain) = ("60s", "10min")) else {
        return;
    };
    fixture.create("shop", "tester");
    let mut sockets: Vec<_> = (0..20).map(|_| fixture.web_socket("shop")).collect();
    for socket in &mut sockets {
        assert_eq!(socket.echo("a").unwrap(), "a");
    }
    let ask = fixture
        .ask("GET", "shop", "/stream?kind=sse&seconds=300")
        .header("Accept", "text/event-stream");
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let mut open = ask.open(fixture.address()).unwrap();
            assert_eq!(
                (open.reply.status, open.reply.header("content-type")),
                (200, Some("text/event-stream"))
            );
            std::thread::spawn(move || {
                let mut text = String::new();
                // An error means that a body was cut.
                open.body.read_to_string(&mut text).map(|_| text)
            })
        })
        .collect();
    let before = fixture.pid("shop");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while fixture.pid("shop") == before {
                fixture.get("shop", "/").status(200);
            }
        });
        fixture.acc(&["restart", "shop"]).ok();
    });
    for socket in sockets {
        assert_eq!(socket.goodbye(), Some(1001));
    }
    for reader in readers {
        let text = reader.join().unwrap().unwrap();
        assert!(
            text.ends_with("\n\n") && text.starts_with("data: "),
            "{text:?}"
        );
    }
}

/// A stop waits for requests that end by themselves, however many streams are open beside them.
pub fn a_stop_waits_for_what_ends_by_itself(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| (s.idle, s.drain) = ("60s", "10min")) else {
        return;
    };
    fixture.create("shop", "tester");
    let mut socket = fixture.web_socket("shop");
    assert_eq!(socket.echo("a").unwrap(), "a");
    let asked = fixture.told("shop", "REQ").len();
    let slow = fixture.ask("GET", "shop", "/slow?ms=4000");
    std::thread::scope(|scope| {
        let answered = scope.spawn(|| slow.send(fixture.address()).unwrap());
        wait_until("it is asked", Duration::from_secs(20), || {
            holds(fixture.told("shop", "REQ").len() > asked, "not asked")
        });
        fixture.acc(&["stop", "shop"]).ok();
        assert_eq!(answered.join().unwrap().status, 200);
    });
    assert_eq!(socket.goodbye(), Some(1001));
    assert_eq!(fixture.phase("shop"), "asleep");
}
