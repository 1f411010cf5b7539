//! Operations on one program of supervisord: query it, start it from its section, remove it.
//!
//! supervisord notices an end up to a second late (it sleeps in `poll`); acc notices it at once. So
//! acc checks every pid that supervisord reports against the kernel. A call wakes supervisord:
//! after its answer it collects ended children.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::host::process;
use crate::host::short_sleep::short_sleep;

use super::super::{SupervisorError, pid_file};
use super::reread::{Rereads, SectionAdded};
use super::rpc::{RpcClient, RpcError};
use super::sections::SectionMatch;
use super::xmlrpc::{Value, XmlRpcFault, fault};

/// Pause before supervisord is asked again because it has not noticed an end.
const AGAIN: Duration = Duration::from_millis(4);
/// How often it is asked again: two seconds in all, twice as long as it sleeps.
const TIMES: usize = 500;

/// How long to wait for a launcher's pid file, several times what it takes, and how often to check.
/// inotify would wake acc on the launcher's CPU and delay the launcher. The first wait is shorter:
/// there may be no launcher, because supervisord accepts the start of a program that is being
/// stopped and does nothing.
const NOTE_LIMIT: Duration = Duration::from_millis(100);
const NOTE_FIRST: Duration = Duration::from_millis(6);
const NOTE_CHECK: Duration = Duration::from_micros(400);

/// supervisord's process states that acc uses.
pub(super) mod state {
    pub(in super::super) const STOPPED: i64 = 0;
    pub(in super::super) const STOPPING: i64 = 40;
    pub(in super::super) const BACKOFF: i64 = 30;
    pub(in super::super) const EXITED: i64 = 100;
}

/// What supervisord reports about one of its programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Info {
    /// 0: none runs.
    pub(super) pid: i32,
    pub(super) state: i64,
    /// Of the last run; -1: ended by a signal.
    pub(super) exit_status: i64,
    /// It ran at least once since supervisord started.
    pub(super) ran: bool,
    /// Why the last start failed.
    pub(super) spawn_error: String,
}

/// How a start ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Launched {
    /// It ran already, with this pid.
    Already(i32),
    /// It was started with this pid; it may have ended since. [`ENDED_AT_ONCE`]: before its pid was
    /// known.
    Started(i32),
}

/// A pid above the highest one of any kernel (2^22), for a process that ended before supervisord
/// could report it. A wait for it ends at once, and supervisord knows how it ended.
pub(super) const ENDED_AT_ONCE: i32 = i32::MAX;

/// The result of one attempt to start.
enum Attempt {
    Done(Launched),
    /// supervisord has not noticed the end of the last run.
    NotYet,
    /// It has no such group.
    Unknown,
}

/// One program and its section.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProgramGroup<'a> {
    pub(super) client: &'a RpcClient,
    pub(super) sections: &'a Rereads,
    /// Name of the section, the group and the process: all the same.
    pub(super) name: &'a str,
    /// Its name in messages.
    pub(super) shown: &'a str,
}

impl Info {
    pub(super) fn read(value: &Value) -> Result<Self, RpcError> {
        let number = |name: &str| {
            value
                .int(name)
                .ok_or_else(|| RpcError::Broken(format!("`{name}` is missing in its answer")))
        };
        Ok(Self {
            pid: i32::try_from(number("pid")?).unwrap_or(0),
            state: number("state")?,
            exit_status: number("exitstatus")?,
            ran: number("start")? != 0,
            spawn_error: value.str("spawnerr").unwrap_or_default().to_owned(),
        })
    }
}

