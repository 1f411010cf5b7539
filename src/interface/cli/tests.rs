//! Whole commands with an engine that only notes what it is asked: what reaches it, what is printed
//! where, how it exits.

use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;

use super::output::testing::ui;
use super::*;
use crate::domain::lifecycle::Phase;
use crate::service::error::ErrorKind;
use crate::service::handle;
use crate::service::handler::{EntryPoint, RequestCaller};
use crate::service::outcome::{
    BootReport, HaltReport, InstanceChange, InstanceView, ListenView, MonitorAction, MonitorLine,
    MonitorRun, Outcome,
};
use crate::service::reads::Reader;
use crate::service::request::Request;

/// Answers `Start` of `denied`, `slow`, `gone`, `wrong` and `broken` with the error of that name,
/// everything else well.
#[derive(Default)]
struct Fake {
    seen: Mutex<Vec<Request>>,
    pass: Vec<MonitorLine>,
    busy: bool,
    up: bool,
}

#[async_trait(?Send)]
impl Engine for Fake {
    async fn dispatch(&self, config: &Config, request: Request) -> Result<Outcome, ServiceError> {
        if request.is_read() {
            let caller = RequestCaller::own(EntryPoint::CommandLine);
            return handle(&Reader::new(config), &caller, request).await;
        }
        self.seen.lock().unwrap().push(request.clone());
        match request {
            Request::Start { instance } => start(&instance.to_string()),
            Request::Create(new) => Ok(done(
                InstanceChange::Created,
                false,
                new.name.as_deref().unwrap_or("hello"),
            )),
            Request::SetDesired { instance, .. } => {
                Ok(done(InstanceChange::Changed, false, &instance.to_string()))
            }
            Request::Monitor { .. } if self.busy => Ok(Outcome::Busy),
            Request::Monitor { .. } => Ok(Outcome::Monitor(MonitorRun {
                lines: self.pass.clone(),
            })),
            Request::Stop { instance, .. } => {
                Ok(done(InstanceChange::Stopped, true, &instance.to_string()))
            }
            other => panic!("{other:?}"),
        }
    }
    async fn boot(&self, _: &Config, _: bool) -> Result<BootReport, ServiceError> {
        let did = if self.up {
            vec![]
        } else {
            vec!["started the server".to_owned()]
        };
        Ok(BootReport {
            already: self.up,
            did,
            listen: vec!["127.0.0.1:8080".to_owned()],
            ..BootReport::default()
        })
    }
    async fn halt(&self, _: &Config) -> Result<HaltReport, ServiceError> {
        Ok(HaltReport {
            already: !self.up,
            stopped: 2,
        })
    }
    async fn run_master(&self, _: Config, _: Option<String>) -> Result<(), ServiceError> {
        Ok(())
    }
    async fn run_worker(
        &self,
        _: Config,
        _: WorkerArgs,
        reload: Reload,
    ) -> Result<(), ServiceError> {
        reload().map(|_| ())
    }
}

fn start(name: &str) -> Result<Outcome, ServiceError> {
    let kind = match name {
        "denied" => ErrorKind::Denied,
        "slow" => ErrorKind::TimedOut,
        "gone" => ErrorKind::NotFound,
        "wrong" => ErrorKind::Invalid,
        "broken" => ErrorKind::Failed,
        _ => return Ok(done(InstanceChange::Started, false, name)),
    };
    Err(ServiceError::new(
        kind,
        format!("could not start `{name}`"),
        "try again",
    ))
}

fn done(did: InstanceChange, already: bool, name: &str) -> Outcome {
    let instance = InstanceView {
        id: 1,
        name: name.to_owned(),
        model: "hello".to_owned(),
        phase: Phase::Awake,
        desired: DesiredState::Auto,
        hosts: vec![format!("{name}.apps.localhost")],
        url: format!("http://{name}.apps.localhost:8080/"),
        listen: ListenView::Unix(format!("/run/acc/sock/{name}/app.sock")),
        handed: false,
        notifies: false,
        pid: Some(7),
        owner: None,
        idle_timeout_s: 900.0,
        created_at: "2026-01-01T00:00:00Z".to_owned(),
        last_wake_at: None,
        last_active_at: None,
        wakes: 1,
        failure: None,
        retry_at: None,
        params: std::collections::BTreeMap::new(),
        dir: format!("/var/lib/acc/instances/{name}"),
    };
    Outcome::Instance {
        did,
        already,
        took_ms: 52,
        instance: Box::new(instance),
    }
}

struct Ran {
    exit: u8,
    out: String,
    err: String,
}

fn acc(engine: &Fake, words: &[&str]) -> Ran {
    // No database of a real installation is read.
    in_surroundings(
        &Env::bare(0, "/")
            .with("ACC_HOME", "/nowhere/home")
            .with("ACC_RUN", "/nowhere/run"),
        engine,
        words,
    )
}

