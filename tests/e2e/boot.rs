//! Boot, halt, and everything that can happen between the two.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::fixture::SOON;
use crate::support::wait::holds;
use crate::support::{Combination, Fixture, Mounted, need, processes, wait_until};

pub fn halt_and_boot_bring_back_what_is_wanted(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    fixture.create("blog", "tester-tcp");
    fixture.acc(&["pin", "blog"]).ok();
    fixture
        .acc(&[
            "create",
            "wiki",
            "--model",
            "tester",
            "--desired",
            "down",
            "--asleep",
        ])
        .ok();
    fixture.acc(&["halt"]).ok();
    fixture.assert_nothing_runs();
    // Reading commands work with everything down, and no process listens on the port.
    let phases = |fixture: &Fixture| ["shop", "blog", "wiki"].map(|n| fixture.phase(n));
    assert_eq!(phases(&fixture), ["asleep", "asleep", "asleep"]);
    assert_eq!(fixture.info("blog")["desired"], "up");
    assert!(
        fixture
            .ask("GET", "shop", "/")
            .send(fixture.address())
            .is_err()
    );
    for name in ["shop", "blog"] {
        assert_eq!(
            fixture.told(name, "EXIT").len(),
            1,
            "{name} was not ended in order"
        );
    }
    // After a reboot the run folder is empty.
    std::fs::remove_dir_all(fixture.run()).unwrap();
    fixture.acc(&["boot"]).ok();
    fixture.wait_phase("blog", "awake");
    assert_eq!(phases(&fixture), ["asleep", "awake", "asleep"]);
    fixture.get("shop", "/").status(200);
    fixture.get("blog", "/").status(200);
    fixture.get("wiki", "/").status(503);
}

pub fn boot_twice_and_halt_twice(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let (server, shop) = (fixture.wait_server(None), fixture.pid("shop"));
    fixture.acc(&["boot"]).ok().says(&["already"]);
    assert_eq!(
        (fixture.wait_server(None), fixture.pid("shop")),
        (server, shop)
    );
    fixture.get("shop", "/").status(200);
    fixture.acc(&["halt"]).ok();
    fixture.acc(&["halt"]).ok();
    fixture.assert_nothing_runs();
    // With everything down the commands still work: the same code runs in the command itself.
    fixture
        .acc(&["create", "blog", "--model", "tester", "--asleep"])
        .ok();
    fixture.acc(&["disable", "blog"]).ok();
    fixture.acc(&["enable", "blog"]).ok();
    fixture.acc(&["boot"]).ok();
    fixture.get("blog", "/").status(200);
}

pub fn everything_killed_at_once_boots_again(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    fixture.create("blog", "tester-tcp");
    fixture.acc(&["pin", "blog"]).ok();
    processes::cut_power(&fixture.dir);
    fixture.acc(&["boot"]).ok();
    fixture.wait_phase("blog", "awake");
    // The row said awake and nothing ran: this counts as a crash, with the pause after a first
    // crash, and then the instance is woken.
    wait_until(
        "the one that died with everything answers again",
        SOON,
        || {
            let reply = fixture.get("shop", "/");
            holds(reply.status == 200, reply.text())
        },
    );
    fixture.get("blog", "/").status(200);
    fixture.wait_phase("shop", "awake");
    assert!(processes::alive(fixture.pid("shop")));
}

