//! A host that lacks something: each time one error that names what is missing, and nothing is left
//! half-started.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use crate::support::fixture::COMMAND;
use crate::support::{Combination, Fixture, Settings, need, run};

/// Runs `acc boot` without `program`: in a mount namespace of its own, with an empty file mounted
/// over the program.
fn boot_without(program: &str) {
    if !need::root("a mount namespace in which a program is missing") {
        return;
    }
    let Some(fixture) = Fixture::unbooted(Combination::REAL, |_| {}) else {
        return;
    };
    let mut hide = String::from("set -e; ");
    for dir in [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ] {
        hide += &format!(
            "if [ -e {dir}/{program} ]; then mount --bind /dev/null {dir}/{program}; fi; "
        );
    }
    hide += "exec \"$@\"";
    let boot = fixture.command(&["boot"]);
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &hide,
            "sh",
        ])
        .arg(boot.get_program())
        .args(boot.get_args());
    if !run::run(Command::new("unshare").args(["--mount", "true"]), COMMAND)
        .err
        .is_empty()
    {
        need::skipped("mount namespaces are not allowed here");
        return;
    }
    run::run(&mut command, COMMAND)
        .error(1)
        .says(&[program, "hint:"]);
    fixture.assert_nothing_runs();
    fixture.acc(&["boot"]).ok();
}

#[test]
fn nginx_is_missing() {
    boot_without("nginx");
}

#[test]
fn supervisord_is_missing() {
    boot_without("supervisord");
}

#[test]
fn the_port_is_taken_by_another_program() {
    for combination in Combination::ALL {
        let Some(fixture) = Fixture::unbooted(combination, |_| {}) else {
            continue;
        };
        let thief = TcpListener::bind(fixture.address()).unwrap();
        fixture
            .acc(&["boot"])
            .error(1)
            .says(&[&fixture.address().port().to_string()]);
        drop(thief);
        fixture.acc(&["boot"]).ok();
        fixture.create("shop", "tester");
        fixture.get("shop", "/").status(200);
    }
}

#[test]
fn the_run_folder_is_too_long_for_a_socket() {
    let Some(fixture) = Fixture::unbooted(Combination::BUILTIN, |_| {}) else {
        return;
    };
    let text = fs::read_to_string(fixture.config()).unwrap();
    let long = format!("{}/{}", fixture.dir.display(), "r".repeat(100));
    fs::write(
        fixture.config(),
        text.replace(&format!("{}/run", fixture.dir.display()), &long),
    )
    .unwrap();
    fixture
        .acc(&["boot"])
        .code(2)
        .says(&["run: too long for the unix sockets in it"]);
    fixture.configure(&Settings::default());
    fixture.acc(&["boot"]).ok();
}

#[test]
fn home_and_run_may_not_be_written() {
    if !need::root("to run acc as somebody else") {
        return;
    }
    let Some(fixture) = Fixture::unbooted(Combination::BUILTIN, |_| {}) else {
        return;
    };
    let theirs = fixture.dir.join("acc");
    fs::copy(&fixture.acc, &theirs).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let command = fixture.command(arguments);
        let mut other = Command::new("setpriv");
        other
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&theirs)
            .args(command.get_args())
            .current_dir("/");
        run::run(&mut other, COMMAND)
    };
    as_nobody(&["boot"])
        .error(1)
        .says(&[fixture.dir.to_str().unwrap(), "ermission denied"]);
    // With a working home that belongs to root, another user's verbs are refused and change
    // nothing.
    fixture.acc(&["boot"]).ok();
    fixture.create("shop", "tester");
    as_nobody(&["stop", "shop"]).error(1);
    assert_eq!(fixture.phase("shop"), "awake");
}

#[test]
fn a_config_that_cannot_be_read() {
    let Some(fixture) = Fixture::unbooted(Combination::BUILTIN, |_| {}) else {
        return;
    };
    fs::write(fixture.config(), "home = \n").unwrap();
    fixture
        .acc(&["boot"])
        .code(2)
        .says(&["acc.toml`\n", "not TOML: ", "(line 1, column 8)"]);
    fs::remove_file(fixture.config()).unwrap();
    fixture.acc(&["boot"]).code(2).says(&["acc.toml"]);
    fs::create_dir(fixture.config()).unwrap();
    fixture.acc(&["boot"]).code(2).says(&["acc.toml"]);
    fs::remove_dir(fixture.config()).unwrap();
}
