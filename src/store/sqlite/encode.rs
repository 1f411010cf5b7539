//! Domain values as text in a column, and back. An unreadable text is "unknown", never a panic.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::instance::{Exit, Launch, RunnerKind};
use crate::domain::lifecycle::Failure;

#[derive(Serialize, Deserialize)]
struct LaunchText {
    // Only of what is no process of this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runner: Option<String>,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    // Missing in launches of an earlier acc.
    #[serde(default)]
    handed: bool,
    #[serde(default)]
    notifies: bool,
    health: Option<String>,
    stop_signal: i32,
    start_ms: Option<u64>,
    stop_ms: Option<u64>,
}

fn ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn launch(l: &Launch) -> String {
    let text = LaunchText {
        runner: (l.runner != RunnerKind::default()).then(|| l.runner.to_string()),
        argv: l.argv.clone(),
        env: l.env.clone(),
        handed: l.handed,
        notifies: l.notifies,
        health: l.health.clone(),
        stop_signal: l.stop_signal,
        start_ms: l.start_timeout.map(ms),
        stop_ms: l.stop_timeout.map(ms),
    };
    serde_json::to_string(&text).unwrap_or_default()
}

/// `None`: it must be rendered again.
pub(super) fn launch_back(text: &str) -> Option<Launch> {
    let l: LaunchText = serde_json::from_str(text).ok()?;
    Some(Launch {
        runner: l.runner.map(RunnerKind::new).unwrap_or_default(),
        argv: l.argv,
        env: l.env,
        handed: l.handed,
        notifies: l.notifies,
        health: l.health,
        stop_signal: l.stop_signal,
        start_timeout: l.start_ms.map(Duration::from_millis),
        stop_timeout: l.stop_ms.map(Duration::from_millis),
    })
}

pub(super) fn params(p: &BTreeMap<String, String>) -> String {
    serde_json::to_string(p).unwrap_or_default()
}

pub(super) fn params_back(text: &str) -> BTreeMap<String, String> {
    serde_json::from_str(text).unwrap_or_default()
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ExitText {
    Code(i32),
    Signal(i32),
    Unknown,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FailureText {
    NotStarted(String),
    ExitedAtStart(ExitText),
    NotReady { within_ms: u64, what: String },
    Died(ExitText),
}

fn exit(e: Exit) -> ExitText {
    match e {
        Exit::Code(c) => ExitText::Code(c),
        Exit::Signal(s) => ExitText::Signal(s),
        Exit::Unknown => ExitText::Unknown,
    }
}

fn exit_back(e: &ExitText) -> Exit {
    match e {
        ExitText::Code(c) => Exit::Code(*c),
        ExitText::Signal(s) => Exit::Signal(*s),
        ExitText::Unknown => Exit::Unknown,
    }
}

pub(super) fn failure(f: &Failure) -> String {
    let text = match f {
        Failure::NotStarted(why) => FailureText::NotStarted(why.clone()),
        Failure::ExitedAtStart(e) => FailureText::ExitedAtStart(exit(*e)),
        Failure::NotReady { within, what } => FailureText::NotReady {
            within_ms: ms(*within),
            what: what.clone(),
        },
        Failure::Died(e) => FailureText::Died(exit(*e)),
    };
    serde_json::to_string(&text).unwrap_or_default()
}

pub(super) fn failure_back(text: &str) -> Option<Failure> {
    Some(match serde_json::from_str(text).ok()? {
        FailureText::NotStarted(why) => Failure::NotStarted(why),
        FailureText::ExitedAtStart(e) => Failure::ExitedAtStart(exit_back(&e)),
        FailureText::NotReady { within_ms, what } => Failure::NotReady {
            within: Duration::from_millis(within_ms),
            what,
        },
        FailureText::Died(e) => Failure::Died(exit_back(&e)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_of_an_earlier_acc_are_read() {
        let earlier = r#"{"argv":["/bin/a"],"env":[],"health":null,"stop_signal":15,"start_ms":null,"stop_ms":7}"#;
        let mut back = launch_back(earlier).unwrap();
        assert_eq!(
            (back.handed, back.notifies, back.stop_timeout),
            (false, false, Some(Duration::from_millis(7)))
        );
        (back.handed, back.notifies) = (true, true);
        assert_eq!(launch_back(&launch(&back)), Some(back.clone()));
        assert_eq!(back.runner, RunnerKind::default());
        assert!(
            !launch(&back).contains("runner"),
            "as an earlier acc writes it"
        );
        back.runner = RunnerKind::new("vm");
        assert_eq!(launch_back(&launch(&back)), Some(back));
    }

    #[test]
    fn failures_come_back() {
        for f in [
            Failure::NotStarted("no".into()),
            Failure::ExitedAtStart(Exit::Code(3)),
            Failure::NotReady {
                within: Duration::from_secs(2),
                what: "x".into(),
            },
            Failure::Died(Exit::Signal(9)),
            Failure::Died(Exit::Unknown),
        ] {
            assert_eq!(failure_back(&failure(&f)), Some(f));
        }
        assert_eq!(failure_back("{"), None);
    }
}
