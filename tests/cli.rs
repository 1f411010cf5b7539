//! The command line from outside: its help, its tables and its JSON as snapshots, and how the real
//! binary ends.
//!
//! `UPDATE_SNAPSHOTS=1 cargo nextest run --test cli` rewrites the snapshots in `tests/cli/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, also in its helpers"
)]

#[path = "cli/samples.rs"]
mod samples;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use acc::domain::instance::{DesiredState, RunnerKind};
use acc::domain::lifecycle::Phase;
use acc::domain::model::{ListenKind, Model, Param, Ready};
use acc::domain::operation::{OperationKind, OperationState, OperationStep};
use acc::domain::time::WallTime;
use acc::interface::cli::{show, show_proof};
use acc::prove::report::{Report, RequestFault, Spread, Streams, Strikes, Tally};
use acc::service::instance::wake_timing::Phases;
use acc::service::outcome::{
    EventView, InstanceChange, InstanceView, ListenView, ModelView, MonitorAction, MonitorLine,
    MonitorRun, OperationView, Outcome,
};
use samples::{broken_proof, events, instances, models, operations, proof};

/// 2026-01-02T03:04:05Z.
const NOW: WallTime = WallTime(1_767_323_045_000);

fn snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cli")
        .join(name);
    if std::env::vars_os().any(|(key, _)| key == "UPDATE_SNAPSHOTS") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("`{}`: {e}; UPDATE_SNAPSHOTS=1 writes it", path.display()));
    assert_eq!(
        text,
        expected,
        "`{}` differs; UPDATE_SNAPSHOTS=1 rewrites it",
        path.display()
    );
}

/// The real binary, without the caller's environment, in a folder of its own.
fn acc(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acc"));
    command
        .env_clear()
        .env("COLUMNS", "100")
        .env("ACC_HOME", dir.join("home"))
        .env("ACC_RUN", dir.join("run"));
    command.current_dir(dir).stdin(Stdio::null());
    command
}

fn run(words: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    acc(dir.path()).args(words).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

const COMMANDS: &[&str] = &[
    "boot",
    "reload",
    "halt",
    "create",
    "start",
    "stop",
    "restart",
    "enable",
    "disable",
    "pin",
    "reset",
    "destroy",
    "purge",
    "list",
    "info",
    "models",
    "logs",
    "events",
    "monitor",
    "prove",
    "server",
    "config",
    "config check",
    "config show",
    "doctor",
    "completions",
    "man",
];

#[test]
fn help_of_every_command() {
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    snapshot("help/acc.txt", text(&help.stdout));
    for command in COMMANDS {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = run(&words);
        assert_eq!(
            (help.status.code(), text(&help.stderr)),
            (Some(0), ""),
            "{command}"
        );
        assert!(
            text(&help.stdout).contains("\nExample:\n  acc "),
            "{command} has no example"
        );
        snapshot(
            &format!("help/{}.txt", command.replace(' ', "-")),
            text(&help.stdout),
        );
    }
}

#[test]
fn every_command_is_in_the_help_snapshots() {
    use clap::CommandFactory;
    let command = acc::interface::cli::args::Cli::command();
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        assert!(COMMANDS.contains(&sub.get_name()), "{}", sub.get_name());
    }
}

#[test]
fn tables() {
    snapshot("list.txt", &show::list(&instances(), NOW, false));
    snapshot("list-colour.txt", &show::list(&instances(), NOW, true));
    let infos: Vec<String> = instances()
        .iter()
        .zip(operations())
        .map(|(i, o)| show::info(i, NOW) + &show::operation(o.as_ref(), NOW))
        .collect();
    snapshot("info.txt", &infos.join("\n"));
    snapshot("events.txt", &show::events(&events(), NOW, false));
    let views: Vec<ModelView> = models().iter().map(Into::into).collect();
    snapshot("models.txt", &show::models(&views, false));
    let each: Vec<String> = views.iter().map(|m| show::model(m, false)).collect();
    snapshot("model.txt", &each.join("\n"));
    let line = |instance: &str, action, why: &str| MonitorLine {
        instance: instance.to_owned(),
        action,
        why: why.to_owned(),
    };
    let pass = [
        line("shop", MonitorAction::Keep, "2 requests in flight"),
        line("wiki", MonitorAction::Sleep, "quiet for 16 min"),
    ];
    snapshot("monitor.txt", &show::monitor(&pass, false));
    snapshot(
        "prove.txt",
        &format!(
            "{}\n{}",
            show_proof::proof(&proof()),
            show_proof::proof(&broken_proof())
        ),
    );
}

/// Work that grows with the square of the count would take minutes here.
#[test]
fn a_table_of_ten_thousand() {
    let shop = instances().remove(0);
    let many: Vec<InstanceView> = (0..10_000)
        .map(|id| InstanceView { id, ..shop.clone() })
        .collect();
    assert_eq!(show::list(&many, NOW, true).lines().count(), 10_001);
}

