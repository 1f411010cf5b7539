//! A cleaner of temporary files removes the run folder, or parts of it, while acc runs: everything
//! is made again, nothing is lost, and an instance never has two processes.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::Signal;

use crate::support::fixture::SOON;
use crate::support::wait::{holds, pause, wait_until};
use crate::support::{Combination, Fixture, need, processes};

/// What a cleaner of temporary files removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removed {
    Files,
    Sockets,
    Links,
    Folders,
    All,
    Folder,
}

fn clean(dir: &Path, what: Removed) {
    // Entries removed in an earlier round may not exist again yet.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            clean(&entry.path(), what);
        }
        let take = match what {
            Removed::Files => kind.is_file(),
            Removed::Sockets => kind.is_socket(),
            Removed::Links => kind.is_symlink(),
            Removed::Folders => kind.is_dir(),
            Removed::All | Removed::Folder => true,
        };
        if take {
            let _ = if kind.is_dir() {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
        }
    }
    if what == Removed::Folder {
        let _ = fs::remove_dir_all(dir);
    }
}

/// The processes of an instance of the tester.
fn of_instance(fixture: &Fixture, name: &str) -> Vec<i32> {
    let marks = ["demo-app".to_owned(), format!("--name {name} ")];
    processes::of(&fixture.dir)
        .into_iter()
        .filter(|p| marks.iter().all(|mark| p.command.contains(mark)))
        .map(|p| p.pid)
        .collect()
}

/// Runs `action` and fails if an instance ever has two processes meanwhile. Only processes seen in
/// two counts are counted: a child that has just been forked looks like its parent.
fn never_two<T>(fixture: &Fixture, action: impl FnOnce() -> T) -> T {
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let (done, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    let result = std::thread::scope(|scope| {
        let _done = Done(&done);
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                for name in ["shop", "blog"] {
                    let twice = [of_instance(fixture, name), of_instance(fixture, name)];
                    let both = twice[0].iter().filter(|pid| twice[1].contains(pid)).count();
                    most.fetch_max(both, Ordering::SeqCst);
                }
                pause(std::time::Duration::from_millis(20));
            }
        });
        action()
    });
    assert!(
        most.load(Ordering::SeqCst) <= 1,
        "two processes of one instance at a time"
    );
    result
}

fn answers(fixture: &Fixture, name: &str) {
    wait_until("it answers again", SOON, || {
        match fixture.ask("GET", name, "/").send(fixture.address()) {
            Ok(reply) => holds(
                reply.status == 200 && reply.text().contains(name),
                reply.status,
            ),
            Err(e) => Err(e.to_string()),
        }
    });
}

fn is_whole(fixture: &Fixture) {
    let mut wanted = vec![
        "booted",
        "in-force.toml",
        "open-files",
        "owner.lock",
        "server.lock",
        "control.sock",
        "wake.sock",
        "gate",
        "sock",
    ];
    wanted.push("pid/blog.pid");
    wanted.extend(
        (fixture.combination.supervisor == "supervisord")
            .then_some(["supervisor.sock", "supervisord.pid"])
            .into_iter()
            .flatten(),
    );
    wanted.extend((fixture.combination.edge == "nginx").then_some("nginx.pid"));
    wait_until("everything is there again", SOON, || {
        let missing: Vec<_> = wanted
            .iter()
            .filter(|name| fs::symlink_metadata(fixture.run().join(name)).is_err())
            .collect();
        holds(missing.is_empty(), format!("{missing:?} missing"))
    });
}

pub fn the_server_makes_everything_again_by_itself(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    fixture.create("blog", "tester-tcp");
    for what in [
        Removed::Files,
        Removed::Links,
        Removed::Sockets,
        Removed::Folders,
        Removed::All,
        Removed::Folder,
    ] {
        ["shop", "blog"]
            .iter()
            .for_each(|name| answers(&fixture, name));
        let (shop, blog, master) = (fixture.pid("shop"), fixture.pid("blog"), fixture.master());
        never_two(&fixture, || {
            clean(&fixture.run(), what);
            answers(&fixture, "blog");
            answers(&fixture, "shop");
            is_whole(&fixture);
        });
        assert_eq!(
            fixture.pid("blog"),
            blog,
            "{what:?}: one that could be reached was started again"
        );
        if matches!(what, Removed::Files | Removed::Links) {
            assert_eq!(
                fixture.pid("shop"),
                shop,
                "{what:?}: one that could be reached was started again"
            );
        }
        assert_eq!(
            fixture.master(),
            master,
            "{what:?}: the server was replaced"
        );
        // All commands work as before.
        fixture.acc(&["list"]).ok().says(&["shop", "blog", "awake"]);
        fixture.acc(&["stop", "shop"]).ok();
        assert_eq!(of_instance(&fixture, "shop"), [0; 0], "{what:?}");
        fixture.acc(&["start", "shop"]).ok();
        assert_eq!(of_instance(&fixture, "shop").len(), 1, "{what:?}");
        fixture.acc(&["boot"]).ok();
    }
    fixture.acc(&["halt"]).ok();
    fixture.assert_nothing_runs();
    fixture.acc(&["boot"]).ok();
    answers(&fixture, "shop");
}

