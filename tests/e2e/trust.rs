//! Which files and folders acc obeys: those that no other user can change; and as which user root
//! acts where acc belongs to another user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::fixture::{ACC, COMMAND, SOON};
use crate::support::wait::wait_until;
use crate::support::{Combination, Fixture, need, processes, run};

/// The conventional `nobody`.
const NOBODY: u32 = 65_534;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Gives a tree to a user, links themselves included.
fn give(path: &Path, user: u32) {
    lchown(path, Some(user), Some(user)).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::read_dir(path)
            .unwrap()
            .for_each(|entry| give(&entry.unwrap().path(), user));
    }
}

/// A fixture that an ordinary user has booted, with a sleeping instance that records the user it
/// runs as.
fn booted_by_another(combination: Combination) -> Option<Fixture> {
    let mut fixture = Fixture::unbooted(combination, |s| s.idle = "60s")?;
    let theirs = fixture.dir.join("acc");
    fs::copy(&fixture.acc, &theirs).unwrap();
    fixture.acc = theirs;
    let (home, run) = (fixture.home(), fixture.run());
    fs::create_dir_all(&run).unwrap();
    give(&home, NOBODY);
    give(&run, NOBODY);
    fixture.user = Some(NOBODY);
    fixture.acc(&["boot"]).ok();
    fixture.create("shop", "tester");
    Some(fixture)
}

#[test]
fn root_over_another_users_installation_acts_as_that_user() {
    if !need::root("to act over another user's installation") {
        return;
    }
    for combination in Combination::ALL {
        let Some(mut fixture) = booted_by_another(combination) else {
            continue;
        };
        fixture.acc(&["pin", "shop"]).ok();
        let owner = |pid: i32| fs::metadata(format!("/proc/{pid}")).unwrap().uid();
        fixture.user = None;
        fixture.acc(&["list"]).ok().says(&["shop"]);
        fixture.acc(&["restart", "shop"]).ok();
        assert_eq!(owner(fixture.pid("shop")), NOBODY);
        // Without a server the command does the work itself: the pinned instance is started again.
        processes::end_all(&fixture.dir);
        let done = fixture.acc(&["monitor"]);
        for seen in processes::of(&fixture.dir) {
            assert_eq!(
                owner(seen.pid),
                NOBODY,
                "{seen:?} ({combination:?}, {done:?})"
            );
        }
        if combination == Combination::BUILTIN {
            let pid = wait_until("the pinned instance runs again", SOON, || {
                fixture.acc(&["monitor"]);
                let info = fixture.info("shop");
                info["pid"].as_i64().ok_or_else(|| info.to_string())
            });
            assert_eq!(owner(i32::try_from(pid).unwrap()), NOBODY);
        }
        // A temporary file that is written and then renamed may be gone by now.
        let look = |path: &Path| match fs::symlink_metadata(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            found => Some(found.unwrap()),
        };
        for folder in [fixture.home(), fixture.run()] {
            let mut found = vec![folder];
            while let Some(path) = found.pop() {
                let Some(seen) = look(&path) else { continue };
                assert_ne!(
                    seen.uid(),
                    0,
                    "`{}` was made by root ({combination:?})",
                    path.display()
                );
                if seen.is_dir() {
                    found.extend(
                        fs::read_dir(&path)
                            .unwrap()
                            .map(|entry| entry.unwrap().path()),
                    );
                }
            }
        }
        fixture.acc(&["halt"]).ok();
        fixture.assert_nothing_runs();
    }
}

