//! What a verb came to, and an instance as seen from outside; the same value for a terminal, JSON
//! and later a web page.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::event_kind::EventKind;
use crate::domain::instance::DesiredState;
use crate::domain::lifecycle::Phase;
use crate::domain::model::{ListenKind, Ready};
use crate::domain::operation::{OperationKind, OperationState, OperationStep};
use crate::service::instance::wake_timing::Phases;

/// The end of a request that succeeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The server is there.
    Pong {
        /// Its process id.
        pid: u32,
        /// Its version.
        version: String,
        /// Its binary has been replaced since it was started.
        #[serde(default)]
        outdated: bool,
    },
    /// The settings in force.
    Settings {
        /// As the text of a config file.
        toml: String,
    },
    /// The server is becoming what its binary is now; a ping tells when it has.
    Upgrading,
    /// The config was read again.
    Reloaded(Reloaded),
    /// Done, or already so.
    Instance {
        /// What was done.
        did: InstanceChange,
        /// It was so already and nothing was done.
        already: bool,
        /// How long it took, in milliseconds.
        took_ms: u64,
        /// The instance afterwards.
        instance: Box<InstanceView>,
    },
    /// A monitor run.
    Monitor(MonitorRun),
    /// Another monitor run is under way.
    Busy,
    /// All asleep.
    Quiesced {
        /// How many were put to sleep.
        stopped: usize,
    },
    /// Instances, by name.
    Instances {
        /// Those that were asked for.
        instances: Vec<InstanceView>,
    },
    /// One instance.
    Info(Box<InstanceInfo>),
    /// Names of instances, in order.
    Names {
        /// All of them.
        names: Vec<String>,
    },
    /// Events, oldest first.
    Events {
        /// Those that were asked for.
        events: Vec<EventView>,
    },
    /// What instances can be made from.
    Models {
        /// Those that are right.
        models: Vec<ModelView>,
        /// What is wrong with others, a sentence each.
        faults: Vec<String>,
    },
    /// One model.
    Model(Box<ModelView>),
    /// The last lines of a log.
    Logs {
        /// Oldest first, without their ends.
        lines: Vec<String>,
    },
}

/// What a verb did to one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceChange {
    /// Made it.
    Created,
    /// Woke it.
    Started,
    /// Put it to sleep.
    Stopped,
    /// Stopped and started it.
    Restarted,
    /// Gave it another desired state.
    Changed,
    /// Cleared its failure.
    Reset,
    /// Took it out of service.
    Destroyed,
    /// Removed it.
    Purged,
}

/// What came of reading the config again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reloaded {
    /// The file; none: there is none, and the defaults are in force.
    pub file: Option<String>,
    /// Settings that are in force now.
    pub changed: Vec<Change>,
    /// Settings that wait for a restart: `old` is in force, `new` is in the file.
    pub waiting: Vec<Change>,
    /// What did not work of putting them in force, a sentence each.
    pub troubles: Vec<String>,
}

/// A setting with two values, each as in a config file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// With its section: `idle.timeout`.
    pub key: String,
    /// Before.
    pub old: String,
    /// From now on.
    pub new: String,
}

/// What a monitor run did, or in a dry run would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MonitorRun {
    /// One entry per awake instance (dry run), or per instance that something was done about.
    pub lines: Vec<MonitorLine>,
}

/// One instance in a monitor run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorLine {
    /// Its name.
    pub instance: String,
    /// What was done.
    pub action: MonitorAction,
    /// One sentence why.
    pub why: String,
}

/// What a monitor run does about one instance, or about a part of acc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MonitorAction {
    /// Puts it to sleep.
    Sleep,
    /// Leaves it awake.
    Keep,
    /// Would start it: only in a dry run.
    Start,
    /// Started it.
    Started,
    /// Finds that it has died.
    Died,
    /// Repairs it.
    Repaired,
    /// Finds another program at its address.
    Displaced,
    /// Fails.
    Error,
}

impl MonitorAction {
    /// Its word: in JSON, in the table of `acc monitor` and in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sleep => "sleep",
            Self::Keep => "keep",
            Self::Start => "start",
            Self::Started => "started",
            Self::Died => "died",
            Self::Repaired => "repaired",
            Self::Displaced => "displaced",
            Self::Error => "error",
        }
    }
}

impl MonitorLine {
    /// A line.
    pub(super) fn new(instance: &str, action: MonitorAction, why: impl Into<String>) -> Self {
        Self {
            instance: instance.to_owned(),
            action,
            why: why.into(),
        }
    }
}

/// Where an instance listens: `{"unix": PATH}` or `{"tcp": "127.0.0.1:PORT"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenView {
    /// A unix socket.
    Unix(String),
    /// A TCP address.
    Tcp(String),
}

