//! Upgrades: another program in place, `acc boot`, and everything goes on.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::load::Load;
use crate::support::bed::{ACC, SOON, Settings};
use crate::support::wait::holds;
use crate::support::{Bed, Combination, need, processes, wait_until};

/// A booted bed whose program is a file of its own, so that it can be replaced.
pub fn bed(combination: Combination, change: impl FnOnce(&mut Settings)) -> Option<Bed> {
    let mut bed = Bed::unbooted(combination, change)?;
    bed.acc = bed.dir.join("acc");
    put_in_place(&bed, ACC.as_ref());
    bed.acc(&["boot"]).ok();
    Some(bed)
}

/// Puts a copy of `program` in place of the bed's, as set-up does: beside, then renamed.
pub fn put_in_place(bed: &Bed, program: &std::path::Path) {
    let beside = bed.dir.join("acc.new");
    fs::copy(program, &beside).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&beside, &bed.acc).unwrap();
}

/// The processes that serve, the one that has the say and those that finish what they carry.
pub fn workers(bed: &Bed) -> Vec<i32> {
    let serves = |p: &processes::Seen| p.command.contains(" worker --sockets ");
    let all: Vec<_> = processes::of(&bed.dir).into_iter().filter(serves).collect();
    // A child that has yet to become the program of an instance looks like its parent.
    all.iter()
        .filter(|p| !all.iter().any(|parent| parent.pid == p.parent))
        .map(|p| p.pid)
        .collect()
}

pub fn an_upgrade_under_load_loses_nothing(combination: Combination) {
    let Some(bed) = bed(combination, |s| s.idle = "60s") else {
        return;
    };
    bed.create("zebra", "tester");
    bed.create("okapi", "tester-tcp");
    bed.acc(&[
        "create",
        "tapir",
        "--model",
        "tester",
        "--set",
        "start_delay=1500ms",
        "--asleep",
    ])
    .ok();
    bed.acc(&["create", "gnu", "--model", "tester", "--asleep"])
        .ok();
    let (zebra, okapi, master) = (bed.pid("zebra"), bed.pid("okapi"), bed.wait_server(None));
    // One that goes past acc where nginx is the edge, and one that goes through it everywhere,
    // because it woke the instance.
    let (mut socket, mut woke) = (bed.web_socket("zebra"), bed.web_socket("gnu"));
    let load = Load::start(&bed, &["zebra", "okapi"]);
    load.wait_for(50);
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let mut open = bed
                .ask("GET", "zebra", "/stream?seconds=6")
                .open(bed.address())
                .unwrap();
            let mut text = String::new();
            open.body
                .read_to_string(&mut text)
                .map(|_| text.lines().count())
        });
        let slow = scope.spawn(|| bed.get("okapi", "/slow?ms=2500"));
        // Held while the server changes.
        let held: Vec<_> = (0..4)
            .map(|n| {
                let bed = &bed;
                scope.spawn(move || {
                    bed.send(
                        &bed.ask(if n % 2 == 0 { "GET" } else { "POST" }, "tapir", "/echo")
                            .body("held"),
                    )
                })
            })
            .collect();
        bed.wait_phase("tapir", "waking");
        for n in 0..3 {
            let before = workers(&bed);
            put_in_place(&bed, ACC.as_ref());
            bed.acc(&["boot"]).ok().says(&["upgraded the server"]);
            assert!(
                workers(&bed).iter().any(|pid| !before.contains(pid)),
                "upgrade {n}: {before:?}"
            );
            assert_eq!(
                bed.wait_server(None),
                master,
                "the process that is watched has changed"
            );
            assert_eq!(socket.echo("still").unwrap(), "still");
            assert_eq!(woke.echo("still").unwrap(), "still");
            load.wait_for(100);
        }
        bed.acc(&["boot"]).ok().says(&["already"]);
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
    count.assert_nothing_lost(&bed, &["zebra", "okapi"]);
    assert_eq!((bed.pid("zebra"), bed.pid("okapi")), (zebra, okapi));
    for name in ["zebra", "okapi", "tapir", "gnu"] {
        assert_eq!(bed.told(name, "START").len(), 1, "{name} was started twice");
    }
    // What the earlier ones carry is use to the one that has the say; when it ends, so do they.
    let dry = bed.acc(&["monitor", "--dry-run"]).ok().out;
    assert!(
        dry.lines()
            .any(|l| l.starts_with("gnu ") && l.contains(" keep ")),
        "{dry}"
    );
    socket.close();
    woke.close();
    wait_until("the earlier workers have ended", SOON, || {
        holds(workers(&bed).len() == 1, format!("{:?}", workers(&bed)))
    });
    bed.acc(&["stop", "zebra", "okapi", "gnu"]).ok();
    bed.get("zebra", "/").status(200);
}

