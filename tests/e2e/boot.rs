//! Boot, halt, and everything that can happen between the two.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::bed::SOON;
use crate::support::wait::holds;
use crate::support::{Bed, Combination, Mounted, need, processes, wait_until};

pub fn halt_and_boot_bring_back_what_is_wanted(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.idle = "60s") else {
        return;
    };
    bed.create("zebra", "tester");
    bed.create("okapi", "tester-tcp");
    bed.acc(&["pin", "okapi"]).ok();
    bed.acc(&[
        "create",
        "tapir",
        "--model",
        "tester",
        "--desired",
        "down",
        "--asleep",
    ])
    .ok();
    bed.acc(&["halt"]).ok();
    bed.assert_nothing_runs();
    // Reading works with everything down, and nobody answers on the port.
    let phases = |bed: &Bed| ["zebra", "okapi", "tapir"].map(|n| bed.phase(n));
    assert_eq!(phases(&bed), ["asleep", "asleep", "asleep"]);
    assert_eq!(bed.info("okapi")["desired"], "up");
    assert!(bed.ask("GET", "zebra", "/").send(bed.address()).is_err());
    for name in ["zebra", "okapi"] {
        assert_eq!(
            bed.told(name, "EXIT").len(),
            1,
            "{name} was not ended in order"
        );
    }
    // After a reboot the run folder is empty.
    std::fs::remove_dir_all(bed.run()).unwrap();
    bed.acc(&["boot"]).ok();
    bed.wait_phase("okapi", "awake");
    assert_eq!(phases(&bed), ["asleep", "awake", "asleep"]);
    bed.get("zebra", "/").status(200);
    bed.get("okapi", "/").status(200);
    bed.get("tapir", "/").status(503);
}

pub fn boot_twice_and_halt_twice(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.idle = "60s") else {
        return;
    };
    bed.create("zebra", "tester");
    let (server, zebra) = (bed.wait_server(None), bed.pid("zebra"));
    bed.acc(&["boot"]).ok().says(&["already"]);
    assert_eq!((bed.wait_server(None), bed.pid("zebra")), (server, zebra));
    bed.get("zebra", "/").status(200);
    bed.acc(&["halt"]).ok();
    bed.acc(&["halt"]).ok();
    bed.assert_nothing_runs();
    // With everything down the commands still work: the same code runs in the command itself.
    bed.acc(&["create", "okapi", "--model", "tester", "--asleep"])
        .ok();
    bed.acc(&["disable", "okapi"]).ok();
    bed.acc(&["enable", "okapi"]).ok();
    bed.acc(&["boot"]).ok();
    bed.get("okapi", "/").status(200);
}

pub fn everything_killed_at_once_boots_again(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.idle = "60s") else {
        return;
    };
    bed.create("zebra", "tester");
    bed.create("okapi", "tester-tcp");
    bed.acc(&["pin", "okapi"]).ok();
    processes::cut_power(&bed.dir);
    bed.acc(&["boot"]).ok();
    bed.wait_phase("okapi", "awake");
    // The row said awake and nothing ran: it counts as a death, with the pause after a first one,
    // and then it is woken.
    wait_until(
        "the one that died with everything answers again",
        SOON,
        || {
            let reply = bed.get("zebra", "/");
            holds(reply.status == 200, reply.text())
        },
    );
    bed.get("okapi", "/").status(200);
    assert_eq!(bed.phase("zebra"), "awake");
    assert!(processes::alive(bed.pid("zebra")));
}

