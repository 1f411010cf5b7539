//! A create that fails in any step: the error names the step, and nothing of the instance is left.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::support::{Combination, Fixture, Mounted, need};

/// Nothing of `name` is left: no row, no file, no process, no answer.
#[track_caller]
fn assert_undone(fixture: &Fixture, name: &str) {
    assert_eq!(
        fixture.json(&["list"]).as_array().unwrap().len(),
        0,
        "a row is left"
    );
    assert!(!fixture.instance(name).exists(), "its folder is left");
    fixture.assert_no_trace_of(name);
    assert!(
        !crate::support::processes::of(&fixture.dir)
            .iter()
            .any(|p| p.command.contains(name)),
        "a process is left"
    );
    fixture.get(name, "/").status(404);
    fixture.acc(&["info", name]).error(3);
}

pub fn a_failed_create_leaves_nothing(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.wake_timeout = "2s") else {
        return;
    };
    let demo = |more: &str| {
        format!(
            "description = \"d\"\nlisten = \"unix\"\ncommand = [\"{{{{ acc }}}}\", \"demo-app\", \"--socket\", \"{{{{ socket }}}}\"{more}]\n"
        )
    };
    fixture.model(
        "missing",
        "description = \"d\"\nlisten = \"unix\"\ncommand = [\"no-such-program\"]\n",
    );
    let refused = fixture.model(
        "refused",
        "description = \"d\"\nlisten = \"unix\"\ncommand = [\"./run\"]\n",
    );
    fs::create_dir_all(refused.join("files")).unwrap();
    fs::write(refused.join("files/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(refused.join("files/run"), fs::Permissions::from_mode(0o644)).unwrap();
    fixture.model("exits", &demo(", \"--exit-at-start\", \"7\""));
    fixture.model("deaf", &demo(", \"--never-listen\""));
    fixture.model(
        "mute",
        &(demo(", \"--never-answer\"") + "health = \"/health\"\n"),
    );
    fixture.model(
        "slow-tcp",
        "description = \"d\"\nlisten = \"tcp\"\ncommand = [\"/bin/sleep\", \"1000\"]\n",
    );
    fixture.model("strict", &(demo("") + "[params.title]\nrequired = true\n"));
    for (model, code, word) in [
        ("missing", 0, "no-such-program"),
        ("refused", 0, "./run"),
        ("exits", 1, "exited with code 7 before its first answer"),
        ("deaf", 5, "shop"),
        ("mute", 5, "shop"),
        ("slow-tcp", 5, "shop"),
        ("strict", 2, "title"),
        ("none-such", 3, "none-such"),
    ] {
        let done = fixture.acc(&[
            "create",
            "shop",
            "--model",
            model,
            "--host",
            "shop.example.org",
        ]);
        assert!(
            done.took < Duration::from_secs(20),
            "{model} took {:?}",
            done.took
        );
        let done = if code == 0 {
            done.refused()
        } else {
            done.error(code)
        };
        done.says(&[word]);
        assert_undone(&fixture, "shop");
    }
    fixture
        .acc(&[
            "create", "shop", "--model", "strict", "--set", "titel=x", "--set", "title=y",
        ])
        .error(2)
        .says(&["titel"]);
    fixture
        .acc(&["create", "Shop", "--model", "tester"])
        .error(2);
    fixture
        .acc(&["create", "nginx", "--model", "tester"])
        .error(2)
        .says(&["reserved"]);
    fixture
        .acc(&[
            "create",
            "shop",
            "--model",
            "tester",
            "--host",
            "not a host",
        ])
        .error(2);
    assert_undone(&fixture, "shop");
    fixture.create("shop", "tester");
    fixture
        .acc(&["create", "shop", "--model", "tester"])
        .refused()
        .says(&["shop"]);
    assert_eq!(fixture.phase("shop"), "awake");
}

pub fn a_full_disk_leaves_nothing(combination: Combination) {
    if !need::root("to mount a small tmpfs") {
        return;
    }
    let Some(fixture) = Fixture::with(combination, |_| {}) else {
        return;
    };
    let instances = fixture.home().join("instances");
    fs::create_dir_all(&instances).unwrap();
    let mounted = Mounted::tmpfs(&instances, "size=256k,mode=0755");
    let big = fixture
        .model("big", "description = \"d\"\nlisten = \"unix\"\ncommand = [\"{{ acc }}\", \"demo-app\", \"--socket\", \"{{ socket }}\"]\n");
    fs::create_dir_all(big.join("files")).unwrap();
    fs::write(big.join("files/blob"), vec![7; 1 << 20]).unwrap();
    fixture
        .acc(&["create", "shop", "--model", "big"])
        .error(1)
        .says(&["No space left", "shop"]);
    assert_undone(&fixture, "shop");
    fixture.create("shop", "tester");
    fixture.get("shop", "/").status(200);
    fixture.acc(&["destroy", "--force", "shop"]).ok();
    fixture.acc(&["purge", "shop"]).ok();
    drop(mounted);
}
