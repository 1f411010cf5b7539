//! Every verb that changes something, as a value: the same for the command line, the control socket
//! and timers.
//!
//! Reading needs no request: `service::view` reads the database.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::instance::DesiredState;
use crate::domain::name::{InstanceId, InstanceName};

/// How a request names an instance. In text and in JSON both are one word: only digits are a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum InstanceRef {
    /// By its number.
    Number(InstanceId),
    /// By its name; not checked, so that a slip of the hand can be told.
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
                create,
                r#"{"verb":"create","name":null,"model":"hello","hosts":[],"owner":null,"set":{},"idle_ms":null,"desired":"up","asleep":false}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
    }
}