#[test]
fn json_of_instances_and_events() {
    snapshot(
        "list.json",
        &(serde_json::to_string_pretty(&instances()).unwrap() + "\n"),
    );
    snapshot(
        "events.json",
        &(serde_json::to_string_pretty(&events()).unwrap() + "\n"),
    );
}

#[test]
fn sentences() {
    let mut text = String::new();
    for did in [
        InstanceChange::Created,
        InstanceChange::Started,
        InstanceChange::Stopped,
        InstanceChange::Restarted,
        InstanceChange::Changed,
        InstanceChange::Reset,
        InstanceChange::Destroyed,
        InstanceChange::Purged,
    ] {
        for already in [false, true] {
            let instance = Box::new(instances().remove(0));
            let outcome = Outcome::Instance {
                did,
                already,
                took_ms: 1234,
                instance,
            };
            text.push_str(&format!("{}\n", show::sentence(&outcome)));
        }
    }
    let mut pinned = Box::new(instances().remove(0));
    pinned.desired = DesiredState::Up;
    let stopped = Outcome::Instance {
        did: InstanceChange::Stopped,
        already: false,
        took_ms: 1234,
        instance: pinned,
    };
    text.push_str(&format!("{}\n", show::sentence(&stopped)));
    for outcome in [
        Outcome::Pong {
            pid: 7,
            version: "0.1.0".to_owned(),
            outdated: false,
        },
        Outcome::Monitor(MonitorRun::default()),
        Outcome::Busy,
        Outcome::Quiesced { stopped: 3 },
    ] {
        text.push_str(&format!("{}\n", show::sentence(&outcome)));
    }
    snapshot("sentences.txt", &text);
}

#[test]
fn wrong_usage_is_exit_2_and_says_so_on_standard_error() {
    for words in [
        &[] as &[&str],
        &["no-such-command"],
        &["start"],
        &["create"],
        &["create", "a", "--model", "m", "--set", "novalue"],
        &["create", "a", "--model", "m", "--idle", "soon"],
        &["create", "a", "--model", "m", "--idle", "0s"],
        &["create", "a", "--model", "m", "--desired", "maybe"],
        &["list", "--phase", "sleeping"],
        &["list", "--limit", "-1"],
        &["events", "--lines", "0"],
        &["logs"],
        &["info", "a", "b"],
        &["list", "-q", "-v"],
        &["config"],
        &["completions", "tcsh"],
    ] {
        let ran = run(words);
        assert_eq!(ran.status.code(), Some(2), "{words:?}");
        assert_eq!(text(&ran.stdout), "", "{words:?}");
        assert!(!ran.stderr.is_empty(), "{words:?}");
    }
}

#[test]
fn the_version_is_data() {
    let ran = run(&["-V"]);
    assert_eq!(
        text(&ran.stdout),
        format!("acc {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(ran.status.code(), Some(0));
}

#[test]
fn a_config_that_is_not_there_is_exit_2() {
    let ran = run(&["list", "--config", "no-such-file.toml"]);
    assert_eq!((ran.status.code(), text(&ran.stdout)), (Some(2), ""));
    assert!(
        text(&ran.stderr).starts_with("error: ") && text(&ran.stderr).contains("\nhint: "),
        "{}",
        text(&ran.stderr)
    );
    let ran = run(&["list", "--json", "--config", "no-such-file.toml"]);
    let error: serde_json::Value = serde_json::from_slice(&ran.stderr).unwrap();
    assert_eq!(
        (&error["error"]["kind"], ran.stdout.len()),
        (&serde_json::json!("invalid"), 0)
    );
}

#[test]
fn a_reader_that_left_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    for words in [
        &["man"] as &[&str],
        &["completions", "bash"],
        &["--help"],
        &["config", "show"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = acc(dir.path())
            .args(words)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!(
            (ran.status.code(), text(&ran.stderr)),
            (Some(0), ""),
            "{words:?}"
        );
    }
}

#[test]
fn a_full_disk_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let ran = acc(dir.path())
        .arg("man")
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert!(
        text(&ran.stderr).starts_with("error: could not write the output: "),
        "{}",
        text(&ran.stderr)
    );
}

#[test]
fn the_doctor_looks_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ran = acc(dir.path()).args(["doctor", "--json"]).output().unwrap();
    assert!(
        matches!(ran.status.code(), Some(0 | 1)),
        "{}",
        text(&ran.stderr)
    );
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&ran.stdout).unwrap();
    let bad = findings.iter().any(|f| f["level"] == "bad");
    assert_eq!(ran.status.code() == Some(1), bad);
    assert!(findings.len() > 10, "{findings:?}");
    assert!(
        findings
            .iter()
            .all(|f| f["level"] == "ok" || f["hint"] != ""),
        "each problem has its way out: {findings:?}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