/// nginx or supervisord alone are killed: `acc boot` repairs, awake instances go on.
#[test]
fn parts_killed_one_by_one_are_repaired() {
    let Some(bed) = Bed::with(Combination::REAL, |s| s.idle = "60s") else {
        return;
    };
    bed.create("zebra", "tester");
    let zebra = bed.pid("zebra");
    let supervisord = processes::find(&bed.dir, &["supervisord"]).expect("supervisord runs");
    processes::signal(supervisord.pid, Signal::SIGKILL);
    wait_until("supervisord is gone", SOON, || {
        holds(!processes::alive(supervisord.pid), supervisord.pid)
    });
    // It could not be asked: never "there is no such process".
    assert!(processes::alive(zebra));
    bed.acc(&["boot"]).ok();
    bed.get("zebra", "/").status(200);
    assert_eq!(bed.pid("zebra"), zebra, "an orphan was not found again");
    assert_eq!(
        bed.told("zebra", "START").len(),
        1,
        "a second copy was started beside the first"
    );
    bed.acc(&["stop", "zebra"]).ok();
    assert!(!processes::alive(zebra));
    bed.get("zebra", "/").status(200);

    let masters = |bed: &Bed| {
        processes::of(&bed.dir)
            .into_iter()
            .filter(|p| p.command.contains("nginx: master") || p.command.contains("sbin/nginx"))
            .collect::<Vec<_>>()
    };
    let master = masters(&bed).first().expect("nginx runs").pid;
    processes::signal(master, Signal::SIGKILL);
    // The workers of a killed master go on serving and hold the port: they must not keep a new
    // nginx away for ever.
    bed.acc(&["boot"]).ok();
    wait_until("nginx serves again", SOON, || {
        match bed.ask("GET", "zebra", "/").send(bed.address()) {
            Ok(reply) => holds(
                reply.status == 200 && !masters(&bed).is_empty() && masters(&bed)[0].pid != master,
                reply.status,
            ),
            Err(e) => Err(e.to_string()),
        }
    });
}

/// What a crash has left behind is tidied without a word that would look like trouble.
pub fn a_halt_after_a_crash_says_what_it_did_and_nothing_else(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.idle = "60s") else {
        return;
    };
    bed.create("zebra", "tester");
    let mut killed: Vec<i32> = processes::of(&bed.dir)
        .into_iter()
        .filter(|p| p.command.contains("nginx: master"))
        .map(|p| p.pid)
        .collect();
    killed.extend(processes::find(&bed.dir, &["supervisord"]).map(|p| p.pid));
    // Without its supervisor nobody starts the server again.
    killed
        .iter()
        .for_each(|pid| processes::signal(*pid, Signal::SIGKILL));
    bed.kill_server();
    let halted = bed.acc(&["halt"]).ok();
    assert_eq!(
        (halted.out.as_str(), halted.err.as_str()),
        ("", "halted: 1 instance put to sleep\n")
    );
    bed.assert_nothing_runs();
    assert_eq!(
        bed.told("zebra", "EXIT").len(),
        1,
        "it was not ended in order"
    );
    // What outlived a supervisord that was brought back since.
    bed.acc(&["boot"]).ok();
    if let Some(supervisord) = processes::find(&bed.dir, &["supervisord"]) {
        processes::signal(supervisord.pid, Signal::SIGKILL);
        bed.acc(&["boot"]).ok();
    }
    assert_eq!(
        bed.acc(&["halt"]).ok().err,
        "halted: no instance was awake\n"
    );
}

/// The processes that serve.
fn workers(bed: &Bed) -> Vec<i32> {
    let all = processes::of(&bed.dir);
    let serves = |p: &&processes::Seen| p.command.contains(" worker --sockets ");
    all.iter().filter(serves).map(|p| p.pid).collect()
}

/// Kills the master; under supervisord waits for the next one to have taken over.
fn kill_master(bed: &Bed) -> i32 {
    let before = bed.master();
    processes::signal(before, Signal::SIGKILL);
    wait_until("the master is dead", SOON, || {
        holds(!processes::alive(before), before)
    });
    if bed.combination.supervisor == "supervisord" {
        taken_over(bed, before);
    }
    before
}

fn taken_over(bed: &Bed, before: i32) {
    wait_until("another master has taken over", SOON, || {
        let now = bed.master();
        holds(now != before && processes::alive(now), now)
    });
}