/// An instance as everybody sees it. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceView {
    /// Number.
    pub id: i64,
    /// Name.
    pub name: String,
    /// Model.
    pub model: String,
    /// What it is doing.
    pub phase: Phase,
    /// What the operator asked for.
    pub desired: DesiredState,
    /// All hosts; the first is the one of `url`.
    pub hosts: Vec<String>,
    /// Where a browser reaches it.
    pub url: String,
    /// Where it listens.
    pub listen: ListenView,
    /// It gets that socket handed over, listening.
    #[serde(default)]
    pub handed: bool,
    /// It says by itself that it is ready.
    #[serde(default)]
    pub notifies: bool,
    /// Process id while it runs.
    pub pid: Option<i32>,
    /// Owner.
    pub owner: Option<String>,
    /// Idle timeout in force, in seconds.
    pub idle_timeout_s: f64,
    /// When it was made.
    pub created_at: String,
    /// When it last became awake.
    pub last_wake_at: Option<String>,
    /// When it was last seen in use.
    pub last_active_at: Option<String>,
    /// How often it was woken.
    pub wakes: u64,
    /// Why it failed, when it did.
    pub failure: Option<String>,
    /// Of a failed one: before this no request starts it. None: the next request does.
    #[serde(default)]
    pub retry_at: Option<String>,
    /// Parameters; those the model calls secret are masked, and all of them when the model cannot
    /// be read.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// Its folder.
    pub dir: String,
}

/// Long work on an instance. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationView {
    /// What it does.
    pub kind: OperationKind,
    /// Whether it has ended, and how.
    pub state: OperationState,
    /// What it is doing, or was doing last.
    pub step: OperationStep,
    /// When it began.
    pub started_at: String,
    /// When it ended; none: it runs.
    pub ended_at: Option<String>,
    /// Why it failed, when it did; of a create that is being undone, why.
    pub error: Option<String>,
    /// Of one that runs: when it was last tried to end it in vain; none: never.
    #[serde(default)]
    pub last_try_at: Option<String>,
    /// Of one that runs: why that did not work.
    #[serde(default)]
    pub last_error: Option<String>,
    /// By which way in it was asked for.
    pub asked_by: String,
}

/// An instance, its running or last operation, and of one that failed what it printed last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceInfo {
    /// The instance.
    #[serde(flatten)]
    pub instance: InstanceView,
    /// The operation that runs, else the last one; none: it is not recorded any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationView>,
    /// Its last lines; none when its log cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_tail: Option<Vec<String>>,
}

/// A model as everybody sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelView {
    /// One line for people.
    pub description: String,
    /// Its folder.
    pub dir: String,
    /// Path of the health check.
    pub health: Option<String>,
    /// How its instances listen.
    pub listen: ListenKind,
    /// Its name.
    pub name: String,
    /// Its parameters, by name.
    pub params: Vec<ParamView>,
    /// What tells that an instance is ready.
    pub ready: Ready,
}

/// A parameter of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamView {
    /// Value when none is given; that of a secret is a secret too.
    pub default: Option<String>,
    /// For people.
    pub description: String,
    /// It has a default, which is not shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden_default: bool,
    /// Its name.
    pub name: String,
    /// Must be given when there is no default.
    pub required: bool,
    /// Never shown again once set.
    pub secret: bool,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// When, RFC 3339.
    pub at: String,
    /// Which instance; empty for acc itself.
    pub instance: String,
    /// What kind of event.
    pub kind: EventKind,
    /// A sentence.
    pub detail: String,
    /// Of a wake: where its time went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phases: Option<Phases>,
}

/// What `acc boot` did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BootReport {
    /// Everything ran already; `did` may still name repairs.
    pub already: bool,
    /// What was done, in order, a clause each.
    pub did: Vec<String>,
    /// Addresses that face the network now.
    pub listen: Vec<String>,
    /// Keys of the config whose new values wait until acc is halted and booted.
    pub waiting: Vec<String>,
    /// With `--foreground`: the command that runs everything, to replace this process.
    pub exec: Option<Vec<String>>,
}

/// What `acc halt` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HaltReport {
    /// Nothing ran.
    pub already: bool,
    /// How many instances were put to sleep.
    pub stopped: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_same_in_json_and_in_text() {
        let json = |value: serde_json::Value| value.as_str().map(str::to_owned);
        for phase in Phase::ALL {
            assert_eq!(
                json(serde_json::to_value(phase).unwrap()).as_deref(),
                Some(phase.as_str())
            );
        }
        for desired in [DesiredState::Auto, DesiredState::Up, DesiredState::Down] {
            assert_eq!(
                json(serde_json::to_value(desired).unwrap()).as_deref(),
                Some(desired.as_str())
            );
        }
        use MonitorAction::*;
        for action in [Sleep, Keep, Started, Died, Repaired, Displaced, Error] {
            assert_eq!(
                json(serde_json::to_value(action).unwrap()).as_deref(),
                Some(action.as_str())
            );
        }
    }
}
