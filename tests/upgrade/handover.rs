//! Upgrades: another program is installed, `acc boot` runs, and everything continues.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::load::Load;
use crate::support::fixture::{ACC, SOON, Settings};
use crate::support::wait::holds;
use crate::support::{Combination, Fixture, need, processes, wait_until};

/// A booted fixture whose program is a file of its own, so that it can be replaced.
pub fn fixture(combination: Combination, change: impl FnOnce(&mut Settings)) -> Option<Fixture> {
    let mut fixture = Fixture::unbooted(combination, change)?;
    fixture.acc = fixture.dir.join("acc");
    put_in_place(&fixture, ACC.as_ref());
    fixture.acc(&["boot"]).ok();
    Some(fixture)
}

/// Installs a copy of `program` in place of the fixture's, as `setup.sh` does: to a new file that
/// is then renamed.
pub fn put_in_place(fixture: &Fixture, program: &std::path::Path) {
    let beside = fixture.dir.join("acc.new");
    fs::copy(program, &beside).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&beside, &fixture.acc).unwrap();
}

/// The worker processes: the one in charge, and older ones that finish their requests.
pub fn workers(fixture: &Fixture) -> Vec<i32> {
    let serves = |p: &processes::Seen| p.command.contains(" worker --sockets ");
    let all: Vec<_> = processes::of(&fixture.dir)
        .into_iter()
        .filter(serves)
        .collect();
    // A forked child that has not yet become the program of an instance looks like its parent.
    all.iter()
        .filter(|p| !all.iter().any(|parent| parent.pid == p.parent))
        .map(|p| p.pid)
        .collect()
}

pub fn an_upgrade_under_load_loses_nothing(combination: Combination) {
    let Some(fixture) = fixture(combination, |s| s.idle = "60s") else {
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
    let (shop, blog, master) = (
        fixture.pid("shop"),
        fixture.pid("blog"),
        fixture.wait_server(None),
    );
    // One request that does not pass through acc when nginx is the edge, and one that always does,
    // because it woke the instance.
    let (mut socket, mut woke) = (fixture.web_socket("shop"), fixture.web_socket("docs"));
    let load = Load::start(&fixture, &["shop", "blog"]);
    load.wait_for(50);
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let mut open = fixture
                .ask("GET", "shop", "/stream?seconds=6")
                .open(fixture.address())
                .unwrap();
            let mut text = String::new();
            open.body
                .read_to_string(&mut text)
                .map(|_| text.lines().count())
        });
        let slow = scope.spawn(|| fixture.get("blog", "/slow?ms=2500"));
        // Held while the server is replaced.
        let held: Vec<_> = (0..4)
            .map(|n| {
                let fixture = &fixture;
                scope.spawn(move || {
                    fixture.send(
                        &fixture
                            .ask(if n % 2 == 0 { "GET" } else { "POST" }, "wiki", "/echo")
                            .body("held"),
                    )
                })
            })
            .collect();
        fixture.wait_phase("wiki", "waking");
        for n in 0..3 {
            let before = workers(&fixture);
            put_in_place(&fixture, ACC.as_ref());
            fixture.acc(&["boot"]).ok().says(&["upgraded the server"]);
            assert!(
                workers(&fixture).iter().any(|pid| !before.contains(pid)),
                "upgrade {n}: {before:?}"
            );
            assert_eq!(
                fixture.wait_server(None),
                master,
                "the process that is watched has changed"
            );
            assert_eq!(socket.echo("still").unwrap(), "still");
            assert_eq!(woke.echo("still").unwrap(), "still");
            load.wait_for(100);
        }
        fixture.acc(&["boot"]).ok().says(&["already"]);
        for held in held {
            held.join().unwrap().status(200);
        }
        slow.join().unwrap().status(200);
        assert_eq!(stream.join().unwrap().unwrap(), 60, "a stream was cut");
    });
    assert_eq!(woke.echo("end").unwrap(), "end");
    let count = load.stop();
    eprintln!(
        "{combination:?}: 3 upgrades, {} answered, {} lost, longest {:?}",
        count.answered,
        count.lost.len(),
        count.longest
    );
    count.assert_nothing_lost(&fixture, &["shop", "blog"]);
    assert_eq!((fixture.pid("shop"), fixture.pid("blog")), (shop, blog));
    for name in ["shop", "blog", "wiki", "docs"] {
        assert_eq!(
            fixture.told(name, "START").len(),
            1,
            "{name} was started twice"
        );
    }
    // Requests of older workers count as use for the one in charge; when it ends, the older ones
    // end too.
    let dry = fixture.acc(&["monitor", "--dry-run"]).ok().out;
    assert!(
        dry.lines()
            .any(|l| l.starts_with("docs ") && l.contains(" keep ")),
        "{dry}"
    );
    socket.close();
    woke.close();
    wait_until("the earlier workers have ended", SOON, || {
        holds(
            workers(&fixture).len() == 1,
            format!("{:?}", workers(&fixture)),
        )
    });
    fixture.acc(&["stop", "shop", "blog", "docs"]).ok();
    fixture.get("shop", "/").status(200);
}

