//! The disk of home, or of the run folder, is full: an action that cannot be done is refused and
//! changes nothing, awake instances are served, and once there is room everything works again by
//! itself.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use super::truth;
use crate::support::fixture::COMMAND;
use crate::support::wait::holds;
use crate::support::{Combination, Done, Fixture, Mounted, need, processes, run, wait_until};

/// A fixture whose home or run folder is a small disk of its own. Dropped in this order: the
/// fixture first, with its own checks, then the disk even if these fail, and then the files that
/// the fixture could not remove because of the disk.
struct Small {
    fixture: Fixture,
    mount: Mounted,
    #[expect(dead_code, reason = "it only has to be dropped last")]
    left: Left,
}

/// A folder that is removed.
struct Left(PathBuf);

impl Drop for Left {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Small {
    /// `which`: `home` or `run`; `options`: how small.
    fn new(combination: Combination, which: &str, options: &str) -> Option<Self> {
        if !need::root("to mount a small tmpfs") {
            return None;
        }
        let fixture = Fixture::unbooted(combination, |s| {
            (s.idle, s.check_every, s.stop_timeout, s.wake_timeout) = ("60s", "300ms", "2s", "5s")
        })?;
        let mount = fixture.dir.join(which);
        let kept = fixture.dir.join("kept");
        fs::create_dir_all(&mount).unwrap();
        fs::rename(&mount, &kept).unwrap();
        fs::create_dir_all(&mount).unwrap();
        let small = Self {
            mount: Mounted::tmpfs(&mount, options),
            left: Left(fixture.dir.clone()),
            fixture,
        };
        run::run(
            Command::new("cp")
                .arg("-a")
                .arg(format!("{}/.", kept.display()))
                .arg(&mount),
            COMMAND,
        )
        .ok();
        small.fixture.acc(&["boot"]).ok();
        Some(small)
    }

    /// Fills the disk: no room for one more byte or file.
    fn fill(&self) {
        let mut file = fs::File::create(self.mount.path().join("filled")).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            let block = vec![7; size];
            while file
                .write_all(&block)
                .and_then(|()| file.sync_data())
                .is_ok()
            {}
        }
        for n in 0..100_000 {
            if fs::File::create(self.mount.path().join(format!("filled{n}"))).is_err() {
                break;
            }
        }
    }

    fn make_room(&self) {
        for entry in fs::read_dir(self.mount.path()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("filled") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

/// The command succeeded, or it was refused with a reason that names the disk and nothing was
/// changed.
#[track_caller]
fn done_or_refused(
    small: &Small,
    arguments: &[&str],
    unchanged: impl Fn(&Fixture) -> String,
) -> Done {
    let before = unchanged(&small.fixture);
    let done = small.fixture.acc(arguments);
    if done.code != Some(0) {
        let said = done.err.to_lowercase();
        assert!(
            ["no space", "no room", "full"]
                .iter()
                .any(|w| said.contains(w)),
            "{done:?}"
        );
        assert_eq!(
            unchanged(&small.fixture),
            before,
            "refused, and yet it changed something: {done:?}"
        );
    }
    done
}

fn rows(fixture: &Fixture) -> String {
    let rows = fixture.json(&["list"]);
    let row = |r: &serde_json::Value| format!("{} {} {}", r["name"], r["phase"], r["desired"]);
    rows.as_array()
        .unwrap()
        .iter()
        .map(row)
        .collect::<Vec<_>>()
        .join(", ")
}

fn home_is_full(combination: Combination) {
    let Some(small) = Small::new(combination, "home", "size=6m,mode=0755") else {
        return;
    };
    let fixture = &small.fixture;
    fixture.create("shop", "tester");
    fixture.create("docs", "tester");
    fixture
        .acc(&["create", "blog", "--model", "tester-tcp", "--asleep"])
        .ok();
    let (shop, docs, worker) = (
        fixture.pid("shop"),
        fixture.pid("docs"),
        truth::working(fixture),
    );
    small.fill();
    fixture.get("shop", "/").status(200);
    let made = done_or_refused(
        &small,
        &[
            "create",
            "wiki",
            "--model",
            "tester",
            "--host",
            "wiki.example.org",
        ],
        rows,
    );
    assert_eq!(
        made.code,
        Some(1),
        "there was room for a folder and its files: {made:?}"
    );
    assert!(!fixture.instance("wiki").exists(), "half of it is left");
    for verb in [
        &["disable", "blog"][..],
        &["pin", "blog"],
        &["enable", "blog"],
        &["start", "blog"],
        &["stop", "docs"],
    ] {
        done_or_refused(&small, verb, rows);
        fixture.get("shop", "/").status(200);
    }
    // The reported phase is true whether it can be stored or not.
    processes::signal(docs, Signal::SIGKILL);
    for _ in 0..20 {
        fixture.get("shop", "/").status(200);
        fixture.acc(&["monitor"]);
    }
    assert_eq!(
        truth::working(fixture),
        worker,
        "the server did not bear it"
    );
    assert_eq!(fixture.pid("shop"), shop);
    small.make_room();
    // By itself: no command and no request is sent.
    truth::becomes_true(fixture, || ());
    for name in ["shop", "blog", "docs"] {
        fixture.acc(&["enable", name]).ok();
        wait_until("it answers", truth::SETTLED, || {
            let reply = fixture.get(name, "/");
            holds(reply.status == 200, reply.status)
        });
    }
    fixture
        .acc(&[
            "create",
            "wiki",
            "--model",
            "tester",
            "--host",
            "wiki.example.org",
        ])
        .ok();
    assert_eq!(
        (truth::working(fixture), fixture.pid("shop")),
        (worker, shop)
    );
    truth::becomes_true(fixture, || ());
}

fn run_is_full(combination: Combination) {
    let Some(small) = Small::new(combination, "run", "size=1m,nr_inodes=400,mode=0755") else {
        return;
    };
    let fixture = &small.fixture;
    fixture.create("shop", "tester");
    for (name, model) in [("blog", "tester-tcp"), ("docs", "tester")] {
        fixture.create(name, model);
        fixture.acc(&["stop", name]).ok();
    }
    let (shop, worker) = (fixture.pid("shop"), truth::working(fixture));
    small.fill();
    for name in ["blog", "docs"] {
        let reply = fixture.get(name, "/");
        assert!(
            [200, 503].contains(&reply.status),
            "{} {}",
            reply.status,
            reply.text()
        );
        fixture.get("shop", "/").status(200);
    }
    fixture.acc(&["monitor"]);
    assert_eq!(
        truth::working(fixture),
        worker,
        "the server did not bear it"
    );
    small.make_room();
    for name in ["blog", "docs"] {
        wait_until("it answers", truth::SETTLED, || {
            let reply = fixture.get(name, "/");
            holds(
                reply.status == 200,
                format!("{} {}", reply.status, reply.text()),
            )
        });
    }
    assert_eq!(
        (truth::working(fixture), fixture.pid("shop")),
        (worker, shop)
    );
    truth::becomes_true(fixture, || ());
    if combination.edge == "nginx" {
        let gates = || fs::read_dir(fixture.run().join("gate")).unwrap().count();
        wait_until("every gate is there", truth::SETTLED, || {
            holds(gates() == 3, gates())
        });
    }
}

macro_rules! on {
    ($($module:ident $combination:expr;)+) => {
        $(mod $module {
            use super::*;
            #[test]
            fn home() {
                home_is_full($combination);
            }
            #[test]
            fn run() {
                run_is_full($combination);
            }
        })+
    };
}

on! {
    nginx_supervisord Combination::REAL;
    builtin_builtin Combination::BUILTIN;
}
