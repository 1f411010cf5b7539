//! What `--json` prints: docs/json.md lists each field of each command with its type, and the exit
//! code of each kind of error.
//!
//! A field that is new, missing, renamed or of another type fails here until the document describes
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use acc::domain::operation::{OperationKind, OperationState, OperationStep};
use acc::prove::report::{Report, RequestFault, Spread, Streams, Strikes};
use acc::service::outcome::{OperationView, Outcome, Reloaded};
use clap::CommandFactory;
use serde_json::Value;

use crate::support::{Combination, Fixture, wait_until};

/// Commands that print no JSON of their own.
const WITHOUT_JSON: [&str; 3] = ["completions", "man", "server"];

/// The types of the values at each path.
#[derive(Default)]
struct Shape {
    /// By path: the types, and how often the path occurred.
    fields: BTreeMap<String, (BTreeSet<&'static str>, usize)>,
    /// By path of an object: how often the object occurred.
    objects: BTreeMap<String, usize>,
}

impl Shape {
    fn add(&mut self, path: &str, value: &Value, instances: &mut Vec<Value>) {
        let is_instance = value.get("idle_timeout_s").is_some();
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) if is_instance && path != "." => "instance",
            Value::Object(_) => "object",
        };
        let (kinds, seen) = self.fields.entry(path.to_owned()).or_default();
        kinds.insert(kind);
        *seen += 1;
        match value {
            Value::Object(_) if kind == "instance" => instances.push(value.clone()),
            Value::Object(fields) => {
                *self.objects.entry(path.to_owned()).or_default() += 1;
                for (key, value) in fields {
                    // The names of parameters come from the model.
                    let key = if path.ends_with("params") { "*" } else { key };
                    let path = if path == "." {
                        key.to_owned()
                    } else {
                        format!("{path}.{key}")
                    };
                    self.add(&path, value, instances);
                }
            }
            Value::Array(items) => {
                for item in items {
                    let path = if path == "." { "" } else { path };
                    self.add(&format!("{path}[]"), item, instances);
                }
            }
            _ => {}
        }
    }

    /// A row for each path: `| path | types |`.
    fn rows(&self) -> Vec<String> {
        let rows = self.fields.iter().map(|(path, (kinds, seen))| {
            let parent = path.rsplit_once('.').map_or(".", |(parent, _)| parent);
            let mut kinds: Vec<&str> = kinds.iter().copied().collect();
            let inside = !path.ends_with("[]") && !path.ends_with('*');
            if inside && self.objects.get(parent).is_some_and(|all| seen < all) {
                kinds.push("absent");
            }
            let path = if path.is_empty() { "the value" } else { path };
            format!("| `{path}` | {} |", kinds.join(", "))
        });
        rows.collect()
    }
}

/// A section of the document: its rows without their last column, which says what a field means.
fn documented(text: &str, heading: &str) -> Vec<String> {
    let section = text
        .split("\n## ")
        .find_map(|s| s.strip_prefix(&format!("{heading}\n")))
        .unwrap_or_else(|| panic!("docs/json.md has no section `{heading}`"));
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        assert!(cells.len() == 3 && cells[2].len() > 3, "{heading}: {row}");
        format!("{} | {} |", cells[0], cells[1])
    })
    .collect()
}

/// Everything that was printed, by the section of the document that describes it.
struct Seen {
    fixture: Fixture,
    sections: BTreeMap<&'static str, Shape>,
    commands: BTreeSet<String>,
    instances: Vec<Value>,
}

impl Seen {
    /// Runs a command that ends with this exit code, and adds each value that it prints to
    /// `section`.
    #[track_caller]
    fn run(&mut self, section: &'static str, code: i32, arguments: &[&str]) -> Vec<Value> {
        let done = self
            .fixture
            .acc(&[arguments, &["--json"]].concat())
            .code(code);
        let values: Vec<Value> = serde_json::Deserializer::from_str(&done.out)
            .into_iter()
            .map(|v| v.unwrap_or_else(|e| panic!("{e}: {done:?}")))
            .collect();
        assert!(!values.is_empty(), "{done:?}");
        self.commands.insert(arguments[0].to_owned());
        for value in &values {
            self.add(section, value);
        }
        values
    }

    fn add(&mut self, section: &'static str, value: &Value) {
        let shape = self.sections.entry(section).or_default();
        // A list of instances, or one: described once.
        let path = if value.get("idle_timeout_s").is_some() {
            ""
        } else {
            "."
        };
        shape.add(path, value, &mut self.instances);
    }