pub fn a_program_that_does_not_come_up_changes_nothing(combination: Combination) {
    let Some(fixture) = fixture(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let (master, before) = (fixture.wait_server(None), workers(&fixture));
    let load = Load::start(&fixture, &["shop"]);
    load.wait_for(20);
    let broken = fixture.dir.join("broken");
    for text in ["#!/bin/sh\nexit 7\n", "not a program"] {
        fs::write(&broken, text).unwrap();
        put_in_place(&fixture, &broken);
        processes::signal(master, nix::sys::signal::Signal::SIGUSR2);
        wait_until("it says so", SOON, || {
            let log = fs::read_to_string(fixture.home().join("log/server.log")).unwrap_or_default();
            holds(log.contains("not upgraded, everything stays as it is"), log)
        });
        load.wait_for(50);
        assert_eq!(
            (fixture.wait_server(None), workers(&fixture)),
            (master, before.clone())
        );
    }
    put_in_place(&fixture, ACC.as_ref());
    load.stop().assert_nothing_lost(&fixture, &["shop"]);
    fixture.acc(&["boot"]).ok().says(&["upgraded the server"]);
}

/// The worker in charge is replaced only by one whose turn it is: until then nothing changes.
pub fn an_upgrade_that_has_to_wait_for_its_turn_changes_nothing(combination: Combination) {
    let Some(fixture) = fixture(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let (master, before) = (fixture.wait_server(None), workers(&fixture));
    let queue = fs::OpenOptions::new()
        .write(true)
        .open(fixture.run().join("owner.next"))
        .unwrap();
    let queue = nix::fcntl::Flock::lock(queue, nix::fcntl::FlockArg::LockExclusiveNonblock)
        .map_err(|(_, e)| e)
        .unwrap();
    put_in_place(&fixture, ACC.as_ref());
    processes::signal(master, nix::sys::signal::Signal::SIGUSR2);
    wait_until("another worker is started", SOON, || {
        holds(
            workers(&fixture).len() == before.len() + 1,
            format!("{:?}", workers(&fixture)),
        )
    });
    for _ in 0..5 {
        fixture.acc(&["stop", "shop"]).ok();
        fixture.get("shop", "/").status(200);
    }
    let now = workers(&fixture);
    assert!(
        before.iter().all(|pid| now.contains(pid)),
        "{before:?}, {now:?}"
    );
    drop(queue);
    wait_until("the other one took over", SOON, || {
        let now = workers(&fixture);
        holds(
            now.len() == 1 && !before.contains(&now[0]),
            format!("{before:?}, {now:?}"),
        )
    });
    fixture.acc(&["stop", "shop"]).ok();
    fixture.get("shop", "/").status(200);
}

/// A held request is passed on through a socket of acc's own, although acc otherwise connects only
/// to sockets of the instances' user.
pub fn requests_held_for_another_users_instance_go_on(combination: Combination) {
    if !need::root("to run instances as another user") {
        return;
    }
    let Some(fixture) = fixture(combination, |s| {
        (s.top, s.idle) = ("user = \"nobody\"".into(), "60s")
    }) else {
        return;
    };
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
    std::thread::scope(|scope| {
        let held = scope.spawn(|| fixture.send(&fixture.ask("POST", "wiki", "/echo").body("held")));
        fixture.wait_phase("wiki", "waking");
        put_in_place(&fixture, ACC.as_ref());
        fixture.acc(&["boot"]).ok().says(&["upgraded the server"]);
        held.join().unwrap().status(200);
    });
    assert_eq!(fixture.told("wiki", "START").len(), 1);
}

pub fn a_command_at_work_is_finished_before_the_upgrade(combination: Combination) {
    let Some(fixture) = fixture(combination, |s| s.idle = "60s") else {
        return;
    };
    let old = workers(&fixture);
    std::thread::scope(|scope| {
        let create = scope.spawn(|| {
            fixture.acc(&[
                "create",
                "shop",
                "--model",
                "tester",
                "--set",
                "start_delay=1500ms",
            ])
        });
        wait_until("it is being made", SOON, || {
            holds(!fixture.told("shop", "START").is_empty(), "no start yet")
        });
        put_in_place(&fixture, ACC.as_ref());
        fixture.acc(&["boot"]).ok().says(&["upgraded the server"]);
        create.join().unwrap().ok();
    });
    assert!(!workers(&fixture).iter().any(|pid| old.contains(pid)) || workers(&fixture).len() > 1);
    assert_eq!(fixture.phase("shop"), "awake");
    assert_eq!(fixture.told("shop", "START").len(), 1);
    let reply = fixture.get("shop", "/");
    assert!(reply.status(200).text().contains("shop"));
    // Measured once more with no request in progress: an upgrade is quick.
    put_in_place(&fixture, ACC.as_ref());
    let took = fixture.acc(&["boot"]).ok().took;
    assert!(took < Duration::from_secs(10), "{took:?}");
}
