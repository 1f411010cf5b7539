//! `kill -9` of the worker: the next worker takes over its sockets. `kill -9` of the master: the
//! worker continues to serve, and the next master takes it over.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;

use super::handover::workers;
use super::load::Load;
use crate::support::fixture::SOON;
use crate::support::wait::holds;
use crate::support::{Combination, Fixture, processes, wait_until};

/// Kills the worker and waits until the next one has answered.
pub fn kill_worker(fixture: &Fixture) {
    let before = workers(fixture);
    for pid in &before {
        processes::signal(*pid, Signal::SIGKILL);
    }
    wait_until("another worker is there", SOON, || {
        let now = workers(fixture);
        holds(
            !now.is_empty() && now.iter().all(|pid| !before.contains(pid)),
            format!("{now:?}"),
        )
    });
    // The new worker answers a reload on the control socket: until then it dies with its master.
    fixture.acc(&["reload"]).ok();
}

pub fn a_killed_worker_is_replaced_and_no_client_is_refused(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    fixture.create("blog", "tester-tcp");
    let (shop, master) = (fixture.pid("shop"), fixture.wait_server(None));
    let load = Load::start(&fixture, &["shop", "blog"]);
    for _ in 0..5 {
        load.wait_for(40);
        kill_worker(&fixture);
    }
    load.wait_for(40);
    let count = load.stop();
    eprintln!(
        "{combination:?}: 5 kills, {} answered, {} broken, longest {:?}",
        count.answered,
        count.lost.len(),
        count.longest
    );
    if combination.edge == "nginx" {
        // Requests to an awake instance do not pass through acc.
        count.assert_nothing_lost(&fixture, &["shop", "blog"]);
    } else {
        // Requests that the worker itself carried were broken, at most one for each client; no
        // connection was refused.
        assert!(count.lost.len() <= 5 * 4, "{:#?}", count.lost);
        assert!(
            count.lost.iter().all(|why| !why.contains("refused")),
            "{:#?}",
            count.lost
        );
    }
    assert_eq!(
        (fixture.pid("shop"), fixture.wait_server(None)),
        (shop, master)
    );
    assert_eq!(fixture.told("shop", "START").len(), 1);
}

/// Kills the master and waits for the next one, which takes over the running worker.
fn kill_master(fixture: &Fixture) {
    let before = fixture.master();
    processes::signal(before, Signal::SIGKILL);
    wait_until("another master is there", SOON, || {
        let now = fixture.master();
        holds(
            now != before && processes::alive(now) && !processes::alive(before),
            format!("{before}, then {now}"),
        )
    });
}

pub fn a_killed_master_costs_nothing(combination: Combination) {
    let Some(fixture) =
        super::handover::fixture(combination, |s| (s.idle, s.check_every) = ("60s", "200ms"))
    else {
        return;
    };
    fixture.create("shop", "tester");
    fixture.create("blog", "tester-tcp");
    fixture
        .acc(&[
            "create",
            "wiki",
            "--model",
            "tester",
            "--set",
            "start_delay=1500ms",
            "--asleep",
        ])
        .ok();
    fixture
        .acc(&["create", "docs", "--model", "tester", "--asleep"])
        .ok();
    let shop = fixture.pid("shop");
    let mut socket = fixture.web_socket("docs");
    let load = Load::start(&fixture, &["shop", "blog"]);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| fixture.send(&fixture.ask("POST", "wiki", "/echo").body("held")));
        fixture.wait_phase("wiki", "waking");
        let worker = workers(&fixture);
        for _ in 0..3 {
            load.wait_for(40);
            kill_master(&fixture);
            assert_eq!(workers(&fixture), worker, "the worker was replaced");
            assert_eq!(socket.echo("still").unwrap(), "still");
        }
        held.join().unwrap().status(200);
    });
    // The master that took it over does what masters do: it upgrades,
    let before = workers(&fixture);
    super::handover::put_in_place(&fixture, crate::support::fixture::ACC.as_ref());
    fixture.acc(&["boot"]).ok().says(&["upgraded the server"]);
    load.wait_for(40);
    assert_eq!(socket.echo("still").unwrap(), "still");
    let count = load.stop();
    eprintln!(
        "{combination:?}: {} answered, longest {:?}",
        count.answered, count.longest
    );
    count.assert_nothing_lost(&fixture, &["shop", "blog"]);
    socket.close();
    wait_until("the worker from before has finished", SOON, || {
        let now = workers(&fixture);
        holds(
            now.len() == 1 && !before.contains(&now[0]),
            format!("{now:?}"),
        )
    });
    // replaces a worker that dies, also one that it has taken over,
    kill_master(&fixture);
    kill_worker(&fixture);
    // upgrades by itself where the program in place is another one by then,
    let before = workers(&fixture);
    super::handover::put_in_place(&fixture, crate::support::fixture::ACC.as_ref());
    kill_master(&fixture);
    wait_until("a worker of the program in place serves", SOON, || {
        let now = workers(&fixture);
        holds(
            now.len() == 1 && !before.contains(&now[0]),
            format!("{now:?}"),
        )
    });
    fixture.get("shop", "/").status(200);
    assert_eq!(
        (fixture.pid("shop"), fixture.told("shop", "START").len()),
        (shop, 1)
    );
    // and ends with a halt.
    fixture.acc(&["halt"]).ok();
    fixture.assert_nothing_runs();
}