    /// Adds values that do not occur in a run of a few seconds.
    fn add_rare(&mut self) {
        let report = Report {
            wake: Some(Spread::default()),
            wake_from_sleep: Some(Spread::default()),
            streams: Some(Streams::default()),
            strikes: Some(Strikes::default()),
            verbs_failed: vec!["stop: why".to_owned()],
            faults: vec![RequestFault {
                id: "1".to_owned(),
                kind: "GET",
                verdict: "lost",
                at_s: 0.5,
                took_s: 0.5,
                what: "no answer".to_owned(),
            }],
            ..Report::default()
        };
        for report in [report, Report::default()] {
            self.add("`prove`", &serde_json::to_value(report).unwrap());
        }
        let running = OperationView {
            kind: OperationKind::Purge,
            state: OperationState::Running,
            step: OperationStep::RemoveFiles,
            started_at: "2026-01-02T03:00:00Z".to_owned(),
            ended_at: None,
            error: None,
            last_try_at: Some("2026-01-02T03:04:00Z".to_owned()),
            last_error: Some("why".to_owned()),
            asked_by: "control_socket".to_owned(),
        };
        let of = |i: &&Value| i.get("operation").is_some();
        let mut info = self.instances.iter().find(of).unwrap().clone();
        info["operation"] = serde_json::to_value(running).unwrap();
        self.instances.push(info);
        let reloaded = Outcome::Reloaded(Reloaded {
            troubles: vec!["why".to_owned()],
            ..Reloaded::default()
        });
        for (section, outcome) in [("`reload`", reloaded), ("`monitor`", Outcome::Busy)] {
            self.add(section, &serde_json::to_value(outcome).unwrap());
        }
    }
}

const VERBS: &str =
    "`create`, `start`, `stop`, `restart`, `enable`, `disable`, `pin`, `reset`, `destroy`, `purge`";
/// An application that prints a line, and ends before it listens.
const DIES: &str = r#"listen = "unix"
command = ["/bin/sh", "-c", "echo no luck today; exit 7"]
"#;
const SILENT: &str = r#"listen = "unix"
command = ["{{ acc }}", "demo-app", "--socket", "{{ socket }}", "--never-listen"]
"#;
const SECRET: &str = r#"listen = "unix"
command = ["{{ acc }}", "demo-app", "--socket", "{{ socket }}"]
[params.key]
description = "a secret"
required = true
secret = true
"#;

/// Instances in every state whose fields differ, and what commands say about them.
fn verbs(seen: &mut Seen) {
    seen.fixture.model("dies", DIES);
    let full = [
        "create",
        "shop",
        "--model",
        "tester",
        "--owner",
        "ann@example.org",
        "--set",
        "start_delay=1ms",
    ];
    seen.run(VERBS, 0, &full);
    seen.run(
        VERBS,
        0,
        &["create", "blog", "--model", "tester-tcp", "--asleep"],
    );
    seen.run(VERBS, 0, &["create", "wiki", "--model", "dies", "--asleep"]);
    seen.fixture.get("shop", "/").status(200);
    for _ in 0..2 {
        seen.fixture.acc(&["start", "wiki", "--json"]).code(1);
    }
    wait_until("the use is known", crate::support::fixture::SOON, || {
        let info = seen.fixture.info("shop");
        crate::support::holds(info["last_active_at"].is_string(), info)
    });
    // An operation that fails.
    seen.fixture.acc(&["destroy", "shop", "--json"]).code(4);
    for name in ["shop", "blog", "wiki"] {
        seen.run("`info`", 0, &["info", name]);
    }
    seen.run("`list`", 0, &["list"]);
    seen.run("`events`", 0, &["events"]);
    seen.run("`logs`", 0, &["logs", "shop"]);
    seen.run("`logs`", 0, &["logs", "shop", "--access"]);
    seen.run("`monitor`", 0, &["monitor", "--dry-run"]);
    for verb in [
        "stop", "start", "restart", "pin", "disable", "enable", "reset",
    ] {
        seen.run(VERBS, 0, &[verb, "shop"]);
    }
    seen.run(VERBS, 0, &["destroy", "--force", "shop"]);
    seen.run(VERBS, 0, &["purge", "shop"]);
}

