//! The instance of a proof: a scratch one that is removed afterwards, or an existing one that is
//! restored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::operator::{Operator, find};
use super::rng::Rng;
use super::wire::Wire;
use crate::config::Config;
use crate::domain::lifecycle::Phase;
use crate::models::list_models;
use crate::service::error::{ErrorKind, ServiceError};
use crate::service::outcome::{InstanceView, Outcome};
use crate::service::request::{InstanceRef, NewInstance, Request};

/// The idle timeout of a scratch instance.
pub(super) const IDLE: Duration = Duration::from_millis(300);
/// Time limit to clean up after anything.
const CLEAN_UP: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(200);

/// The instance.
#[derive(Debug, Clone)]
pub(super) struct ProofTarget {
    pub(super) name: String,
    pub(super) model: String,
    /// Host with port, for the clients.
    pub(super) host: String,
    /// Its idle timeout.
    pub(super) idle: Duration,
    /// Where the application records what reaches it.
    pub(super) record: Option<PathBuf>,
    /// It was made for this run.
    scratch: bool,
    /// It was awake before the run.
    was_awake: bool,
}

impl ProofTarget {
    /// Makes a scratch instance of this model. `create` undoes itself if it fails.
    pub(super) async fn scratch(
        config: &Config,
        model: &str,
        seed: u64,
        operator: &dyn Operator,
    ) -> Result<Self, ServiceError> {
        let mut rng = Rng::new(seed, u64::from(std::process::id()));
        let name = loop {
            let name = format!("prove-{:04x}", rng.below(0x1_0000));
            match find(operator, &name).await {
                Err(e) if e.kind == ErrorKind::NotFound => break name,
                found => found?,
            };
        };
        let record = records(config, model).then(|| config.data_dir(&name).join("prove.log"));
        let set: BTreeMap<String, String> = record
            .iter()
            .map(|path| ("log".to_owned(), path.display().to_string()))
            .collect();
        let new = NewInstance {
            name: Some(name.clone()),
            model: model.to_owned(),
            set,
            idle_ms: u64::try_from(IDLE.as_millis()).ok(),
            ..NewInstance::default()
        };
        match operator.ask(Request::Create(new)).await? {
            Outcome::Instance { instance, .. } => Ok(Self {
                record,
                scratch: true,
                ..Self::of(&instance)
            }),
            other => Err(ServiceError::failed(
                format!("could not create `{name}`: {other:?}"),
                "",
            )),
        }
    }

    /// Uses an existing instance, and wakes it.
    pub(super) async fn existing(
        given: &str,
        operator: &dyn Operator,
    ) -> Result<Self, ServiceError> {
        let found = find(operator, given).await?;
        let was_awake = matches!(found.phase, Phase::Awake | Phase::Waking);
        match operator
            .ask(Request::Start {
                instance: found.name.as_str().into(),
            })
            .await?
        {
            Outcome::Instance { instance, .. } => Ok(Self {
                record: instance.pid.and_then(record_of),
                was_awake,
                ..Self::of(&instance)
            }),
            other => Err(ServiceError::failed(
                format!("could not start `{given}`: {other:?}"),
                "",
            )),
        }
    }

    fn of(view: &InstanceView) -> Self {
        let host = view
            .url
            .split_once("://")
            .map_or(view.url.as_str(), |(_, rest)| rest);
        Self {
            name: view.name.clone(),
            model: view.model.clone(),
            host: host.trim_end_matches('/').to_owned(),
            idle: Duration::try_from_secs_f64(view.idle_timeout_s).unwrap_or(IDLE),
            record: None,
            scratch: false,
            was_awake: false,
        }
    }

    /// Removes the instance, or restores its state. Retries for a while: acc may still be
    /// recovering from a crash.
    pub(super) async fn leave(&self, operator: &dyn Operator) -> Result<(), ServiceError> {
        let all = async {
            loop {
                match self.leave_once(operator).await {
                    Ok(()) => return Ok::<(), ServiceError>(()),
                    Err(e) if e.kind == ErrorKind::NotFound => return Ok(()),
                    Err(e) => {
                        tracing::debug!("not left yet: {e}");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        };
        if let Ok(done) = tokio::time::timeout(CLEAN_UP, all).await {
            return done;
        }
        // Once more, for the reason.
        let hint = if self.scratch {
            format!(
                "remove it with `acc destroy --force {0}`, then `acc purge {0}`",
                self.name
            )
        } else {
            format!("check it with `acc info {}`", self.name)
        };
        let left = self.leave_once(operator).await;
        left.map_err(|e| ServiceError {
            message: format!("could not restore `{}`: {}", self.name, e.message),
            hint,
            ..e
        })
    }

    async fn leave_once(&self, operator: &dyn Operator) -> Result<(), ServiceError> {
        let instance = InstanceRef::from(self.name.as_str());
        if self.scratch {
            operator
                .ask(Request::Destroy {
                    instance: instance.clone(),
                    force: true,
                })
                .await?;
            operator.ask(Request::Purge { instance }).await?;
        } else if self.was_awake {
            operator.ask(Request::Start { instance }).await?;
        } else {
            operator
                .ask(Request::Stop {
                    instance,
                    now: false,
                })
                .await?;
        }
        Ok(())
    }
}

/// Whether this model has a parameter for the file that records requests.
fn records(config: &Config, model: &str) -> bool {
    let models = list_models(&config.models()).unwrap_or_default();
    models
        .into_iter()
        .flatten()
        .any(|m| m.name == model && m.params.contains_key("log"))
}

/// The record of a running demo application, from its environment or command line.
fn record_of(pid: i32) -> Option<PathBuf> {
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let words = |bytes: Vec<u8>| -> Vec<String> {
        bytes
            .split(|b| *b == 0)
            .map(|w| String::from_utf8_lossy(w).into_owned())
            .collect()
    };
    let from_env = words(read("environ"))
        .into_iter()
        .find_map(|w| w.strip_prefix("APP_LOG=").map(str::to_owned));
    let line = words(read("cmdline"));
    let flag = line
        .iter()
        .position(|w| w == "--log")
        .and_then(|n| line.get(n + 1))
        .cloned();
    from_env
        .filter(|path| !path.is_empty())
        .or(flag)
        .map(PathBuf::from)
        .filter(|path| Path::is_absolute(path))
}

/// Whether it is the demo application, which answers `/echo` with what it got.
pub(super) async fn is_demo(
    to: std::net::SocketAddr,
    host: &str,
    limit: Duration,
) -> Result<bool, ServiceError> {
    let failed = |why: &str| {
        ServiceError::failed(
            format!("could not send a request to `{host}` on {to}: {why}"),
            "check the edge with `acc doctor`; `acc boot` repairs it",
        )
    };
    let ask = async {
        let mut wire = Wire::open(to).await.map_err(|why| failed(&why))?;
        let answer = wire
            .ask(super::plan::probe(host))
            .await
            .map_err(|broken| failed(&broken.why))?;
        Ok(answer.status.is_success() && super::plan::is_echo(&answer.body))
    };
    tokio::time::timeout(limit, ask)
        .await
        .unwrap_or_else(|_| Err(failed("no answer within the time limit")))
}
