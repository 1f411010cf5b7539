//! Which user runs what: instances as another user than acc, and all of acc as an ordinary user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use crate::support::{Combination, Fixture, need};

/// The conventional `nobody`.
const NOBODY: u32 = 65_534;

fn owner_of(pid: i32) -> u32 {
    fs::metadata(format!("/proc/{pid}")).unwrap().uid()
}

#[test]
fn instances_run_as_the_user_of_the_config() {
    if !need::root("to run instances as another user") {
        return;
    }
    for combination in Combination::ALL {
        let Some(mut fixture) = Fixture::unbooted(combination, |s| {
            (s.top, s.idle) = ("user = \"nobody\"".into(), "60s")
        }) else {
            continue;
        };
        // The model runs the binary under test, which must be reachable for that user.
        let theirs = fixture.dir.join("acc");
        fs::copy(&fixture.acc, &theirs).unwrap();
        fixture.acc = theirs;
        fixture.acc(&["boot"]).ok();
        for (name, model) in [
            ("shop", "tester"),
            ("blog", "tester-tcp"),
            ("wiki", "hello-fd"),
        ] {
            fixture.create(name, model);
            assert_eq!(
                owner_of(fixture.pid(name)),
                NOBODY,
                "{name} runs as the wrong user ({combination:?})"
            );
            fixture.get(name, "/").status(200);
            fixture.acc(&["stop", name]).ok();
            fixture.get(name, "/").status(200);
        }
        let mode =
            |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            mode(&fixture.home().join("acc.db")) & 0o077,
            0,
            "instances can read the database"
        );
        assert_eq!(
            mode(&fixture.run().join("control.sock")) & 0o077,
            0,
            "instances can command acc"
        );
        assert_eq!(
            mode(&fixture.instance("shop")) & 0o007,
            0,
            "others can read an instance's files"
        );
    }
}

#[test]
fn all_of_acc_runs_as_an_ordinary_user() {
    if !need::root("to become an ordinary user") {
        return;
    }
    for combination in Combination::ALL {
        let Some(mut fixture) = Fixture::unbooted(combination, |s| s.idle = "500ms") else {
            continue;
        };
        let theirs = fixture.dir.join("acc");
        fs::copy(&fixture.acc, &theirs).unwrap();
        fixture.acc = theirs;
        fixture.user = Some(NOBODY);
        let mut paths = vec![fixture.dir.clone()];
        while let Some(path) = paths.pop() {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            if path.is_dir() {
                paths.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
        }
        fixture.acc(&["boot"]).ok();
        fixture.create("shop", "tester");
        fixture.create("wiki", "hello-fd");
        fixture.get("wiki", "/").status(200);
        assert_eq!(owner_of(fixture.pid("shop")), NOBODY);
        fixture.get("shop", "/").status(200);
        fixture.monitor_until_asleep("shop");
        fixture.get("shop", "/").status(200);
        fixture.acc(&["halt"]).ok();
        fixture.assert_nothing_runs();
    }
}

/// acc tells a user who may not use it which user may. It never says that something is broken or
/// missing.
#[test]
fn a_user_without_rights_gets_a_hint_which_user_has_them() {
    if !need::root("to become an ordinary user") {
        return;
    }
    for combination in [Combination::REAL, Combination::BUILTIN] {
        let Some(mut fixture) = Fixture::unbooted(combination, |_| {}) else {
            continue;
        };
        let theirs = fixture.dir.join("acc");
        fs::copy(&fixture.acc, &theirs).unwrap();
        fixture.acc = theirs;
        fixture.acc(&["boot"]).ok();
        fixture.user = Some(NOBODY);
        let hint = "run this command as root or as the user who booted acc";
        fixture.acc(&["halt"]).error(1).says(&[hint]);
        fixture
            .acc(&["list"])
            .error(1)
            .says(&["no permission", "acc.db", hint]);
        fixture
            .acc(&["create", "shop", "--model", "tester"])
            .error(1)
            .says(&[hint]);
        let list = fixture.acc(&["--json", "list"]).code(1);
        let error: serde_json::Value = serde_json::from_str(&list.err).unwrap();
        assert_eq!(error["error"]["hint"], hint, "{list:?}");
        let doctor = fixture.acc(&["doctor"]).code(1);
        assert!(
            !doctor.out.contains("check the mode") && !doctor.out.contains("taken by another"),
            "{}",
            doctor.out
        );
        fixture.user = None;
        let doctor = fixture.acc(&["doctor"]);
        assert!(
            doctor.out.contains("is used by acc (pid ") && !doctor.out.contains("taken by another"),
            "{}",
            doctor.out
        );
    }
}

/// Any user may create `/tmp/acc-UID` first.
#[test]
fn folders_of_strangers_are_refused() {
    if !need::root("to make folders of others") {
        return;
    }
    let Some(mut fixture) = Fixture::unbooted(Combination::BUILTIN, |_| {}) else {
        return;
    };
    let theirs = fixture.dir.join("acc");
    fs::copy(&fixture.acc, &theirs).unwrap();
    fixture.acc = theirs;
    fs::create_dir(fixture.run()).unwrap();
    chown(fixture.run(), Some(61_234), None).unwrap();
    fixture
        .acc(&["boot"])
        .error(1)
        .says(&["run `", "belongs to user 61234", "hint: "]);
    fixture
        .acc(&["doctor"])
        .code(1)
        .says(&["belongs to user 61234"]);
    fixture.user = Some(NOBODY);
    // A socket in that folder is not used either.
    fixture
        .acc(&["start", "shop"])
        .error(1)
        .says(&["belongs to user 61234"]);
    fixture.user = None;
    chown(fixture.run(), Some(0), None).unwrap();
    fs::set_permissions(fixture.run(), fs::Permissions::from_mode(0o1777)).unwrap();
    fixture
        .acc(&["boot"])
        .error(1)
        .says(&["can be written by others (mode 1777)"]);
    assert!(
        fs::read_dir(fixture.run())
            .unwrap()
            .all(|e| e.unwrap().path().is_dir()),
        "nothing but folders was made"
    );
    fs::set_permissions(fixture.run(), fs::Permissions::from_mode(0o755)).unwrap();
    fixture.acc(&["boot"]).ok();
}