/// Right after the removal, before anything was made again; and once no instance is awake.
pub fn commands_right_after_it_find_what_runs(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester-tcp");
    for what in [Removed::Files, Removed::Folder] {
        for command in [
            &["boot"][..],
            &["start", "shop"],
            &["list"],
            &["monitor"],
            &["stop", "shop"],
        ] {
            let sleeps = fixture.phase("shop") != "awake";
            never_two(&fixture, || {
                clean(&fixture.run(), what);
                fixture.acc(command).ok();
                if command[0] != "stop" {
                    answers(&fixture, "shop");
                }
            });
            assert!(
                sleeps || command[0] == "stop" || fixture.phase("shop") == "awake",
                "{what:?} {command:?}"
            );
        }
        // No instance is awake: the next request still reaches its instance.
        clean(&fixture.run(), what);
        answers(&fixture, "shop");
        clean(&fixture.run(), what);
        fixture.acc(&["halt"]).ok();
        fixture.assert_nothing_runs();
        fixture.acc(&["boot"]).ok();
        answers(&fixture, "shop");
    }
}

/// No process is left that could make the files again: a boot finds what runs.
pub fn a_boot_finds_what_runs_without_a_server(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    fixture.create("blog", "tester-tcp");
    for (what, with_supervisor) in [
        (Removed::Files, false),
        (Removed::Folder, false),
        (Removed::Folder, true),
    ] {
        ["shop", "blog"]
            .iter()
            .for_each(|name| answers(&fixture, name));
        let blog = fixture.pid("blog");
        never_two(&fixture, || {
            // Without its supervisor nothing restarts the server.
            let supervisord = processes::find(&fixture.dir, &["supervisord"]);
            supervisord
                .iter()
                .for_each(|p| processes::signal(p.pid, Signal::SIGSTOP));
            fixture.kill_server();
            clean(&fixture.run(), what);
            let signal = if with_supervisor {
                Signal::SIGKILL
            } else {
                Signal::SIGCONT
            };
            supervisord
                .iter()
                .for_each(|p| processes::signal(p.pid, signal));
            fixture.acc(&["boot"]).ok();
            answers(&fixture, "blog");
            answers(&fixture, "shop");
            is_whole(&fixture);
        });
        assert_eq!(
            fixture.pid("blog"),
            blog,
            "{what:?}: it was not found again"
        );
        assert_eq!(
            fs::read_to_string(fixture.run().join("booted")).unwrap(),
            "background",
            "{what:?}"
        );
        assert_eq!(
            (
                of_instance(&fixture, "shop").len(),
                of_instance(&fixture, "blog").len()
            ),
            (1, 1),
            "{what:?}"
        );
    }
}

/// The cleaner of systemd skips a folder that a process has locked.
#[test]
fn systemd_skips_the_locked_run_folder() {
    if !need::root("to clean as systemd does") || !need::programs(&["systemd-tmpfiles"]) {
        return;
    }
    let Some(fixture) = Fixture::with(Combination::BUILTIN, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let beside = fixture.dir.join("beside");
    fs::write(&beside, "").unwrap();
    let rules = fixture.dir.join("rules.conf");
    fs::write(
        &rules,
        format!(
            "d {} 0755 root root 0\nx {}\n",
            fixture.dir.display(),
            fixture.home().display()
        ),
    )
    .unwrap();
    let done = std::process::Command::new("systemd-tmpfiles")
        .arg("--clean")
        .arg(&rules)
        .output()
        .unwrap();
    assert!(!beside.exists(), "nothing was cleaned: {done:?}");
    assert!(
        fixture.run().join("booted").exists() && fixture.run().join("pid/shop.pid").exists(),
        "it was cleaned: {done:?}"
    );
    fixture.configure(&crate::support::Settings {
        idle: "60s",
        ..Default::default()
    });
}

/// All processes are killed and the run folder is removed: a halt then is still a halt.
pub fn a_halt_after_everything_is_gone_holds(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    processes::end_all(&fixture.dir);
    fs::remove_dir_all(fixture.run()).unwrap();
    let booted = fixture.home().join("booted");
    assert!(booted.exists());
    fixture.acc(&["halt"]).ok();
    assert!(!booted.exists(), "acc would be started again");
    fixture.assert_nothing_runs();
    fixture.acc(&["boot"]).ok();
}