impl ProgramGroup<'_> {
    fn param(&self) -> Value {
        Value::text(self.name)
    }

    /// What supervisord reports about it; `None`: it has no such program.
    pub(super) async fn info(&self) -> Result<Option<Info>, RpcError> {
        match self
            .client
            .call("supervisor.getProcessInfo", &[self.param()])
            .await
        {
            Ok(value) => Info::read(&value).map(Some),
            Err(e) if e.code() == Some(fault::BAD_NAME) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Asks it to end; `false`: supervisord runs nothing under this name.
    pub(super) async fn stop(&self) -> Result<bool, RpcError> {
        match self
            .client
            .call(
                "supervisor.stopProcess",
                &[self.param(), Value::Bool(false)],
            )
            .await
        {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.code(), Some(fault::BAD_NAME | fault::NOT_RUNNING)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Removes the group from supervisord; `false`: one of its processes is alive.
    pub(super) async fn take_out(&self) -> Result<bool, RpcError> {
        for _ in 0..TIMES {
            match self
                .client
                .call("supervisor.removeProcessGroup", &[self.param()])
                .await
            {
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

    /// Makes sure that the section has this text, and starts the program unless it runs. A running
    /// one is left as it is.
    ///
    /// For a section that supervisord has it takes two calls, and only the first one before the
    /// program starts. `noted`: the pid file that the launcher writes.
    pub(super) async fn launch(
        &self,
        text: &str,
        noted: Option<&Path>,
    ) -> Result<Launched, SupervisorError> {
        let mut renew = false;
        for turn in 0..TIMES {
            let attempt =
                if renew || self.sections.kept.compare(self.name, text)? != SectionMatch::Same {
                    self.renew(text, renew, noted).await
                } else {
                    self.attempt(noted).await
                };
            match attempt.map_err(|e| self.failed(e))? {
                Attempt::Done(launched) => return Ok(launched),
                // The call made it check: the second time it usually knows.
                Attempt::NotYet if turn == 0 => {}
                Attempt::NotYet => tokio::time::sleep(AGAIN).await,
                Attempt::Unknown => renew = true,
            }
        }
        Err(self.not_started("supervisord has not noticed the end of its last run".to_owned()))
    }

    /// Puts the text in force, then tries.
    async fn renew(
        &self,
        text: &str,
        take_out: bool,
        noted: Option<&Path>,
    ) -> Result<Attempt, RpcError> {
        // A group without a file hardly exists; if it does, supervisord says so.
        let mut take_out = take_out || self.sections.kept.has(self.name);
        loop {
            if take_out && !self.take_out().await? {
                return match self.info().await? {
                    Some(info) if alive(info.pid) => Ok(Attempt::Done(Launched::Already(info.pid))),
                    _ => Ok(Attempt::NotYet),
                };
            }
            match self.sections.add(self.client, self.name, text).await? {
                SectionAdded::Now => {
                    return Ok(match self.attempt(noted).await? {
                        // supervisord started the service itself when it was added.
                        Attempt::Done(Launched::Already(pid)) => {
                            Attempt::Done(Launched::Started(pid))
                        }
                        other => other,
                    });
                }
                SectionAdded::WasThere => take_out = true,
            }
        }
    }

    /// Starts it, then reads the pid that its launcher wrote, or asks supervisord. The query is a
    /// separate call: together with the first it would delay the program.
    async fn attempt(&self, noted: Option<&Path>) -> Result<Attempt, RpcError> {
        let started = match self
            .client
            .call(
                "supervisor.startProcess",
                &[self.param(), Value::Bool(false)],
            )
            .await
        {
            Ok(_) => Ok(()),
            Err(RpcError::Fault(refused)) if refused.code == fault::BAD_NAME => {
                return Ok(Attempt::Unknown);
            }
            Err(RpcError::Fault(refused)) => Err(refused),
            Err(other) => return Err(other),
        };
        let noted = noted.filter(|_| started.is_ok());
        if let Some(pid) = heard(noted, NOTE_FIRST).await {
            return Ok(Attempt::Done(Launched::Started(pid)));
        }
        let Some(mut after) = self.info().await? else {
            return Ok(Attempt::Unknown);
        };
        if noted.is_some() && after.pid > 0 && after.state != state::STOPPING {
            if let Some(pid) = heard(noted, NOTE_LIMIT).await {
                return Ok(Attempt::Done(Launched::Started(pid)));
            }
            let Some(now) = self.info().await? else {
                return Ok(Attempt::Unknown);
            };
            after = now;
        }
        judge(started, &after)
    }

    /// Converts the error of a call to one of the supervisor.
    pub(super) fn failed(&self, error: RpcError) -> SupervisorError {
        match error {
            RpcError::Fault(refused) if refused.code != fault::SHUTDOWN => {
                self.not_started(refused.text)
            }
            other => unreachable(self.client, &other),
        }
    }

    pub(super) fn not_started(&self, why: String) -> SupervisorError {
        SupervisorError::NotStarted {
            name: self.shown.to_owned(),
            why,
        }
    }
}

/// Reads which process the launcher has become. The launcher usually writes this before supervisord
/// could answer another call, and saves supervisord, one thread that parses XML, half of its work.
/// `None`: no pid was written, because supervisord did not start the program (it accepts the start
/// of one that is being stopped), or because the host is busy.
async fn heard(path: Option<&Path>, limit: Duration) -> Option<i32> {
    let path = path?;
    let until = Instant::now() + limit;
    loop {
        if let Ok(Some(process)) = pid_file::process(path) {
            return Some(process.pid);
        }
        if Instant::now() >= until {
            return None;
        }
        short_sleep(NOTE_CHECK).await;
    }
}

/// Combines the answer to a start with the state after it.
fn judge(started: Result<(), XmlRpcFault>, after: &Info) -> Result<Attempt, RpcError> {
    let runs = || {
        Ok(if alive(after.pid) {
            Attempt::Done(Launched::Already(after.pid))
        } else {
            Attempt::NotYet
        })
    };
    // supervisord collects ended children all the time: on a busy host it may have collected this
    // one already.
    let ran = after.pid == 0 && after.ran && after.state == state::EXITED;
    if after.state == state::BACKOFF && !after.spawn_error.is_empty() {
        // A service that ended too soon, and is about to be started again.
        return Err(RpcError::Fault(XmlRpcFault {
            code: fault::SPAWN_ERROR,
            text: after.spawn_error.clone(),
        }));
    }
    match started {
        // It accepts the start of a program that is being stopped, and does nothing. If that had
        // ended, it would know by now.
        Ok(()) if after.state == state::STOPPING => runs(),
        Ok(()) if after.state == state::STOPPED => Ok(Attempt::NotYet),
        Ok(()) if after.pid > 0 => Ok(Attempt::Done(Launched::Started(after.pid))),
        Ok(()) if ran => Ok(Attempt::Done(Launched::Started(ENDED_AT_ONCE))),
        Ok(()) => Err(RpcError::Broken(
            "it reports a start but has no process".to_owned(),
        )),
        Err(refused) if refused.code == fault::ALREADY_STARTED => runs(),
        Err(refused) if refused.code == fault::SPAWN_ERROR && ran => {
            Ok(Attempt::Done(Launched::Started(ENDED_AT_ONCE)))
        }
        Err(mut refused) => {
            if !after.spawn_error.is_empty() {
                refused.text.clone_from(&after.spawn_error);
            }
            Err(RpcError::Fault(refused))
        }
    }
}

/// The error "could not ask supervisord".
pub(super) fn unreachable(client: &RpcClient, why: &RpcError) -> SupervisorError {
    let why = match why {
        RpcError::Fault(refused) if refused.code == fault::SHUTDOWN => {
            "it is shutting down".to_owned()
        }
        other => other.to_string(),
    };
    SupervisorError::Unreachable {
        what: format!("supervisord on `{}`", client.socket().display()),
        why,
    }
}

/// If the kernel cannot be asked, the process counts as alive, so that nothing is started twice.
fn alive(pid: i32) -> bool {
    pid > 0 && process::start_time(pid).map_or(true, |start| start.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(pid: i32, state: i64) -> Info {
        Info {
            pid,
            state,
            exit_status: 0,
            ran: true,
            spawn_error: String::new(),
        }
    }

    fn refused(code: i64) -> Result<(), XmlRpcFault> {
        Err(XmlRpcFault {
            code,
            text: "no".to_owned(),
        })
    }

    #[test]
    fn a_start_and_what_is_true_afterwards_say_what_came_of_it() {
        const RUNNING: i64 = 20;
        let me = std::process::id().cast_signed();
        let judged = |started, after: Info| match judge(started, &after) {
            Ok(Attempt::Done(Launched::Started(ENDED_AT_ONCE))) => "ended at once".to_owned(),
            Ok(Attempt::Done(Launched::Started(pid))) => format!("started {}", pid == me),
            Ok(Attempt::Done(Launched::Already(pid))) => format!("already {}", pid == me),
            Ok(Attempt::NotYet) => "not yet".to_owned(),
            Ok(Attempt::Unknown) => "unknown".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(judged(Ok(()), info(me, RUNNING)), "started true");
        assert_eq!(judged(Ok(()), info(0, state::EXITED)), "ended at once");
        assert_eq!(
            judged(Ok(()), info(0, state::STOPPED)),
            "not yet",
            "its end was noticed, it was not started"
        );
        assert_eq!(
            judged(Ok(()), info(me, state::STOPPING)),
            "already true",
            "the one that is being stopped"
        );
        assert_eq!(
            judged(Ok(()), info(i32::MAX - 1, state::STOPPING)),
            "not yet"
        );
        assert!(judged(Ok(()), info(0, RUNNING)).starts_with("it reports a start"));
        assert_eq!(
            judged(refused(fault::ALREADY_STARTED), info(me, RUNNING)),
            "already true"
        );
        assert_eq!(
            judged(refused(fault::ALREADY_STARTED), info(i32::MAX - 1, RUNNING)),
            "not yet"
        );
        assert_eq!(
            judged(refused(fault::ALREADY_STARTED), info(0, state::EXITED)),
            "not yet"
        );
        assert_eq!(
            judged(refused(fault::SPAWN_ERROR), info(0, state::EXITED)),
            "ended at once"
        );
        assert_eq!(judged(refused(1), info(0, state::STOPPED)), "no (fault 1)");
        let failed = Info {
            spawn_error: "too quickly".to_owned(),
            ..info(0, state::BACKOFF)
        };
        assert_eq!(judged(Ok(()), failed.clone()), "too quickly (fault 50)");
        assert_eq!(
            judged(refused(fault::ALREADY_STARTED), failed),
            "too quickly (fault 50)"
        );
    }
}