pub fn held_requests_outlive_the_worker(combination: Combination) {
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
            "start_delay=1500ms",
            "--asleep",
        ])
        .ok();
    let answers = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|n| {
                let fixture = &fixture;
                scope.spawn(move || {
                    let ask = fixture
                        .ask(if n % 2 == 0 { "GET" } else { "POST" }, "shop", "/echo")
                        .header("X-Id", &n.to_string())
                        .body("held");
                    ask.send(fixture.address())
                        .map_or_else(|e| e.to_string(), |r| r.status.to_string())
                })
            })
            .collect();
        fixture.wait_phase("shop", "waking");
        kill_worker(&fixture);
        // Requests that arrive now wait for the next worker.
        let late = scope.spawn(|| fixture.get("shop", "/").status);
        assert_eq!(late.join().unwrap(), 200);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for client in clients {
            *counts.entry(client.join().unwrap()).or_default() += 1;
        }
        counts
    });
    eprintln!("{combination:?}: {answers:?}");
    if combination.edge == "nginx" {
        // nginx has their bodies and asks the next worker; none of them had been passed on.
        assert_eq!(answers, BTreeMap::from([("200".to_owned(), 20)]));
    } else {
        // Requests that the worker held were broken; those after it are answered by the next
        // worker. No client is refused or gets a wrong answer.
        let broken = |what: &str| {
            what.contains("Connection reset") || what.starts_with("not an HTTP answer: \"\"")
        };
        assert!(
            answers.keys().all(|what| what == "200" || broken(what)),
            "{answers:?}"
        );
    }
    fixture.wait_phase("shop", "awake");
    assert_eq!(
        fixture.told("shop", "START").len(),
        1,
        "it was started twice"
    );
    let posts = fixture
        .told("shop", "REQ")
        .iter()
        .filter(|l| l.contains("POST"))
        .count();
    assert!(posts <= 10, "a POST was executed twice");
}

pub fn a_post_that_was_sent_on_is_never_sent_twice(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture
        .acc(&["create", "shop", "--model", "tester", "--asleep"])
        .ok();
    let seen = |id: &str| {
        fixture
            .told("shop", "REQ")
            .iter()
            .filter(|l| l.ends_with(id))
            .count()
    };
    std::thread::scope(|scope| {
        let ask = |method: &'static str, id: &'static str| {
            let fixture = &fixture;
            scope.spawn(move || {
                fixture
                    .ask(method, "shop", "/slow?ms=1500")
                    .header("X-Id", id)
                    .send(fixture.address())
                    .map(|r| r.status)
            })
        };
        // The requests arrive while the instance sleeps, so acc carries them; a POST may not be
        // sent twice, a GET may.
        let (post, get) = (ask("POST", "the-post"), ask("GET", "the-get"));
        wait_until("the application has them", SOON, || {
            holds(seen("the-post") == 1 && seen("the-get") == 1, "not yet")
        });
        kill_worker(&fixture);
        let (post, get) = (post.join().unwrap(), get.join().unwrap());
        if combination.edge == "nginx" {
            assert_eq!((post.unwrap(), get.unwrap()), (502, 200));
        } else {
            assert!(post.is_err() && get.is_err());
        }
    });
    fixture.get("shop", "/").status(200);
    assert_eq!(seen("the-post"), 1, "a POST was executed twice");
}
