//! What acc does with one program of supervisord: ask about it, launch it from its section, take it out.
//!
//! supervisord learns of an end up to a second late (it sleeps in `poll`), acc at once. So whatever it says of a pid is
//! checked against the kernel, and a question wakes it: after the answer it looks for ended children.

use std::time::Duration;

use crate::driver::host::process;

use super::super::SupervisorError;
use super::rpc::{Client, RpcError};
use super::sections::{Found, Sections};
use super::xmlrpc::{Value, fault};

/// Pause before supervisord is asked again, because it has not noticed an end yet.
const AGAIN: Duration = Duration::from_millis(4);
/// How often it is asked again: two seconds in all, twice as long as it sleeps.
const TIMES: usize = 500;

/// supervisord's process states that matter here.
pub(super) mod state {
    pub(in super::super) const STOPPED: i64 = 0;
    pub(in super::super) const BACKOFF: i64 = 30;
    pub(in super::super) const EXITED: i64 = 100;
}

/// What supervisord says of one of its programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Info {
    /// 0: none runs.
    pub(super) pid: i32,
    pub(super) state: i64,
    /// Of the last run; -1: ended by a signal.
    pub(super) exit_status: i64,
    /// It ran at least once since supervisord came up.
    pub(super) ran: bool,
    /// What went wrong at the last start.
    pub(super) spawn_error: String,
}

/// How a launch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Launched {
    /// It ran already, as this pid.
    Already(i32),
    /// It was started, as this pid; it may have ended since. [`ENDED_AT_ONCE`]: before its pid could be learned.
    Started(i32),
}

/// A pid above the highest a kernel gives (2^22), for a process that ended before anybody could see it: waiting for it ends
/// at once, and supervisord knows how it was.
pub(super) const ENDED_AT_ONCE: i32 = i32::MAX;

/// What one attempt at a launch came to.
enum Attempt {
    Done(Launched),
    /// supervisord has not noticed yet that the last run ended.
    NotYet,
    /// It has no such group, or one of an unknown text.
    Renew,
    /// Its configuration is refused because of another program's section, which can be made again any time.
    Without(String),
}

/// One program and where its section is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group<'a> {
    pub(super) client: &'a Client,
    pub(super) sections: &'a Sections,
    /// Name of the section, the group and the process: all the same.
    pub(super) name: &'a str,
    /// Its name for people.
    pub(super) shown: &'a str,
}

impl Info {
    pub(super) fn read(value: &Value) -> Result<Self, RpcError> {
        let number = |name: &str| value.int(name).ok_or_else(|| RpcError::Broken(format!("`{name}` is missing in its answer")));
        Ok(Self {
            pid: i32::try_from(number("pid")?).unwrap_or(0),
            state: number("state")?,
            exit_status: number("exitstatus")?,
            ran: number("start")? != 0,
            spawn_error: value.str("spawnerr").unwrap_or_default().to_owned(),
        })
    }
}