fn host_commands(seen: &mut Seen) {
    seen.run("`boot`", 0, &["boot"]);
    seen.fixture.model("secret", SECRET);
    seen.run("`models`", 0, &["models"]);
    let one = seen.fixture.json(&["models", "tester"]);
    seen.add("`models`", &Value::Array(vec![one]));
    seen.run("`config check`", 0, &["config", "check"]);
    let shown = seen.fixture.json(&["config", "show"]);
    let text = seen.fixture.acc(&["config", "show"]).ok().out;
    let read: Value = toml::from_str(&text).unwrap();
    assert_eq!(shown, read, "the settings are those of a config file");
    seen.fixture.acc(&["doctor"]);
    let done = seen.fixture.acc(&["doctor", "--json"]);
    seen.commands.insert("doctor".to_owned());
    seen.add("`doctor`", &serde_json::from_str(&done.out).unwrap());
    seen.run("`prove`", 0, &["prove", "--cycles", "1", "--clients", "2"]);
    seen.add_rare();
    // One setting that changes, and one that waits for a restart.
    let config = fs::read_to_string(seen.fixture.config()).unwrap();
    let other = config
        .replace("max_waiting = 1000", "max_waiting = 999")
        .replace(
            "domain = \"apps.localhost\"",
            "domain = \"other.localhost\"",
        );
    fs::write(seen.fixture.config(), other).unwrap();
    seen.run("`reload`", 0, &["reload"]);
    let warned = seen.fixture.acc(&["boot", "--json"]).ok();
    let warning: Value = serde_json::from_str(&warned.err).unwrap();
    assert!(warning["warning"].is_string(), "{warning}");
    assert_eq!(warning.as_object().unwrap().len(), 1, "{warning}");
    seen.add("`boot`", &serde_json::from_str(&warned.out).unwrap());
    fs::write(seen.fixture.config(), config).unwrap();
    seen.run("`halt`", 0, &["halt"]);
    seen.run("`halt`", 0, &["halt"]);
    seen.run("`boot`", 0, &["boot"]);
}

#[test]
fn every_field_is_documented() {
    let Some(fixture) = Fixture::with(Combination::BUILTIN, |s| s.idle = "60s") else {
        return;
    };
    let mut seen = Seen {
        fixture,
        sections: BTreeMap::new(),
        commands: BTreeSet::new(),
        instances: Vec::new(),
    };
    verbs(&mut seen);
    host_commands(&mut seen);
    let mut instance = Shape::default();
    for value in std::mem::take(&mut seen.instances) {
        instance.add(".", &value, &mut Vec::new());
    }
    seen.sections.insert("An instance", instance);

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let text = fs::read_to_string(path).unwrap();
    let mut wrong = String::new();
    for (heading, shape) in &seen.sections {
        let rows: Vec<String> = shape
            .rows()
            .into_iter()
            .filter(|row| !row.starts_with("| `.` "))
            .collect();
        let listed = documented(&text, heading);
        if listed != rows {
            wrong += &format!("\n## {heading}\n{}\n", rows.join("\n"));
        }
    }
    assert!(wrong.is_empty(), "docs/json.md should say:\n{wrong}");
    let command = acc::interface::cli::args::Cli::command();
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        let name = sub.get_name();
        assert!(
            seen.commands.contains(name) || WITHOUT_JSON.contains(&name),
            "`{name}` is not in this test"
        );
    }
}

#[test]
fn every_kind_of_error_has_its_exit_code() {
    let Some(fixture) = Fixture::with(Combination::BUILTIN, |s| {
        (s.idle, s.wake_timeout) = ("60s", "1s")
    }) else {
        return;
    };
    fixture.model("dies", DIES);
    fixture.model("silent", SILENT);
    fixture.create("shop", "tester");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let text = fs::read_to_string(path).unwrap();
    let documented = documented(&text, "Errors and exit codes");
    let mut expected = vec!["| `0` | none |".to_owned()];
    for (kind, code, arguments) in [
        ("failed", 1, &["create", "blog", "--model", "dies"][..]),
        ("invalid", 2, &["create", "no name", "--model", "tester"]),
        ("not_found", 3, &["start", "wiki"]),
        ("denied", 4, &["destroy", "shop"]),
        ("timed_out", 5, &["create", "blog", "--model", "silent"]),
    ] {
        let done = fixture.acc(&[arguments, &["--json"]].concat()).code(code);
        assert_eq!(done.out, "", "an error is not among the data");
        let error: Value = serde_json::from_str(&done.err).unwrap();
        assert_eq!(error["error"]["kind"], kind, "{error}");
        let keys: Vec<&String> = error["error"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["hint", "kind", "message"], "{error}");
        expected.push(format!("| `{code}` | `{kind}` |"));
    }
    assert_eq!(documented, expected);
}
