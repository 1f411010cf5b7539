//! Everything that acc can be asked for, as a value: the same for the command line, the control
//! socket and timers.
//!
//! It decides nothing and says nothing of the caller.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::instance::DesiredState;
use crate::domain::lifecycle::Phase;
use crate::domain::name::{InstanceId, InstanceName};

/// How a request names an instance. In text and in JSON both are one word: only digits are a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum InstanceRef {
    /// By its number.
    Number(InstanceId),
    /// By its name; not checked, so that the error can suggest the name that was meant.
    Name(String),
}

impl From<String> for InstanceRef {
    fn from(text: String) -> Self {
        match text.parse() {
            Ok(number) => Self::Number(InstanceId(number)),
            Err(_) => Self::Name(text),
        }
    }
}

impl From<&str> for InstanceRef {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<&InstanceName> for InstanceRef {
    fn from(name: &InstanceName) -> Self {
        Self::Name(name.to_string())
    }
}

impl From<InstanceRef> for String {
    fn from(instance: InstanceRef) -> Self {
        instance.to_string()
    }
}

impl fmt::Display for InstanceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(id) => write!(f, "{}", id.0),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Which instances.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ListFilter {
    /// Only those in this phase.
    pub phase: Option<Phase>,
    /// Only those of this model.
    pub model: Option<String>,
    /// Only those whose names come after this one.
    pub after: Option<String>,
    /// At most this many.
    pub limit: Option<usize>,
}

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NewInstance {
    /// Its name; `None`: a free one made from the model's name.
    pub name: Option<String>,
    /// The model.
    pub model: String,
    /// Hosts besides NAME.domain.
    pub hosts: Vec<String>,
    /// Who to write to.
    pub owner: Option<String>,
    /// Parameters of the model.
    pub set: BTreeMap<String, String>,
    /// Own idle timeout in milliseconds.
    pub idle_ms: Option<u64>,
    /// Its desired state; `None`: `auto`.
    pub desired: Option<DesiredState>,
    /// Do not start it.
    pub asleep: bool,
}

/// A verb and its object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
#[allow(missing_docs)] // the fields are `instance` and flags, said in the line above each
pub enum Request {
    /// Is the server there?
    Ping,
    /// Which settings are in force?
    Settings,
    /// Let the server become what its binary is now; answered at once.
    Upgrade,
    /// Let the server read its config again.
    Reload,
    /// Make an instance.
    Create(NewInstance),
    /// Wake it and wait until it answers.
    Start { instance: InstanceRef },
    /// Put it to sleep; `now`: without waiting for what is in flight.
    Stop { instance: InstanceRef, now: bool },
    /// Stop, then start.
    Restart { instance: InstanceRef },
    /// `down` also puts it to sleep, `up` also wakes it.
    SetDesired {
        instance: InstanceRef,
        desired: DesiredState,
    },
    /// Forget its failure.
    Reset { instance: InstanceRef },
    /// Out of service for good; files are kept.
    Destroy { instance: InstanceRef, force: bool },
    /// Remove a destroyed instance with everything it had.
    Purge { instance: InstanceRef },
    /// One monitor run over all instances.
    Monitor {
        dry_run: bool,
        /// Also check whether the edge's configuration is as it should be.
        #[serde(default)]
        thorough: bool,
    },
    /// Everything to sleep, and no wake from now on.
    Quiesce,
    /// The instances, by name.
    List(ListFilter),
    /// Everything about an instance.
    Info { instance: InstanceRef },
    /// The names of all instances.
    Names,
    /// The newest events, oldest first; of one instance, or of all.
    Events {
        instance: Option<InstanceRef>,
        lines: usize,
    },
    /// What instances can be made from.
    Models,
    /// One model.
    Model { model: String },
    /// The last lines that an instance printed, or with `access` of the requests to it; a thousand
    /// at most. To follow a log, read its file.
    Logs {
        instance: InstanceRef,
        access: bool,
        lines: usize,
    },
}

impl Request {
    /// Its verb, as in JSON.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Settings => "settings",
            Self::Upgrade => "upgrade",
            Self::Reload => "reload",
            Self::Create(_) => "create",
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Restart { .. } => "restart",
            Self::SetDesired { .. } => "set_desired",
            Self::Reset { .. } => "reset",
            Self::Destroy { .. } => "destroy",
            Self::Purge { .. } => "purge",
            Self::Monitor { .. } => "monitor",
            Self::Quiesce => "quiesce",
            Self::List(_) => "list",
            Self::Info { .. } => "info",
            Self::Names => "names",
            Self::Events { .. } => "events",
            Self::Models => "models",
            Self::Model { .. } => "model",
            Self::Logs { .. } => "logs",
        }
    }

    /// The instance that it is about.
    #[must_use]
    pub fn instance(&self) -> Option<String> {
        match self {
            Self::Create(new) => new.name.clone(),
            Self::Start { instance }
            | Self::Stop { instance, .. }
            | Self::Restart { instance }
            | Self::SetDesired { instance, .. }
            | Self::Reset { instance }
            | Self::Destroy { instance, .. }
            | Self::Purge { instance }
            | Self::Info { instance }
            | Self::Logs { instance, .. } => Some(instance.to_string()),
            Self::Events { instance, .. } => instance.as_ref().map(ToString::to_string),
            Self::Ping
            | Self::Settings
            | Self::Upgrade
            | Self::Reload
            | Self::Monitor { .. }
            | Self::Quiesce
            | Self::List(_)
            | Self::Names
            | Self::Models
            | Self::Model { .. } => None,
        }
    }

    /// Is it answered from the files of the installation, without a lock or a server?
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Self::List(_)
                | Self::Info { .. }
                | Self::Names
                | Self::Events { .. }
                | Self::Models
                | Self::Model { .. }
                | Self::Logs { .. }
        )
    }

    /// Does it change something?
    #[must_use]
    pub fn changes(&self) -> bool {
        !self.is_read() && !matches!(self, Self::Ping | Self::Settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_one_word_and_only_digits_are_a_number() {
        for (text, instance) in [
            ("\"shop\"", InstanceRef::Name("shop".to_owned())),
            ("\"12\"", InstanceRef::Number(InstanceId(12))),
            ("\"12a\"", InstanceRef::Name("12a".to_owned())),
        ] {
            assert_eq!(serde_json::from_str::<InstanceRef>(text).unwrap(), instance);
            assert_eq!(serde_json::to_string(&instance).unwrap(), text);
        }
    }

    #[test]
    fn requests_are_written_as_every_version_of_acc_writes_them() {
        let disable = Request::SetDesired {
            instance: "shop".into(),
            desired: DesiredState::Down,
        };
        let create = Request::Create(NewInstance {
            model: "hello".to_owned(),
            desired: Some(DesiredState::Up),
            ..NewInstance::default()
        });
        for (request, text) in [
            (
                disable,
                r#"{"verb":"set_desired","instance":"shop","desired":"down"}"#,
            ),
            (
                Request::List(ListFilter {
                    phase: Some(Phase::Awake),
                    ..ListFilter::default()
                }),
                r#"{"verb":"list","phase":"awake","model":null,"after":null,"limit":null}"#,
            ),
            (
                Request::Events {
                    instance: None,
                    lines: 5,
                },
                r#"{"verb":"events","instance":null,"lines":5}"#,
            ),
            (
                create,
                r#"{"verb":"create","name":null,"model":"hello","hosts":[],"owner":null,"set":{},"idle_ms":null,"desired":"up","asleep":false}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
            let json = serde_json::to_value(&request).unwrap();
            assert_eq!(json["verb"], request.verb());
        }
    }
}
