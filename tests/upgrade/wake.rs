//! Crowds: a thousand first requests, and two hundred sleepers at once.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::support::{Combination, Fixture, now};

/// Small stacks are enough for clients that only wait.
const STACK: usize = 128 * 1024;

pub fn a_thousand_first_requests_make_one_start(combination: Combination) {
    const CLIENTS: usize = 1000;
    // One address may have three quarters of the places.
    let Some(fixture) = Fixture::with(combination, |s| (s.idle, s.max_waiting) = ("60s", 1400))
    else {
        return;
    };
    fixture
        .acc(&[
            "create",
            "shop",
            "--model",
            "tester",
            "--set",
            "start_delay=300ms",
            "--asleep",
        ])
        .ok();
    let ready = std::sync::Barrier::new(CLIENTS);
    let began = now();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    std::thread::scope(|scope| {
        let client = |n: usize| {
            let (fixture, ready) = (&fixture, &ready);
            move || {
                ready.wait();
                let body = format!("request {n}");
                let ask = fixture
                    .ask("POST", "shop", "/echo")
                    .header("X-Id", &n.to_string())
                    .body(body.as_str());
                match ask.send(fixture.address()) {
                    Ok(reply) if reply.status == 200 && reply.json()["length"] == body.len() => {
                        "right".to_owned()
                    }
                    Ok(reply) => format!("{} {}", reply.status, reply.text()),
                    Err(e) => e.to_string(),
                }
            }
        };
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                std::thread::Builder::new()
                    .stack_size(STACK)
                    .spawn_scoped(scope, client(n))
                    .unwrap()
            })
            .collect();
        for client in clients {
            *counts.entry(client.join().unwrap()).or_default() += 1;
        }
    });
    eprintln!(
        "{combination:?}: {CLIENTS} first requests in {:?}",
        began.elapsed()
    );
    assert_eq!(counts, BTreeMap::from([("right".to_owned(), CLIENTS)]));
    assert_eq!(fixture.told("shop", "START").len(), 1);
    assert_eq!(
        fixture
            .told("shop", "REQ")
            .iter()
            .filter(|l| l.contains("POST"))
            .count(),
        CLIENTS,
        "a request was executed twice"
    );
}

pub fn two_hundred_sleepers_are_woken_in_turn(combination: Combination) {
    const SLEEPERS: usize = 200;
    let Some(fixture) = Fixture::with(combination, |s| {
        s.idle = "60s";
        // supervisord reads all sections again for each start of a program that it does not know
        // yet.
        s.wake_timeout = if combination.supervisor == "supervisord" {
            "120s"
        } else {
            "30s"
        };
    }) else {
        return;
    };
    let name = |n: usize| format!("s{n}");
    for n in 0..SLEEPERS {
        fixture
            .acc(&["create", &name(n), "--model", "tester", "--asleep"])
            .ok();
    }
    let began = now();
    let woken = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for n in 0..SLEEPERS {
            let (fixture, woken) = (&fixture, &woken);
            let client = move || {
                let reply = fixture.ask("GET", &name(n), "/").send(fixture.address());
                woken
                    .lock()
                    .unwrap()
                    .push((n, reply.map_or(0, |r| r.status)));
            };
            std::thread::Builder::new()
                .stack_size(STACK)
                .spawn_scoped(scope, client)
                .unwrap();
            // One request after the other, so that there is an order to keep.
            crate::support::wait::pause(std::time::Duration::from_millis(1));
        }
    });
    let woken = woken.into_inner().unwrap();
    eprintln!(
        "{combination:?}: {SLEEPERS} sleepers awake in {:?}",
        began.elapsed()
    );
    assert!(woken.iter().all(|(_, status)| *status == 200), "{woken:?}");
    // First come, first served, by and large: those that wait for a start are started in the order
    // in which their tasks begin to wait, which on a busy host is not quite that of the requests.
    // Newest first would give a mean of 100 places, and no order at all one of 67. What counts is
    // when acc noticed a request: nginx's workers pass them on in an order of their own.
    let mut came: Vec<(u64, String)> = fixture
        .json(&["events", "--lines", "1000"])
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| {
            let noticed = event["phases"]["noticed_at_us"].as_u64()?;
            Some((noticed, event["instance"].as_str()?.to_owned()))
        })
        .collect();
    let mut started: Vec<(u64, String)> = (0..SLEEPERS)
        .map(|n| {
            let starts = fixture.told(&name(n), "START");
            let [start] = &starts[..] else {
                panic!("{starts:?}")
            };
            let at = start.split(' ').nth(1).unwrap().parse().unwrap();
            (at, name(n))
        })
        .collect();
    came.sort();
    started.sort();
    assert_eq!((came.len(), started.len()), (SLEEPERS, SLEEPERS));
    let place_of = |name: &str| came.iter().position(|(_, other)| other == name).unwrap();
    let out_of_turn: usize = started
        .iter()
        .enumerate()
        .map(|(place, (_, name))| place.abs_diff(place_of(name)))
        .sum();
    eprintln!("on average {} places out of turn", out_of_turn / SLEEPERS);
    assert!(
        out_of_turn / SLEEPERS < 55,
        "{} places out of turn on average: {came:?}, {started:?}",
        out_of_turn / SLEEPERS
    );
}