/// If root cannot become that user, or would have to start something of its own, it refuses.
#[test]
fn root_does_not_begin_anything_in_places_of_others() {
    if !need::root("to make folders of others") {
        return;
    }
    let Some(fixture) = Fixture::unbooted(Combination::BUILTIN, |_| {}) else {
        return;
    };
    fs::create_dir(fixture.run()).unwrap();
    give(&fixture.home(), NOBODY);
    chown(fixture.run(), Some(61_234), Some(61_234)).unwrap();
    let nothing_new = || {
        fs::read_dir(fixture.run()).unwrap().count() == 0 && !fixture.home().join("acc.db").exists()
    };
    fixture.acc(&["monitor"]).error(1).says(&[
        "belongs to user 65534",
        "belongs to user 61234",
        "hint: ",
    ]);
    chown(fixture.run(), Some(61_234), Some(0)).unwrap();
    give(&fixture.home(), 0);
    fixture
        .acc(&["monitor"])
        .error(1)
        .says(&["belongs to user 61234", "could not become user 61234"]);
    for command in ["boot", "server"] {
        fixture
            .acc(&[command])
            .error(1)
            .says(&["belongs to user 61234, not to user 0"]);
    }
    assert!(nothing_new());
    give(&fixture.run(), 0);
}

/// The owner of a folder can replace everything below it.
#[test]
fn folders_above_count() {
    if !need::root("to make folders of others") {
        return;
    }
    let Some(fixture) = Fixture::unbooted(Combination::BUILTIN, |_| {}) else {
        return;
    };
    let above = fixture.dir.join("above");
    fs::create_dir(&above).unwrap();
    fs::rename(fixture.home(), above.join("home")).unwrap();
    let text = fs::read_to_string(fixture.config()).unwrap();
    fs::write(
        fixture.config(),
        text.replace(
            &format!("{}/home", fixture.dir.display()),
            &format!("{}/home", above.display()),
        ),
    )
    .unwrap();
    let refused = |says: &[&str]| {
        for command in ["boot", "list", "monitor", "halt"] {
            fixture.acc(&[command]).error(1).says(says);
        }
        fixture.acc(&["doctor"]).code(1).says(says);
    };
    chown(&above, Some(NOBODY), None).unwrap();
    refused(&[
        "is not safe: `",
        "/above` belongs to user 65534, not to user 0",
        "`chown 0 ",
    ]);
    chown(&above, Some(0), None).unwrap();
    mode(&above, 0o777);
    fixture.acc(&["boot"]).error(1).says(&[
        "/above` can be written by others (mode 0777)",
        "`chmod go-w ",
    ]);
    assert!(!fixture.run().exists(), "nothing was made");
    // A folder in which others can create entries, but not replace existing ones, is safe.
    mode(&above, 0o1777);
    fixture.acc(&["boot"]).ok();
}

