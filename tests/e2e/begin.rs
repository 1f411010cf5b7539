//! How an instance starts: it inherits nothing from the user who booted acc, and nothing that
//! another instance does to a start delays others.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use crate::support::fixture::{COMMAND, SOON};
use crate::support::wait::holds;
use crate::support::{Combination, Fixture, need, processes, run, wait_until};

/// The rest of the line that begins with this text, in a file of `/proc/PID`.
fn line(pid: i32, file: &str, begin: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let rest = text.lines().find_map(|line| line.strip_prefix(begin));
    rest.unwrap_or_else(|| panic!("no {begin:?} in {text}"))
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

fn set(pid: i32, key: &str) -> u64 {
    u64::from_str_radix(&line(pid, "status", key), 16).unwrap()
}

/// Boots acc from a shell whose settings (signals, limits, environment) a child would inherit.
fn boot_from_an_odd_shell(fixture: &Fixture) {
    let script =
        r#"ulimit -Sn 1000; trap "" HUP USR1; exec 9</etc/hosts; exec nice -n 5 "$0" "$@""#;
    let inner = fixture.command(&["boot"]);
    let mut command = Command::new("env");
    command
        .args(["--block-signal=TERM,USR1,CHLD", "sh", "-c", script])
        .arg(inner.get_program())
        .args(inner.get_args());
    command
        .env_clear()
        .envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir(&fixture.dir);
    run::run(&mut command, COMMAND).ok();
}

/// What must be true of every instance, under every supervisor.
fn is_clean(fixture: &Fixture, name: &str, root: bool) {
    let pid = fixture.pid(name);
    assert_eq!(line(pid, "status", "NoNewPrivs:"), "1");
    for key in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:", "SigBlk:"] {
        assert_eq!(set(pid, key), 0, "{key} {:?}", fixture.combination);
    }
    // The demo application ignores SIGPIPE itself.
    assert_eq!(
        set(pid, "SigIgn:") & !(1 << (13 - 1)),
        0,
        "{:?}",
        fixture.combination
    );
    assert_eq!(
        line(pid, "limits", "Max open files").split(' ').next(),
        Some("1000"),
        "{:?}",
        fixture.combination
    );
    assert!(line(pid, "limits", "Max core file size").starts_with("0 0"));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let field = |n: usize| {
        stat.rsplit(") ")
            .next()
            .unwrap()
            .split(' ')
            .nth(n - 3)
            .unwrap()
            .parse::<i32>()
            .unwrap()
    };
    assert_eq!((field(5), field(6)), (pid, pid), "group and session");
    let open = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|e| fs::read_link(e.unwrap().path()).unwrap_or_default());
    let open: Vec<_> = open.collect();
    assert!(!open.iter().any(|to| to.ends_with("hosts")), "{open:?}");
    let oom = |pid: i32| {
        fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))
            .unwrap()
            .trim()
            .parse::<i32>()
            .unwrap()
    };
    let own = oom(i32::try_from(std::process::id()).unwrap());
    assert_eq!(oom(pid), (own + 200).min(1000));
    if root {
        assert_eq!(set(pid, "CapBnd:"), 0);
        assert_eq!(field(19), 0, "nice");
    }
}

pub fn an_instance_begins_without_marks_and_rights(combination: Combination) {
    let Some(fixture) = Fixture::unbooted(combination, |s| s.idle = "60s") else {
        return;
    };
    boot_from_an_odd_shell(&fixture);
    fixture.create("shop", "tester");
    is_clean(&fixture, "shop", nix::unistd::geteuid().is_root());
    assert_eq!(line(fixture.pid("shop"), "status", "Umask:"), "0022");
    // No signal is blocked in acc's own processes either: a process with blocked signals could not
    // be ended.
    for seen in processes::of(&fixture.dir)
        .iter()
        .filter(|seen| seen.pid != fixture.pid("shop"))
    {
        assert_eq!(
            set(seen.pid, "SigBlk:") & (1 << (15 - 1)),
            0,
            "SIGTERM is blocked in {} ({combination:?})",
            seen.command
        );
    }
    fixture.acc(&["halt"]).ok();
    fixture.assert_nothing_runs();
}

pub fn an_instance_of_another_user_begins_so_too(combination: Combination) {
    if !need::root("to run instances as another user") {
        return;
    }
    let Some(mut fixture) = Fixture::unbooted(combination, |s| {
        (s.top, s.idle) = ("user = \"nobody\"".into(), "60s")
    }) else {
        return;
    };
    let theirs = fixture.dir.join("acc");
    fs::copy(&fixture.acc, &theirs).unwrap();
    fixture.acc = theirs;
    boot_from_an_odd_shell(&fixture);
    for (name, model) in [("shop", "tester"), ("wiki", "hello-fd")] {
        fixture.create(name, model);
        is_clean(&fixture, name, true);
        assert_eq!(
            fs::metadata(format!("/proc/{}", fixture.pid(name)))
                .unwrap()
                .uid(),
            65_534
        );
        assert_eq!(line(fixture.pid(name), "status", "Umask:"), "0007");
        fixture.get(name, "/").status(200);
    }
}

pub fn its_limits_are_those_of_the_config(combination: Combination) {
    let limits = "[limits]\nopen_files = 333\nfile_size = \"1GiB\"\ncore = \"1MiB\"\n";
    let Some(fixture) = Fixture::with(combination, |s| (s.rules, s.idle) = (limits.into(), "60s"))
    else {
        return;
    };
    fixture.create("shop", "tester");
    let pid = fixture.pid("shop");
    assert!(line(pid, "limits", "Max open files").starts_with("333 333 "));
    assert!(line(pid, "limits", "Max file size").starts_with("1073741824 1073741824 "));
    assert!(line(pid, "limits", "Max core file size").starts_with("1048576 1048576 "));
}

/// The user of the instance sends SIGSTOP to the process that is about to become the instance.
#[cfg(debug_assertions)]
pub fn a_start_that_is_stopped_fails_and_delays_no_other(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| (s.idle, s.wake_timeout) = ("60s", "8s"))
    else {
        return;
    };
    for name in ["shop", "blog"] {
        fixture.create(name, "tester");
        fixture.acc(&["stop", name]).ok();
    }
    let fault = fixture.run().join("fault");
    fs::write(&fault, "stop launch\n").unwrap();
    let mut start = fixture.command(&["start", "shop"]);
    let starting = std::thread::spawn(move || run::run(&mut start, COMMAND));
    wait_until("the launcher to be asked to stop", SOON, || {
        let left = fs::read_to_string(&fault).unwrap();
        holds(left.is_empty(), left)
    });
    fixture.get("blog", "/").status(200);
    fixture.acc(&["monitor"]);
    // supervisord does not wait for a launcher: with supervisord this is a start that takes too
    // long.
    let builtin = combination.supervisor == "builtin";
    let done = starting.join().unwrap().error(if builtin { 1 } else { 5 });
    if builtin {
        done.says(&["stopped by a signal before it had become its program"]);
    }
    fixture.acc(&["start", "shop"]).ok();
    fixture.get("shop", "/").status(200);
}

#[cfg(not(debug_assertions))]
pub fn a_start_that_is_stopped_fails_and_delays_no_other(_: Combination) {}
