//! What `setup.sh` refuses before it changes anything.

use super::*;

/// What cannot work is refused before anything is written; a broken installation can be removed.
#[test]
fn setup_refuses_first_and_uninstalls_what_is_broken() {
    let place = Place::new();
    let prefix = place.0.join("p");
    let setup = |more: &[&str]| {
        let mut command = Command::new(root().join("setup.sh"));
        command
            .args(["--builtin", "--no-demo", "--prefix"])
            .arg(&prefix)
            .args(["--binary", ACC])
            .args(as_whom())
            .args(more);
        run::run(&mut command, SETUP)
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    setup(&["--port", &port])
        .error(1)
        .says(&["taken by another program"]);
    setup(&["--port", "25000"]).code(2).says(&["error: "]);
    assert!(!prefix.exists(), "something was written");
    fs::create_dir_all(prefix.join("home")).unwrap();
    fs::set_permissions(prefix.join("home"), fs::Permissions::from_mode(0o777)).unwrap();
    setup(&[])
        .error(1)
        .says(&["can be written by others", "chmod go-w"]);
    assert!(!prefix.join("bin").exists());
    fs::set_permissions(prefix.join("home"), fs::Permissions::from_mode(0o755)).unwrap();

    setup(&[]).ok();
    let config = prefix.join("etc/config.toml");
    setup(&["--port", "1025"]).error(1).says(&[
        "listens on [\"127.0.0.1:",
        "edit `listen`",
        "halt` and `",
    ]);
    assert!(
        fs::read_to_string(prefix.join("etc/config.toml.installed"))
            .unwrap()
            .starts_with("# "),
        "it explains itself"
    );
    // Broken, and something runs: nothing is removed. Nothing runs: everything is removed.
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{good}\n[ports]\nrange = \"1-2\"\n")).unwrap();
    setup(&["--uninstall"])
        .error(1)
        .says(&[" server", "nothing was removed"]);
    assert!(prefix.join("bin/acc").exists());
    processes::end_all(&place.0);
    setup(&["--uninstall"])
        .ok()
        .says(&["no process runs", "kept: ", "removed"]);
    assert!(!prefix.join("bin").exists() && !prefix.join("run").exists() && config.exists());
    setup(&[])
        .error(1)
        .says(&["the existing config is invalid"]);
    setup(&["--uninstall", "--purge-data"]).ok();
    assert!(
        !prefix.exists(),
        "something is left in {}",
        prefix.display()
    );
}

/// The owner of a folder above could replace what acc trusts.
#[test]
fn setup_refuses_places_below_a_folder_of_others() {
    if !need::root("to make folders of others") {
        return;
    }
    let place = Place::new();
    let theirs = place.0.join("theirs");
    fs::create_dir(&theirs).unwrap();
    chown(&theirs, Some(65_534), None).unwrap();
    let link = place.0.join("link");
    std::os::unix::fs::symlink(&theirs, &link).unwrap();
    for above in [&theirs, &link] {
        let mut command = Command::new(root().join("setup.sh"));
        command
            .args(["--builtin", "--no-demo", "--prefix"])
            .arg(above.join("p"))
            .args(["--binary", ACC])
            .args(as_whom());
        run::run(&mut command, SETUP).error(1).says(&[
            "theirs` belongs to user 65534",
            "could replace",
            "chown 0",
        ]);
    }
    assert!(!theirs.join("p").exists());
}

#[test]
fn setup_refuses_what_it_does_not_know() {
    let setup = |arguments: &[&str]| {
        run::run(
            Command::new(root().join("setup.sh")).args(arguments),
            COMMAND,
        )
    };
    let wrong = |arguments: &[&str], said: &str| {
        let done = setup(arguments).code(2);
        let last = done.err.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("error: ") && last.contains(said),
            "{done:?}"
        );
    };
    wrong(&["--bulitin"], "`--bulitin`");
    wrong(&["--port"], "--port");
    wrong(&["--port", "eighty"], "`eighty`");
    wrong(&["--port", "0"], "`0`");
    wrong(&["--port", "65536"], "`65536`");
    wrong(&["--port", "20500"], "20000-29999");
    wrong(&["--purge-data"], "--purge-data");
    setup(&["--help"]).ok().says(&["--uninstall"]);
    // No Rust toolchain: one clear line says how to get it.
    let place = Place::new();
    let mut bare = Command::new(root().join("setup.sh"));
    bare.args(["--builtin", "--prefix"])
        .arg(place.0.join("p"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", &place.0)
        .env("CARGO_HOME", &place.0);
    if need::find("cargo").is_some_and(|p| !p.starts_with("/usr/bin")) {
        run::run(&mut bare, COMMAND)
            .error(1)
            .says(&["no Rust toolchain", "https://sh.rustup.rs"]);
    }
}
