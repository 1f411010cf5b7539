//! The drivers of the simulated host. Each call may be slow, fail, or be the last thing acc does.
//!
//! They hold the promises that stand in the traits, and they check what acc does with them.

mod supervisor;

use std::sync::Arc;

use async_trait::async_trait;

use super::host::{DRAIN, Host, IDLE, Manner, NAMES, Proc, State, Why};
use crate::domain::account::Account;
use crate::domain::instance::{Exit, Listen, Process, RunId};
use crate::domain::name::InstanceName;
use crate::domain::time::{Timestamp, WallTime};
use crate::driver::activity::{Activity, ActivityError, Seen, Target};
use crate::driver::edge::{Edge, EdgeError, Gate, Route};
use crate::driver::probe::{NotifySocket, Obstacle, Probe, ProbeTarget, Readiness};
use crate::driver::supervisor::{
    Capabilities, Ensured, OwnServices, Program, Runner, Service, SupervisorError,
};
use crate::host::clock::Clock;

pub(super) struct Drivers(pub(super) Arc<Host>);

/// The number of a name.
pub(super) fn who(name: &str) -> usize {
    NAMES.iter().position(|n| *n == name).unwrap()
}

/// The number of the instance that listens there: the last folder of the socket's path.
fn who_listens(listen: &Listen) -> usize {
    let Listen::Unix(path) = listen else {
        panic!("{listen:?}")
    };
    who(path
        .parent()
        .and_then(|p| p.file_name())
        .and_then(|n| n.to_str())
        .unwrap())
}

fn identity(pid: i32) -> RunId {
    RunId::from(Process {
        pid,
        start_time: u64::from(pid.unsigned_abs()),
    })
}

impl Clock for Drivers {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.now())
    }
    fn wall(&self) -> WallTime {
        let s = self.0.state();
        WallTime(s.wall(s.now))
    }
}

fn unreachable() -> SupervisorError {
    SupervisorError::Unreachable {
        what: "the supervisor".into(),
        why: "it is away".into(),
    }
}

impl Drivers {
    async fn ask(&self, action: &'static str, on: &str) -> Result<(), SupervisorError> {
        self.0.call(action, on).await;
        if self.0.state().out.supervisor {
            Err(unreachable())
        } else {
            Ok(())
        }
    }
}

impl Drivers {
    async fn gate(&self, action: &'static str, on: &str) -> Result<(), EdgeError> {
        self.0.call(action, on).await;
        let broken = self.0.profile.nginx && self.0.state().out.edge;
        if broken {
            Err(EdgeError::Unusable("set to fail".into()))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl Edge for Drivers {
    fn kind(&self) -> &'static str {
        "fake"
    }
    fn access_log(&self, name: &InstanceName) -> Option<std::path::PathBuf> {
        self.0.profile.nginx.then(|| name.as_str().into())
    }
    async fn prepare(&self, _: &[Route]) -> Result<(), EdgeError> {
        Ok(())
    }
    async fn apply(&self, _: &[Route]) -> Result<(), EdgeError> {
        self.gate("apply", "").await
    }

    async fn open(&self, gate: &Gate) -> Result<(), EdgeError> {
        self.gate("open", gate.name.as_str()).await?;
        {
            let mut s = self.0.state();
            let (who, now) = (who(gate.name.as_str()), s.now);
            let answers = s
                .process(who)
                .is_some_and(|p| p.listens.is_some_and(|at| at <= now));
            // One that died a moment ago, or while the supervisor was away, cannot be known to be
            // dead.
            if !answers
                && !s.excused(
                    &[Why::Fault, Why::Outage],
                    who,
                    now.saturating_sub(5_000),
                    now,
                )
            {
                s.violate(format!(
                    "the gate of {} was opened before it answers",
                    gate.name
                ));
            }
            if let Some(process) = s.process(who) {
                process.served = true;
            }
            s.gates.insert(who, gate.run);
        }
        self.0.done().await;
        Ok(())
    }

    async fn close(&self, gate: &Gate) -> Result<(), EdgeError> {
        let who = who(gate.name.as_str());
        self.gate("close", gate.name.as_str()).await?;
        self.0.state().gates.remove(&who);
        // Who passed the gate before has connected when this returns.
        while self.0.state().transit[who] > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        self.0.done().await;
        Ok(())
    }

    async fn open_gates(&self) -> Result<Vec<InstanceName>, EdgeError> {
        self.gate("open gates", "").await?;
        let s = self.0.state();
        Ok(s.gates
            .keys()
            .map(|who| InstanceName::parse(NAMES[*who]).unwrap())
            .collect())
    }

    fn pooled(&self, _: &Gate) -> u32 {
        0
    }

    async fn forget(&self, name: &InstanceName) -> Result<(), EdgeError> {
        self.gate("forget the gate of", name.as_str()).await?;
        let mut s = self.0.state();
        let who = who(name.as_str());
        s.gates.remove(&who);
        s.logs[who] = crate::driver::activity::LogMark::default();
        Ok(())
    }
}

#[async_trait]
impl Probe for Drivers {
    async fn clear(&self, probe_target: &ProbeTarget) -> Result<Option<NotifySocket>, Obstacle> {
        self.0.call("clear", "").await;
        let who = who_listens(&probe_target.listen);
        let mut s = self.0.state();
        let now = s.now;
        match s.process(who) {
            Some(process) if process.accepts(now) => {
                Err(Obstacle::Other("somebody answers there".into()))
            }
            _ => Ok(None),
        }
    }

    fn at_once(&self, probe_target: &ProbeTarget, _: Option<Process>) -> Option<Readiness> {
        let mut s = self.0.state();
        let now = s.now;
        s.process(who_listens(&probe_target.listen))
            .filter(|p| p.accepts(now))
            .map(|_| Readiness::default())
    }

    async fn ready(
        &self,
        probe_target: &ProbeTarget,
        _: Option<Process>,
        _: Option<NotifySocket>,
    ) -> Result<Readiness, String> {
        let who = who_listens(&probe_target.listen);
        self.0
            .until(|s| {
                let now = s.now;
                s.process(who).filter(|p| p.accepts(now)).map(|_| ())
            })
            .await;
        self.0.done().await;
        Ok(Readiness::default())
    }

    fn describe(&self, _: &ProbeTarget) -> String {
        "an answer".into()
    }
}

#[async_trait]
impl Activity for Drivers {
    async fn sample(&self, targets: &[Target]) -> Result<Vec<Seen>, ActivityError> {
        self.0.call("look", "").await;
        let mut s = self.0.state();
        if s.out.activity {
            return Err(ActivityError {
                what: "blind".into(),
                source: std::io::Error::other("set to fail"),
            });
        }
        let mut see = |t: &Target| {
            let who = who_listens(&t.listen);
            if t.log.is_some() {
                s.looked(who);
            }
            let connections =
                u32::try_from(s.flights.values().filter(|f| f.who == who).count()).unwrap();
            Seen {
                connections,
                mark: if t.log.is_some() {
                    s.logs[who]
                } else {
                    Default::default()
                },
            }
        };
        Ok(targets.iter().map(&mut see).collect())
    }
}
