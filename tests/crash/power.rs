//! A power cut: home is copied at random moments while ten clients send commands, and acc is
//! started from each copy with an empty run folder.
//!
//! All writers are stopped while a copy is made: the copy is what a disk holds after a power cut,
//! except for writes that were not synced. Where SQLite may lose such writes they are left out: the
//! shared memory file is not copied. The boot id of the rows is changed, because after a power cut
//! the host has another one.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use rusqlite::Connection;

use super::crowd::{Dice, everything_works, is_wrong, verb};
use super::truth;
use crate::support::wait::{Ending, pause};
use crate::support::{Combination, Fixture, processes, run};

/// How many copies.
const COPIES: usize = 6;
const LONGEST: Duration = Duration::from_secs(60);

fn power_cut(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| {
        (s.idle, s.check_every, s.drain, s.stop_timeout) = ("300ms", "300ms", "2s", "2s")
    }) else {
        return;
    };
    for name in ["shop", "blog", "wiki", "docs"] {
        fixture.create(name, "tester");
    }
    let mut dice = Dice(u64::from(std::process::id()) + 1);
    let copies = while_people_work(&fixture, &mut dice);
    processes::cut_power(&fixture.dir);
    for copy in copies {
        eprintln!("==== from {}", copy.display());
        let _ = std::fs::remove_dir_all(fixture.home());
        let _ = std::fs::remove_dir_all(fixture.run());
        std::fs::rename(&copy, fixture.home()).unwrap();
        another_boot(&fixture);
        fixture.acc(&["boot"]).ok();
        truth::becomes_true(&fixture, || ());
        leftovers(&fixture);
        let doctor = fixture.acc(&["doctor"]);
        assert_eq!(doctor.code, Some(0), "{}{}", doctor.out, doctor.err);
        everything_works(&fixture);
        fixture.acc(&["halt"]).ok();
        fixture.assert_nothing_runs();
    }
    fixture.acc(&["boot"]).ok();
}

/// Copies of home, made while ten clients send random commands.
fn while_people_work(fixture: &Fixture, dice: &mut Dice) -> Vec<std::path::PathBuf> {
    let (over, frozen) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _ending = Ending(&over);
        for n in 0..10 {
            let (over, frozen) = (&over, &frozen);
            let seed = dice.0 * 31 + n + 1;
            scope.spawn(move || {
                let mut dice = Dice(seed);
                while !over.load(Ordering::Relaxed) {
                    if frozen.load(Ordering::Relaxed) {
                        pause(Duration::from_millis(2));
                        continue;
                    }
                    let done = run::run(&mut fixture.command(&verb(&mut dice)), LONGEST);
                    assert!(!is_wrong(&done, false), "{done:?}");
                }
            });
        }
        (0..COPIES)
            .map(|n| {
                pause(Duration::from_millis(
                    300 + u64::try_from(dice.below(900)).unwrap(),
                ));
                frozen.store(true, Ordering::Relaxed);
                let copy = copy_of_home(fixture, n);
                frozen.store(false, Ordering::Relaxed);
                copy
            })
            .collect()
    })
}

/// Stops all processes, copies home, and lets the processes continue.
fn copy_of_home(fixture: &Fixture, n: usize) -> std::path::PathBuf {
    let stopped = processes::stop_all(&fixture.dir);
    let copy = fixture.dir.join(format!("copy{n}"));
    run::run(
        Command::new("cp").arg("-a").arg(fixture.home()).arg(&copy),
        LONGEST,
    )
    .ok();
    let _ = std::fs::remove_file(copy.join("acc.db-shm"));
    stopped
        .iter()
        .for_each(|pid| processes::signal(*pid, Signal::SIGCONT));
    copy
}

/// All rows belong to the boot before the power cut.
fn another_boot(fixture: &Fixture) {
    let connection = Connection::open(fixture.home().join("acc.db")).unwrap();
    let damage: String = connection
        .query_row("PRAGMA integrity_check", [], |r| r.get(0))
        .unwrap();
    assert_eq!(damage, "ok");
    connection
        .execute("UPDATE instances SET boot = 'before the power cut'", [])
        .unwrap();
}

/// Every folder, section and file of an instance belongs to a row.
#[track_caller]
fn leftovers(fixture: &Fixture) {
    let rows = fixture.json(&["list"]);
    let names: Vec<&str> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    for dir in [
        "home/instances",
        "home/supervisor/programs",
        "home/supervisor/loaded",
        "run/gate",
        "run/sock",
        "run/pid",
    ] {
        for entry in std::fs::read_dir(fixture.dir.join(dir))
            .into_iter()
            .flatten()
            .flatten()
        {
            let file = entry.file_name().into_string().unwrap();
            let name = file.split('.').next().unwrap();
            assert!(
                names.contains(&name) || file.starts_with("service_"),
                "{dir}/{file} belongs to nobody: {names:?}"
            );
        }
    }
}

#[test]
fn nginx_supervisord() {
    power_cut(Combination::REAL);
}

#[test]
fn builtin_builtin() {
    power_cut(Combination::BUILTIN);
}