fn acc_in(dir: &Path, engine: &Fake, words: &[&str]) -> Ran {
    in_surroundings(&Env::bare(0, dir), engine, words)
}

fn in_surroundings(env: &Env, engine: &Fake, words: &[&str]) -> Ran {
    let cli = Cli::try_parse_from([&["acc"], words].concat()).unwrap();
    let global = &cli.global;
    let style = Style {
        json: global.json,
        quiet: global.quiet,
        verbose: global.verbose,
        ..Style::default()
    };
    let (mut ui, out, err) = ui(style);
    let end = command(engine, cli, env, &mut ui);
    let exit = ui.end(end) as u8;
    Ran {
        exit,
        out: out.text(),
        err: err.text(),
    }
}

#[test]
fn every_kind_of_error_has_its_exit_code_and_two_lines() {
    for (name, exit) in [
        ("broken", 1),
        ("wrong", 2),
        ("gone", 3),
        ("denied", 4),
        ("slow", 5),
    ] {
        let ran = acc(&Fake::default(), &["start", name]);
        assert_eq!(ran.exit, exit, "{name}");
        assert_eq!(
            ran.err,
            format!("error: could not start `{name}`\nhint: try again\n")
        );
        assert_eq!(ran.out, "");
    }
}

#[test]
fn each_of_several_is_tried_and_the_worst_decides() {
    let fake = Fake::default();
    let ran = acc(&fake, &["start", "a", "gone", "denied", "b"]);
    assert_eq!(ran.exit, 4);
    assert_eq!(fake.seen.lock().unwrap().len(), 4);
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(
        lines,
        [
            "started `a` in 52 ms",
            "error: could not start `gone`",
            "hint: try again",
            "error: could not start `denied`",
            "hint: try again",
            "started `b` in 52 ms"
        ]
    );
}

#[test]
fn json_is_a_line_for_each_and_errors_stay_out_of_it() {
    let ran = acc(&Fake::default(), &["--json", "start", "a", "gone", "b"]);
    assert_eq!(ran.exit, 3);
    let names: Vec<String> = ran
        .out
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["instance"]["name"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(names, ["a", "b"]);
    let error: serde_json::Value = serde_json::from_str(ran.err.trim()).unwrap();
    assert_eq!(error["error"]["kind"], "not_found");
}

#[test]
fn already_so_is_said_and_is_success() {
    let ran = acc(&Fake::default(), &["stop", "a"]);
    assert_eq!(
        (ran.exit, ran.out.as_str(), ran.err.as_str()),
        (0, "", "`a` is already awake\n")
    );
}

#[test]
fn the_three_wishes() {
    let fake = Fake::default();
    for (word, desired) in [
        ("enable", DesiredState::Auto),
        ("disable", DesiredState::Down),
        ("pin", DesiredState::Up),
    ] {
        assert_eq!(acc(&fake, &[word, "a"]).exit, 0);
        let want = Request::SetDesired {
            instance: "a".into(),
            desired,
        };
        assert_eq!(fake.seen.lock().unwrap().pop(), Some(want));
    }
}

#[test]
fn create_prints_the_address_as_data() {
    let ran = acc(&Fake::default(), &["create", "shop", "--model", "hello"]);
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (0, "http://shop.apps.localhost:8080/\n")
    );
    assert_eq!(ran.err, "created `shop` in 52 ms: awake\n");
    let ran = acc(
        &Fake::default(),
        &["create", "shop", "--model", "hello", "-q"],
    );
    assert_eq!(
        (ran.out.as_str(), ran.err.as_str()),
        ("http://shop.apps.localhost:8080/\n", "")
    );
    let ran = acc(&Fake::default(), &["create", "--model", "hello", "--json"]);
    assert_eq!(ran.out.lines().count(), 1);
    assert_eq!(ran.err, "");
}

#[test]
fn monitor_is_quiet_when_nothing_happened() {
    let ran = acc(&Fake::default(), &["monitor"]);
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (0, "", ""));
    let ran = acc(
        &Fake {
            busy: true,
            ..Fake::default()
        },
        &["monitor"],
    );
    assert_eq!((ran.exit, ran.out.as_str()), (0, ""));
    assert!(ran.err.contains("another monitor run is in progress"));
    let line = |action| MonitorLine {
        instance: "a".to_owned(),
        action,
        why: "quiet for 15 min".to_owned(),
    };
    let ran = acc(
        &Fake {
            pass: vec![line(MonitorAction::Sleep)],
            ..Fake::default()
        },
        &["monitor"],
    );
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (
            0,
            "INSTANCE  ACTION  WHY\na         sleep   quiet for 15 min\n"
        )
    );
    let ran = acc(
        &Fake {
            pass: vec![line(MonitorAction::Sleep), line(MonitorAction::Error)],
            ..Fake::default()
        },
        &["monitor"],
    );
    assert_eq!(ran.exit, 1);
}