/// nginx or supervisord alone are killed: `acc boot` repairs, awake instances keep running.
#[test]
fn parts_killed_one_by_one_are_repaired() {
    let Some(fixture) = Fixture::with(Combination::REAL, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let shop = fixture.pid("shop");
    let supervisord = processes::find(&fixture.dir, &["supervisord"]).expect("supervisord runs");
    processes::signal(supervisord.pid, Signal::SIGKILL);
    wait_until("supervisord is gone", SOON, || {
        holds(!processes::alive(supervisord.pid), supervisord.pid)
    });
    // acc could not ask the supervisor: never "there is no such process".
    assert!(processes::alive(shop));
    fixture.acc(&["boot"]).ok();
    fixture.get("shop", "/").status(200);
    assert_eq!(fixture.pid("shop"), shop, "an orphan was not found again");
    assert_eq!(
        fixture.told("shop", "START").len(),
        1,
        "a second copy was started beside the first"
    );
    fixture.acc(&["stop", "shop"]).ok();
    assert!(!processes::alive(shop));
    fixture.get("shop", "/").status(200);

    let masters = |fixture: &Fixture| {
        processes::of(&fixture.dir)
            .into_iter()
            .filter(|p| p.command.contains("nginx: master") || p.command.contains("sbin/nginx"))
            .collect::<Vec<_>>()
    };
    let master = masters(&fixture).first().expect("nginx runs").pid;
    processes::signal(master, Signal::SIGKILL);
    // The workers of a killed master continue to serve and hold the port: they must not block a new
    // nginx for ever.
    fixture.acc(&["boot"]).ok();
    wait_until("nginx serves again", SOON, || {
        match fixture.ask("GET", "shop", "/").send(fixture.address()) {
            Ok(reply) => holds(
                reply.status == 200
                    && !masters(&fixture).is_empty()
                    && masters(&fixture)[0].pid != master,
                reply.status,
            ),
            Err(e) => Err(e.to_string()),
        }
    });
}

/// Leftovers of a crash are removed without a message that would look like a problem.
pub fn a_halt_after_a_crash_says_what_it_did_and_nothing_else(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let mut killed: Vec<i32> = processes::of(&fixture.dir)
        .into_iter()
        .filter(|p| p.command.contains("nginx: master"))
        .map(|p| p.pid)
        .collect();
    killed.extend(processes::find(&fixture.dir, &["supervisord"]).map(|p| p.pid));
    // Without its supervisor nothing restarts the server.
    killed
        .iter()
        .for_each(|pid| processes::signal(*pid, Signal::SIGKILL));
    fixture.kill_server();
    let halted = fixture.acc(&["halt"]).ok();
    assert_eq!(
        (halted.out.as_str(), halted.err.as_str()),
        ("", "halted: 1 instance put to sleep\n")
    );
    fixture.assert_nothing_runs();
    assert_eq!(
        fixture.told("shop", "EXIT").len(),
        1,
        "it was not ended in order"
    );
    // Leftovers of a supervisord that has been restarted since.
    fixture.acc(&["boot"]).ok();
    if let Some(supervisord) = processes::find(&fixture.dir, &["supervisord"]) {
        processes::signal(supervisord.pid, Signal::SIGKILL);
        fixture.acc(&["boot"]).ok();
    }
    assert_eq!(
        fixture.acc(&["halt"]).ok().err,
        "halted: no instance was awake\n"
    );
}

/// The worker processes of the server.
fn workers(fixture: &Fixture) -> Vec<i32> {
    let all = processes::of(&fixture.dir);
    let serves = |p: &&processes::Seen| p.command.contains(" worker --sockets ");
    all.iter().filter(serves).map(|p| p.pid).collect()
}

/// Kills the master; under supervisord waits until the next master has taken over.
fn kill_master(fixture: &Fixture) -> i32 {
    let before = fixture.master();
    processes::signal(before, Signal::SIGKILL);
    wait_until("the master is dead", SOON, || {
        holds(!processes::alive(before), before)
    });
    if fixture.combination.supervisor == "supervisord" {
        taken_over(fixture, before);
    }
    before
}

fn taken_over(fixture: &Fixture, before: i32) {
    wait_until("another master has taken over", SOON, || {
        let now = fixture.master();
        holds(now != before && processes::alive(now), now)
    });
}

pub fn a_worker_without_its_master_serves_on_until_the_next_one(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let serving = workers(&fixture);
    let alone = "its master has died";
    assert!(!fixture.acc(&["doctor"]).out.contains(alone));
    let first = kill_master(&fixture);
    fixture.get("shop", "/").status(200);
    fixture.acc(&["restart", "shop"]).ok();
    if combination.supervisor == "builtin" {
        // Nothing but acc starts the server here, and there are no periodic monitor runs.
        assert!(fixture.acc(&["doctor"]).out.contains(alone));
        assert_eq!(
            (fixture.master(), workers(&fixture)),
            (first, serving.clone())
        );
        fixture
            .monitor()
            .says(&["server", "it was not running; started it"]);
        taken_over(&fixture, first);
    }
    wait_until("doctor finds nothing wrong with it", SOON, || {
        let found = fixture.acc(&["doctor"]).out;
        holds(!found.contains(alone), found)
    });
    assert_eq!(workers(&fixture), serving, "the worker was replaced");
    // Several boots at once: one takes over, the others wait.
    let before = kill_master(&fixture);
    let mut by_hand = [(); 2].map(|()| fixture.command(&["server"]).spawn().unwrap());
    taken_over(&fixture, before);
    fixture.get("shop", "/").status(200);
    assert_eq!(workers(&fixture), serving, "there is another worker");
    fixture.acc(&["halt"]).ok();
    for server in &mut by_hand {
        server.wait().unwrap();
    }
    fixture.assert_nothing_runs();
    fixture.acc(&["boot"]).ok();
    fixture.get("shop", "/").status(200);
    assert_eq!(fixture.told("shop", "START").len(), 3);
}

pub fn a_halt_ends_a_worker_without_its_master(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    kill_master(&fixture);
    // As if no record of the next server existed.
    let record = match combination.supervisor {
        "supervisord" => fixture.home().join("supervisor/service_server.pid"),
        _ => fixture.run().join("pid/service_server.pid"),
    };
    let _ = std::fs::remove_file(record);
    fixture.acc(&["halt"]).ok();
    fixture.assert_nothing_runs();
    assert_eq!(
        fixture.told("shop", "EXIT").len(),
        1,
        "it was not ended in order"
    );
    fixture.acc(&["boot"]).ok();
    fixture.get("shop", "/").status(200);
}

/// A temporary file whose writer was killed, in every folder of acc's own. A new folder must be
/// added here.
pub fn what_dead_writers_left_goes_at_a_boot(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    fixture.get("shop", "/").status(200);
    fixture.acc(&["halt"]).ok();
    // Only files of the instances, of the operator and of nginx are left out, and folders that a
    // monitor run empties.
    let others = ["instances", "models", "log", "sock", "tmp", "trash"];
    let mut folders = vec![fixture.home(), fixture.run()];
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
        .map(|dir| dir.join("shop.conf.new-2147483646"))
        .collect();
    left.iter()
        .for_each(|file| std::fs::write(file, "half").unwrap());
    fixture.acc(&["boot"]).ok();
    let still: Vec<_> = left.iter().filter(|file| file.exists()).collect();
    assert!(
        still.is_empty() && folders.len() > 2,
        "{still:#?} of {folders:#?}"
    );
}

/// Where acc's own folder is mounted noexec, acc itself takes the place of the launcher.
pub fn instances_start_from_a_file_system_without_programs(combination: Combination) {
    if combination.supervisor != "supervisord" || !need::root("to mount a tmpfs") {
        return;
    }
    let Some(fixture) = Fixture::unbooted(combination, |_| {}) else {
        return;
    };
    let dir = fixture.home().join("supervisor");
    fs::create_dir_all(&dir).unwrap();
    let mounted = Mounted::tmpfs(&dir, "noexec,mode=0700");
    fixture.acc(&["boot"]).ok();
    fixture.create("shop", "tester");
    fixture.get("shop", "/").status(200);
    let section = fs::read_to_string(dir.join("loaded/shop.conf")).unwrap();
    assert!(section.contains("/acc' 'launch' '"), "{section}");
    fixture.acc(&["halt"]).ok();
    drop(mounted);
}