pub fn a_worker_without_its_master_serves_on_until_the_next_one(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.idle = "60s") else {
        return;
    };
    bed.create("zebra", "tester");
    let serving = workers(&bed);
    let alone = "its master has died";
    assert!(!bed.acc(&["doctor"]).out.contains(alone));
    let first = kill_master(&bed);
    bed.get("zebra", "/").status(200);
    bed.acc(&["restart", "zebra"]).ok();
    if combination.supervisor == "builtin" {
        // Nothing but acc starts the server here, and no pass is made by itself.
        assert!(bed.acc(&["doctor"]).out.contains(alone));
        assert_eq!((bed.master(), workers(&bed)), (first, serving.clone()));
        bed.monitor()
            .says(&["server", "it was not running; started it"]);
        taken_over(&bed, first);
    }
    wait_until("doctor finds nothing wrong with it", SOON, || {
        let found = bed.acc(&["doctor"]).out;
        holds(!found.contains(alone), found)
    });
    assert_eq!(workers(&bed), serving, "the worker was replaced");
    // Several at once: one takes over, the others wait.
    let before = kill_master(&bed);
    let mut by_hand = [(); 2].map(|()| bed.command(&["server"]).spawn().unwrap());
    taken_over(&bed, before);
    bed.get("zebra", "/").status(200);
    assert_eq!(workers(&bed), serving, "there is another worker");
    bed.acc(&["halt"]).ok();
    for server in &mut by_hand {
        server.wait().unwrap();
    }
    bed.assert_nothing_runs();
    bed.acc(&["boot"]).ok();
    bed.get("zebra", "/").status(200);
    assert_eq!(bed.told("zebra", "START").len(), 3);
}

pub fn a_halt_ends_a_worker_without_its_master(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.idle = "60s") else {
        return;
    };
    bed.create("zebra", "tester");
    kill_master(&bed);
    // As if nothing knew of the next one.
    let record = bed.run().join("pid/service_server.pid");
    let _ = std::fs::remove_file(record);
    bed.acc(&["halt"]).ok();
    bed.assert_nothing_runs();
    assert_eq!(
        bed.told("zebra", "EXIT").len(),
        1,
        "it was not ended in order"
    );
    bed.acc(&["boot"]).ok();
    bed.get("zebra", "/").status(200);
}

/// A file that was being written when its writer was killed, in every folder of acc's own: new ones
/// must be thought of.
pub fn what_dead_writers_left_goes_at_a_boot(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.idle = "60s") else {
        return;
    };
    bed.create("zebra", "tester");
    bed.get("zebra", "/").status(200);
    bed.acc(&["halt"]).ok();
    // Of these only what is the instances', the operator's or nginx's own is left out, and what a
    // pass empties.
    let others = ["instances", "models", "log", "sock", "tmp", "trash"];
    let mut folders = vec![bed.home(), bed.run()];
    let mut at = 0;
    while let Some(dir) = folders.get(at) {
        let below = std::fs::read_dir(dir)
            .unwrap()
            .flatten()
            .filter(|e| e.file_type().unwrap().is_dir());
        let below: Vec<_> = below
            .filter(|e| !others.contains(&e.file_name().to_str().unwrap()))
            .map(|e| e.path())
            .collect();
        folders.extend(below);
        at += 1;
    }
    let left: Vec<_> = folders
        .iter()
        .map(|dir| dir.join("zebra.conf.new-2147483646"))
        .collect();
    left.iter()
        .for_each(|file| std::fs::write(file, "half").unwrap());
    bed.acc(&["boot"]).ok();
    let still: Vec<_> = left.iter().filter(|file| file.exists()).collect();
    assert!(
        still.is_empty() && folders.len() > 2,
        "{still:#?} of {folders:#?}"
    );
}

/// Where no program may be run from acc's own folder, acc itself stands in for the launcher.
pub fn instances_start_from_a_file_system_without_programs(combination: Combination) {
    if combination.supervisor != "supervisord" || !need::root("to mount a tmpfs") {
        return;
    }
    let Some(bed) = Bed::unbooted(combination, |_| {}) else {
        return;
    };
    let dir = bed.home().join("supervisor");
    fs::create_dir_all(&dir).unwrap();
    let mounted = Mounted::tmpfs(&dir, "noexec,mode=0700");
    bed.acc(&["boot"]).ok();
    bed.create("zebra", "tester");
    bed.get("zebra", "/").status(200);
    let section = fs::read_to_string(dir.join("loaded/zebra.conf")).unwrap();
    assert!(section.contains("/acc' 'launch' '"), "{section}");
    bed.acc(&["halt"]).ok();
    drop(mounted);
}