pub fn a_program_that_does_not_come_up_changes_nothing(combination: Combination) {
    let Some(bed) = bed(combination, |s| s.idle = "60s") else {
        return;
    };
    bed.create("zebra", "tester");
    let (master, before) = (bed.wait_server(None), workers(&bed));
    let load = Load::start(&bed, &["zebra"]);
    load.wait_for(20);
    let broken = bed.dir.join("broken");
    for text in ["#!/bin/sh\nexit 7\n", "not a program"] {
        fs::write(&broken, text).unwrap();
        put_in_place(&bed, &broken);
        processes::signal(master, nix::sys::signal::Signal::SIGUSR2);
        wait_until("it says so", SOON, || {
            let log = fs::read_to_string(bed.home().join("log/server.log")).unwrap_or_default();
            holds(log.contains("not upgraded, everything stays as it is"), log)
        });
        load.wait_for(50);
        assert_eq!(
            (bed.wait_server(None), workers(&bed)),
            (master, before.clone())
        );
    }
    put_in_place(&bed, ACC.as_ref());
    load.stop().assert_nothing_lost(&bed, &["zebra"]);
    bed.acc(&["boot"]).ok().says(&["upgraded the server"]);
}

/// The one that serves makes way only for one that has its turn: until then nothing changes.
pub fn an_upgrade_that_has_to_wait_for_its_turn_changes_nothing(combination: Combination) {
    let Some(bed) = bed(combination, |s| s.idle = "60s") else {
        return;
    };
    bed.create("zebra", "tester");
    let (master, before) = (bed.wait_server(None), workers(&bed));
    let queue = fs::OpenOptions::new()
        .write(true)
        .open(bed.run().join("owner.next"))
        .unwrap();
    let queue = nix::fcntl::Flock::lock(queue, nix::fcntl::FlockArg::LockExclusiveNonblock)
        .map_err(|(_, e)| e)
        .unwrap();
    put_in_place(&bed, ACC.as_ref());
    processes::signal(master, nix::sys::signal::Signal::SIGUSR2);
    wait_until("another worker is started", SOON, || {
        holds(
            workers(&bed).len() == before.len() + 1,
            format!("{:?}", workers(&bed)),
        )
    });
    for _ in 0..5 {
        bed.acc(&["stop", "zebra"]).ok();
        bed.get("zebra", "/").status(200);
    }
    let now = workers(&bed);
    assert!(
        before.iter().all(|pid| now.contains(pid)),
        "{before:?}, {now:?}"
    );
    drop(queue);
    wait_until("the other one took over", SOON, || {
        let now = workers(&bed);
        holds(
            now.len() == 1 && !before.contains(&now[0]),
            format!("{before:?}, {now:?}"),
        )
    });
    bed.acc(&["stop", "zebra"]).ok();
    bed.get("zebra", "/").status(200);
}

/// What is held goes on by a socket of acc's own, although acc speaks to sockets of the instances'
/// user only.
pub fn requests_held_for_another_users_instance_go_on(combination: Combination) {
    if !need::root("to run instances as another user") {
        return;
    }
    let Some(bed) = bed(combination, |s| {
        (s.top, s.idle) = ("user = \"nobody\"".into(), "60s")
    }) else {
        return;
    };
    bed.acc(&[
        "create",
        "tapir",
        "--model",
        "tester",
        "--set",
        "start_delay=1500ms",
        "--asleep",
    ])
    .ok();
    std::thread::scope(|scope| {
        let held = scope.spawn(|| bed.send(&bed.ask("POST", "tapir", "/echo").body("held")));
        bed.wait_phase("tapir", "waking");
        put_in_place(&bed, ACC.as_ref());
        bed.acc(&["boot"]).ok().says(&["upgraded the server"]);
        held.join().unwrap().status(200);
    });
    assert_eq!(bed.told("tapir", "START").len(), 1);
}

pub fn a_command_at_work_is_finished_before_the_upgrade(combination: Combination) {
    let Some(bed) = bed(combination, |s| s.idle = "60s") else {
        return;
    };
    let old = workers(&bed);
    std::thread::scope(|scope| {
        let create = scope.spawn(|| {
            bed.acc(&[
                "create",
                "zebra",
                "--model",
                "tester",
                "--set",
                "start_delay=1500ms",
            ])
        });
        wait_until("it is being made", SOON, || {
            holds(!bed.told("zebra", "START").is_empty(), "no start yet")
        });
        put_in_place(&bed, ACC.as_ref());
        bed.acc(&["boot"]).ok().says(&["upgraded the server"]);
        create.join().unwrap().ok();
    });
    assert!(!workers(&bed).iter().any(|pid| old.contains(pid)) || workers(&bed).len() > 1);
    assert_eq!(bed.phase("zebra"), "awake");
    assert_eq!(bed.told("zebra", "START").len(), 1);
    let reply = bed.get("zebra", "/");
    assert!(reply.status(200).text().contains("zebra"));
    // Measured once more with nothing under way: an upgrade is quick.
    put_in_place(&bed, ACC.as_ref());
    let took = bed.acc(&["boot"]).ok().took;
    assert!(took < Duration::from_secs(10), "{took:?}");
}