/// A named file is trusted depending on who can change it; a file in root's current folder is never
/// trusted.
#[test]
fn configs_that_others_can_change_are_not_obeyed() {
    if !need::root("to make files of others") {
        return;
    }
    let Some(fixture) = Fixture::unbooted(Combination::BUILTIN, |_| {}) else {
        return;
    };
    let open = fixture.dir.join("open");
    fs::create_dir(&open).unwrap();
    let acc = |config: Option<&Path>| {
        let mut command = Command::new(ACC);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/nonexistent")
            .current_dir(&open);
        command
            .args(
                config
                    .map(|path| vec!["--config".as_ref(), path])
                    .unwrap_or_default(),
            )
            .args(["config", "show"]);
        run::run(&mut command, COMMAND)
    };
    for faulty in ["home = \"/of-a-stranger\"\n", "nonsense\n"] {
        fs::write(open.join("acc.toml"), faulty).unwrap();
        assert!(
            !acc(None).ok().out.contains("of-a-stranger"),
            "its own file in the current folder"
        );
    }
    // The run folder is the fixture's: the settings in force of an acc of this host must not be
    // shown.
    let named = open.join("named.toml");
    fs::write(
        &named,
        format!(
            "home = \"/of-a-stranger\"\nrun = \"{}\"\n",
            fixture.run().display()
        ),
    )
    .unwrap();
    let link = open.join("link.toml");
    symlink(&named, &link).unwrap();
    assert!(
        acc(Some(&link)).ok().out.contains("of-a-stranger"),
        "named, and nobody else can change it"
    );
    mode(&named, 0o664);
    for path in [&named, &link] {
        acc(Some(path)).error(2).says(&[
            "named.toml` can be written by others (mode 0664)",
            "`chmod go-w ",
        ]);
    }
    mode(&named, 0o644);
    mode(&open, 0o777);
    for path in [&named, &link] {
        acc(Some(path)).error(2).says(&[
            "/open` can be written by others (mode 0777)",
            "who could replace it",
            "`chmod go-w ",
        ]);
    }
    chown(&open, Some(NOBODY), None).unwrap();
    mode(&open, 0o755);
    acc(Some(&named))
        .error(2)
        .says(&["/open` belongs to user 65534", "`chown 0 "]);
    // A user's own file, in a folder of that user: root reads it as that user, who may read less
    // than root.
    give(&open, NOBODY);
    let secret = fixture.dir.join("secret");
    fs::create_dir(&secret).unwrap();
    mode(&secret, 0o700);
    fs::write(secret.join("own.toml"), "home = \"/of-root\"\n").unwrap();
    fs::remove_file(&link).unwrap();
    symlink(secret.join("own.toml"), &link).unwrap();
    lchown(&link, Some(NOBODY), Some(NOBODY)).unwrap();
    assert!(!acc(Some(&link)).error(2).err.contains("of-root"));
    // A pipe is not a file and does not block the command.
    nix::unistd::mkfifo(&fixture.dir.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    acc(Some(&fixture.dir.join("pipe")))
        .error(2)
        .says(&["not a regular file"]);
}

#[test]
fn templates_and_models_that_others_can_change_are_not_used() {
    let Some(fixture) = Fixture::unbooted(Combination::BUILTIN, |_| {}) else {
        return;
    };
    let templates = fixture.dir.join("templates");
    fs::create_dir_all(templates.join("pages")).unwrap();
    fs::write(templates.join("pages/error.html"), "x").unwrap();
    let text = fs::read_to_string(fixture.config()).unwrap();
    fs::write(
        fixture.config(),
        text.replace(
            "[edge]",
            &format!("[edge]\ntemplates = \"{}\"", templates.display()),
        ),
    )
    .unwrap();
    mode(&templates, 0o777);
    fixture.acc(&["boot"]).error(2).says(&[
        "edge.templates: can be written by others (mode 0777)",
        "`chmod go-w ",
    ]);
    mode(&templates, 0o755);
    for (path, bad, good) in [
        (templates.join("pages"), 0o777, 0o755),
        (templates.join("pages/error.html"), 0o666, 0o644),
    ] {
        mode(&path, bad);
        fixture.acc(&["boot"]).error(1).says(&[
            "error.html",
            "can be written by others",
            "`chmod go-w ",
        ]);
        mode(&path, good);
    }
    fixture.acc(&["boot"]).ok();

    let model = fixture.model("custom", "command = [\"./run\"]\n");
    fs::create_dir(model.join("files")).unwrap();
    fs::write(model.join("files/run"), "#!/bin/sh\n").unwrap();
    mode(&model.join("files/run"), 0o755);
    fixture.acc(&["models", "custom"]).ok();
    for path in [
        model.clone(),
        model.join("model.toml"),
        model.join("files"),
        model.join("files/run"),
        fixture.home().join("models"),
    ] {
        let before = fs::metadata(&path).unwrap().permissions().mode();
        mode(&path, before | 0o020);
        let done = fixture.acc(&["create", "shop", "--model", "custom", "--asleep"]);
        assert!(
            done.code != Some(0) && done.err.contains("can be written by others"),
            "{}: {done:?}",
            path.display()
        );
        mode(&path, before);
    }
    fs::remove_file(model.join("model.toml")).unwrap();
    nix::unistd::mkfifo(&model.join("model.toml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fixture.acc(&["models"]).says(&["not a regular file"]);
    fixture
        .acc(&["create", "shop", "--model", "custom"])
        .error(1)
        .says(&["not a regular file"]);
}