#[test]
fn boot_and_halt_say_what_they_did() {
    let down = Fake::default();
    assert_eq!(
        acc(&down, &["boot"]).err,
        "- started the server\nlistening on 127.0.0.1:8080\n"
    );
    assert_eq!(acc(&down, &["halt"]).err, "already halted\n");
    let up = Fake {
        up: true,
        ..Fake::default()
    };
    assert_eq!(
        acc(&up, &["boot"]).err,
        "already running\nlistening on 127.0.0.1:8080\n"
    );
    assert_eq!(
        acc(&up, &["halt"]).err,
        "halted: 2 instances put to sleep\n"
    );
    let ran = acc(&up, &["boot", "--json"]);
    assert_eq!(ran.err, "");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&ran.out).unwrap()["already"],
        true
    );
}

#[test]
fn a_wrong_config_is_exit_2_with_every_fault() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.toml");
    // With the run folder of the host, an acc that runs there would lend its settings.
    let run = dir.path().join("run");
    let text = format!("bad = 1\nrun = {run:?}\n[idle]\ntimeout = \"soon\"\n");
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    for words in [["config", "check"], ["start", "a"]] {
        let ran = acc_in(
            dir.path(),
            &Fake::default(),
            &[words.as_slice(), &["--config", &file]].concat(),
        );
        assert_eq!(ran.exit, 2, "{}", ran.err);
        assert!(
            ran.err.starts_with("error: ") && ran.err.contains("hint: "),
            "{}",
            ran.err
        );
        assert!(
            ran.err.contains(&file)
                && ran.err.contains("\n  idle.timeout: ")
                && ran.err.contains("\n  bad: "),
            "{}",
            ran.err
        );
    }
    let missing = dir.path().join("missing.toml").display().to_string();
    let ran = acc_in(
        dir.path(),
        &Fake::default(),
        &["list", "--config", &missing],
    );
    assert_eq!(ran.exit, 2);
    assert!(ran.err.contains(&missing));
    let ran = acc_in(
        dir.path(),
        &Fake::default(),
        &["doctor", "--config", &missing],
    );
    assert_eq!(ran.exit, 1, "the doctor goes on and counts it as a finding");
    assert!(
        ran.out.starts_with("bad   ") && ran.out.lines().count() > 3,
        "{}",
        ran.out
    );
}

#[test]
fn a_good_config_is_said_to_be_good_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("acc.toml");
    std::fs::write(
        &file,
        format!("home = \"{0}/h\"\nrun = \"{0}/r\"\n", dir.path().display()),
    )
    .unwrap();
    let file = file.display().to_string();
    let ran = acc_in(
        dir.path(),
        &Fake::default(),
        &["config", "check", "--config", &file],
    );
    assert_eq!((ran.exit, ran.out.as_str()), (0, ""), "{}", ran.err);
    assert!(ran.err.contains("is valid"));
    let ran = acc_in(
        dir.path(),
        &Fake::default(),
        &["config", "show", "--json", "--config", &file],
    );
    assert_eq!(ran.exit, 0, "{}", ran.err);
    assert!(serde_json::from_str::<serde_json::Value>(&ran.out).unwrap()["home"].is_string());
    let ran = acc_in(dir.path(), &Fake::default(), &["server", "--config", &file]);
    assert_eq!(ran.exit, 0, "the config can be read again: {}", ran.err);
}

#[test]
fn pages_and_completions_need_no_config() {
    let dir = tempfile::tempdir().unwrap();
    let ran = acc(&Fake::default(), &["man", "--config", "/no/such/file"]);
    assert!(
        ran.exit == 0 && ran.out.contains(".TH acc 1"),
        "{}",
        ran.out
    );
    let pages = dir.path().join("man/man1");
    assert_eq!(
        acc(
            &Fake::default(),
            &["man", "--dir", &pages.display().to_string()]
        )
        .exit,
        0
    );
    assert!(pages.join("acc.1").exists() && pages.join("acc-config-check.1").exists());
    assert!(!pages.join("acc-demo-app.1").exists(), "hidden");
    for shell in ["bash", "zsh", "fish"] {
        let ran = acc(&Fake::default(), &["completions", shell]);
        assert!(ran.exit == 0 && ran.out.contains("acc"));
    }
    let ran = acc(&Fake::default(), &["man", "--dir", "/proc/no"]);
    assert_eq!(ran.exit, 1);
    assert!(ran.err.contains("`/proc/no`"));
}

#[tokio::test(start_paused = true)]
async fn waiting_does_not_change_the_answer() {
    let config = load(None, &Env::bare(0, "/")).unwrap();
    let slow = async {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        7
    };
    let style = Style {
        talk_to_terminal: true,
        ..Style::default()
    };
    assert_eq!(
        progress::watch(style, &config, "waiting", None, slow).await,
        7
    );
    assert_eq!(
        progress::watch(style, &config, "waiting", None, async { 8 }).await,
        8
    );
}
