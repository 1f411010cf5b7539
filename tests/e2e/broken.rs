//! A host that lacks something: each time one error that names it, and nothing half-started is
//! left.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use crate::support::bed::COMMAND;
use crate::support::{Bed, Combination, Settings, need, run};

/// Runs `acc boot` where `program` is not there: in a mount namespace of its own, with an empty
/// file over it.
fn boot_without(program: &str) {
    if !need::root("a mount namespace in which a program is missing") {
        return;
    }
    let Some(bed) = Bed::unbooted(Combination::REAL, |_| {}) else {
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
    let boot = bed.command(&["boot"]);
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
    bed.assert_nothing_runs();
    bed.acc(&["boot"]).ok();
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
        let Some(bed) = Bed::unbooted(combination, |_| {}) else {
            continue;
        };
        let thief = TcpListener::bind(bed.address()).unwrap();
        bed.acc(&["boot"])
            .error(1)
            .says(&[&bed.address().port().to_string()]);
        drop(thief);
        bed.acc(&["boot"]).ok();
        bed.create("zebra", "tester");
        bed.get("zebra", "/").status(200);
    }
}

#[test]
fn the_run_folder_is_too_long_for_a_socket() {
    let Some(bed) = Bed::unbooted(Combination::BUILTIN, |_| {}) else {
        return;
    };
    let text = fs::read_to_string(bed.config()).unwrap();
    let long = format!("{}/{}", bed.dir.display(), "r".repeat(100));
    fs::write(
        bed.config(),
        text.replace(&format!("{}/run", bed.dir.display()), &long),
    )
    .unwrap();
    bed.acc(&["boot"])
        .code(2)
        .says(&["run: too long for the unix sockets in it"]);
    bed.configure(&Settings::default());
    bed.acc(&["boot"]).ok();
}

#[test]
fn home_and_run_may_not_be_written() {
    if !need::root("to run acc as somebody else") {
        return;
    }
    let Some(bed) = Bed::unbooted(Combination::BUILTIN, |_| {}) else {
        return;
    };
    let theirs = bed.dir.join("acc");
    fs::copy(&bed.acc, &theirs).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let command = bed.command(arguments);
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
        .says(&[bed.dir.to_str().unwrap(), "ermission denied"]);
    // With a home of root's that works, another user's verbs are refused and change nothing.
    bed.acc(&["boot"]).ok();
    bed.create("zebra", "tester");
    let done = as_nobody(&["stop", "zebra"]);
    assert_ne!(done.code, Some(0), "{done:?}");
    assert!(!done.err.contains("panicked"), "{done:?}");
    assert_eq!(bed.phase("zebra"), "awake");
}

#[test]
fn a_config_that_cannot_be_read() {
    let Some(bed) = Bed::unbooted(Combination::BUILTIN, |_| {}) else {
        return;
    };
    fs::write(bed.config(), "home = \n").unwrap();
    bed.acc(&["boot"])
        .code(2)
        .says(&["acc.toml`\n", "not TOML: ", "(line 1, column 8)"]);
    fs::remove_file(bed.config()).unwrap();
    bed.acc(&["boot"]).code(2).says(&["acc.toml"]);
    fs::create_dir(bed.config()).unwrap();
    bed.acc(&["boot"]).code(2).says(&["acc.toml"]);
    fs::remove_dir(bed.config()).unwrap();
}
