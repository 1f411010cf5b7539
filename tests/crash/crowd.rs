//! Twenty at once: commands, monitor runs, requests and the server act on the same few instances,
//! with random verbs, while the server is killed again and again. At the end every recorded state
//! must be true.
//!
//! About ten seconds each; `ACC_CROWD_SECONDS=60` for longer, `ACC_CROWD_SEED` for the same verbs
//! again (not the same timing).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::truth;
use crate::support::wait::{Ending, holds, now, pause};
use crate::support::{Combination, Fixture, processes, run, wait_until};

const NAMES: [&str; 4] = ["shop", "blog", "wiki", "docs"];
/// Longest any command may take; a deadlock takes longer.
const LONGEST: Duration = Duration::from_secs(120);

#[expect(
    clippy::disallowed_methods,
    reason = "a switch for people and for nightly runs"
)]
fn switch(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// Numbers that look random and are the same for the same seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % end
    }
}

/// One random action of a user.
pub fn verb(dice: &mut Dice) -> Vec<&'static str> {
    let name = NAMES[dice.below(NAMES.len())];
    let model = ["tester", "tester-tcp"][dice.below(2)];
    match dice.below(20) {
        0..=2 => vec!["start", name],
        3 => vec!["stop", name],
        4 => vec!["stop", "--now", name],
        5 => vec!["restart", name],
        6 => vec!["disable", name],
        7..=8 => vec!["enable", name],
        9 => vec!["pin", name],
        10 => vec!["reset", name],
        11..=12 => vec!["monitor"],
        13..=15 => vec!["create", name, "--model", model],
        16 => vec!["destroy", "--force", name],
        17 => vec!["purge", name],
        18 => vec!["list"],
        _ => vec!["info", name],
    }
}

/// Texts that no command may ever print, whatever happens around it.
pub fn is_wrong(done: &run::Done, server_dies: bool) -> bool {
    let said = format!("{}{}", done.out, done.err);
    let forbidden = [
        "locked by another",
        "panicked",
        "internal error",
        "damaged",
        "is not known",
        "could not find out",
        "could not list",
    ];
    forbidden.iter().any(|words| said.contains(words))
        || done.code.is_none()
        || (!server_dies && said.contains("connection to the server broke"))
}

fn crowd(combination: Combination, kill_server: bool) {
    let Some(fixture) = Fixture::with(combination, |s| {
        (s.idle, s.check_every, s.drain, s.stop_timeout) = ("300ms", "500ms", "2s", "2s");
        s.rules = "[log]\nlevel = \"debug\"\n".into();
    }) else {
        return;
    };
    let seed = switch("ACC_CROWD_SEED", u64::from(std::process::id()));
    let length = Duration::from_secs(switch("ACC_CROWD_SECONDS", 10));
    eprintln!("ACC_CROWD_SEED={seed}");
    for name in NAMES {
        fixture.create(name, "tester");
    }
    let over = AtomicBool::new(false);
    let (commands, answers, kills) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let _ending = Ending(&over);
        for n in 0..14 {
            let (fixture, over, commands, wrong) = (&fixture, &over, &commands, &wrong);
            scope.spawn(move || {
                let mut dice = Dice(seed * 1000 + n + 1);
                while !over.load(Ordering::Relaxed) {
                    let done = run::run(&mut fixture.command(&verb(&mut dice)), LONGEST);
                    commands.fetch_add(1, Ordering::Relaxed);
                    if is_wrong(&done, kill_server) {
                        wrong.lock().unwrap().push(format!("{done:?}"));
                    }
                }
            });
        }
        for n in 0..6 {
            let (fixture, over, answers) = (&fixture, &over, &answers);
            scope.spawn(move || {
                let mut dice = Dice(seed * 77 + n + 1);
                while !over.load(Ordering::Relaxed) {
                    let ask = fixture.ask("GET", NAMES[dice.below(NAMES.len())], "/");
                    if ask.send(fixture.address()).is_ok_and(|r| r.status == 200) {
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                    pause(Duration::from_millis(20));
                }
            });
        }
        let began = now();
        while began.elapsed() < length {
            pause(Duration::from_millis(1200));
            // In turn the worker, which its master replaces, and the master itself.
            let victim = if kills.load(Ordering::Relaxed) % 2 == 0 {
                truth::working(&fixture)
            } else {
                fixture.server().map(|s| s.pid)
            };
            if kill_server && let Some(server) = victim {
                processes::signal(server, Signal::SIGKILL);
                kills.fetch_add(1, Ordering::Relaxed);
                if combination.supervisor == "builtin" {
                    run::run(&mut fixture.command(&["boot"]), LONGEST);
                }
            }
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} wrong: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(5)]
    );
    eprintln!("{commands:?} commands, {answers:?} answers, {kills:?} kills of the server");
    assert!(
        commands.into_inner() > 40 && answers.into_inner() > 0,
        "hardly anything happened"
    );
    // supervisord does not know why its server kept dying, and may report this for some seconds.
    wait_until("all is up", truth::SETTLED, || {
        let done = run::run(&mut fixture.command(&["boot"]), LONGEST);
        holds(done.code == Some(0), format!("{done:?}"))
    });
    truth::becomes_true(&fixture, || drop(fixture.acc(&["monitor"])));
    everything_works(&fixture);
}

/// Every name can be used, or created, again.
#[track_caller]
pub fn everything_works(fixture: &Fixture) {
    for name in NAMES {
        let rows = fixture.json(&["list"]);
        let row = rows.as_array().unwrap().iter().find(|r| r["name"] == name);
        let destroyed = row.is_some_and(|row| row["phase"] == "destroyed");
        if destroyed {
            fixture.acc(&["purge", name]).ok();
        }
        if destroyed || row.is_none() {
            fixture
                .acc(&["create", name, "--model", "tester", "--asleep"])
                .ok();
        }
        fixture.acc(&["enable", name]).ok();
        fixture.acc(&["start", name]).ok();
        fixture.get(name, "/").status(200);
    }
    truth::becomes_true(fixture, || ());
    for name in NAMES {
        fixture.acc(&["destroy", "--force", name]).ok();
        fixture.acc(&["purge", name]).ok();
        truth::gone(fixture, name);
    }
}

macro_rules! on {
    ($($module:ident $combination:expr;)+) => {
        $(mod $module {
            use super::*;
            #[test]
            fn random_verbs() {
                crowd($combination, false);
            }
            #[test]
            fn random_verbs_while_the_server_is_killed() {
                crowd($combination, true);
            }
        })+
    };
}

on! {
    nginx_supervisord Combination::ALL[0];
    nginx_builtin Combination::ALL[1];
    builtin_supervisord Combination::ALL[2];
    builtin_builtin Combination::ALL[3];
}