impl Group<'_> {
    fn param(&self) -> Value {
        Value::text(self.name)
    }

    /// What supervisord says of it; `None`: it has no such program.
    pub(super) async fn info(&self) -> Result<Option<Info>, RpcError> {
        match self.client.call("supervisor.getProcessInfo", &[self.param()]).await {
            Ok(value) => Info::read(&value).map(Some),
            Err(e) if e.code() == Some(fault::BAD_NAME) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Asks it to end; false: supervisord runs nothing of this name.
    pub(super) async fn stop(&self) -> Result<bool, RpcError> {
        match self.client.call("supervisor.stopProcess", &[self.param(), Value::Bool(false)]).await {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.code(), Some(fault::BAD_NAME | fault::NOT_RUNNING)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Takes the group out of supervisord; false: a process of it is alive.
    pub(super) async fn take_out(&self) -> Result<bool, RpcError> {
        for _ in 0..TIMES {
            match self.client.call("supervisor.removeProcessGroup", &[self.param()]).await {
                Ok(_) => return Ok(true),
                Err(e) if e.code() == Some(fault::BAD_NAME) => return Ok(true),
                Err(e) if e.code() != Some(fault::STILL_RUNNING) => return Err(e),
                Err(_) => {}
            }
            let pid = self.info().await?.map_or(0, |info| info.pid);
            if alive(pid) {
                return Ok(false);
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(false)
    }

    /// Sees to it that the section has this text, and starts the program unless it runs. One that runs is left as it is.
    pub(super) async fn launch(&self, text: &str) -> Result<Launched, SupervisorError> {
        let mut renew = false;
        for _ in 0..TIMES {
            let attempt = if renew || self.sections.look(self.name, text)? != Found::Same {
                self.renew(text).await
            } else {
                self.attempt(false).await
            };
            match attempt.map_err(|e| self.failed(e))? {
                Attempt::Done(launched) => return Ok(launched),
                Attempt::NotYet => tokio::time::sleep(AGAIN).await,
                Attempt::Renew => renew = true,
                Attempt::Without(culprit) => {
                    tracing::warn!(section = culprit, "supervisord refuses a section: it is removed until its next start");
                    self.sections.remove(&culprit)?;
                }
            }
        }
        Err(self.not_started("supervisord does not notice that its last run ended".to_owned()))
    }

    /// Puts the text in force, then tries.
    async fn renew(&self, text: &str) -> Result<Attempt, RpcError> {
        if !self.take_out().await? {
            return match self.info().await? {
                Some(info) if alive(info.pid) => Ok(Attempt::Done(Launched::Already(info.pid))),
                _ => Ok(Attempt::NotYet),
            };
        }
        self.sections.write(self.name, text).map_err(|e| RpcError::Broken(e.to_string()))?;
        self.attempt(true).await
    }

    /// One exchange: (read the configuration, add the group,) ask, start, ask. Nothing comes in between within supervisord,
    /// so that a pid in the last answer but not in the first is that of this start.
    async fn attempt(&self, add: bool) -> Result<Attempt, RpcError> {
        let mut calls = Vec::with_capacity(5);
        if add {
            calls.push(("supervisor.reloadConfig", vec![]));
            calls.push(("supervisor.addProcessGroup", vec![self.param()]));
        }
        calls.push(("supervisor.getProcessInfo", vec![self.param()]));
        calls.push(("supervisor.startProcess", vec![self.param(), Value::Bool(false)]));
        calls.push(("supervisor.getProcessInfo", vec![self.param()]));
        let mut results = self.client.multicall(&calls).await?.into_iter();
        let mut next = || results.next().unwrap_or(Ok(Value::Nil));
        if add {
            match next() {
                Err(refused) if refused.code == fault::CANT_REREAD => {
                    let culprit = self.sections.culprit(&refused.text).filter(|name| name != self.name);
                    return culprit.map(Attempt::Without).ok_or(RpcError::Fault(refused));
                }
                result => drop(result?),
            }
            match next() {
                Err(refused) if refused.code == fault::ALREADY_ADDED => return Ok(Attempt::Renew),
                result => drop(result?),
            }
        }
        let before = match next() {
            Err(refused) if refused.code == fault::BAD_NAME => return Ok(Attempt::Renew),
            result => Info::read(&result?)?,
        };
        if before.pid > 0 {
            return Ok(if alive(before.pid) { Attempt::Done(Launched::Already(before.pid)) } else { Attempt::NotYet });
        }
        let (started, after) = (next(), Info::read(&next()?)?);
        self.judge(started.map_err(RpcError::from), &after)
    }

    fn judge(&self, started: Result<Value, RpcError>, after: &Info) -> Result<Attempt, RpcError> {
        // supervisord looks for ended children right after the start: on a busy machine it may find this one.
        let ran = after.pid == 0 && after.ran && after.state == state::EXITED;
        match started {
            Ok(_) if after.pid > 0 => Ok(Attempt::Done(Launched::Started(after.pid))),
            Ok(_) if ran => Ok(Attempt::Done(Launched::Started(ENDED_AT_ONCE))),
            Ok(_) => Err(RpcError::Broken("it says that it started the program and has no process of it".to_owned())),
            Err(RpcError::Fault(refused)) if refused.code == fault::SPAWN_ERROR && ran => {
                Ok(Attempt::Done(Launched::Started(ENDED_AT_ONCE)))
            }
            Err(RpcError::Fault(mut refused)) => {
                if !after.spawn_error.is_empty() {
                    refused.text.clone_from(&after.spawn_error);
                }
                Err(RpcError::Fault(refused))
            }
            Err(other) => Err(other),
        }
    }

    /// An error of a call as one of the supervisor's.
    pub(super) fn failed(&self, error: RpcError) -> SupervisorError {
        match error {
            RpcError::Fault(refused) if refused.code != fault::SHUTDOWN => self.not_started(refused.text),
            other => unreachable(self.client, &other),
        }
    }

    pub(super) fn not_started(&self, why: String) -> SupervisorError {
        SupervisorError::NotStarted { name: self.shown.to_owned(), why }
    }
}

/// "Could not ask supervisord".
pub(super) fn unreachable(client: &Client, why: &RpcError) -> SupervisorError {
    let why = match why {
        RpcError::Fault(refused) if refused.code == fault::SHUTDOWN => "it is shutting down".to_owned(),
        other => other.to_string(),
    };
    SupervisorError::Unreachable { what: format!("supervisord on `{}`", client.socket().display()), why }
}

/// When the kernel cannot be asked, the process counts as alive: nothing is then started a second time.
fn alive(pid: i32) -> bool {
    pid > 0 && process::start_time(pid).map_or(true, |start| start.is_some())
}
