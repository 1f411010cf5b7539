//! The drivers of the simulated host. Each call may be slow, fail, or be the last thing acc does.
//!
//! They hold the promises that stand in the traits, and they check what acc does with them.

use std::sync::Arc;

use async_trait::async_trait;

use super::host::{DRAIN, Host, IDLE, Manner, NAMES, Proc, State, Why};
use crate::domain::account::Account;
use crate::domain::instance::{Exit, Listen, Process};
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

fn identity(pid: i32) -> Process {
    Process {
        pid,
        start_time: u64::from(pid.unsigned_abs()),
    }
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
    async fn ask(&self, deed: &'static str, on: &str) -> Result<(), SupervisorError> {
        self.0.call(deed, on).await;
        if self.0.state().out.supervisor {
            Err(unreachable())
        } else {
            Ok(())
        }
    }
}

impl State {
    /// A new process, and everything that will ever happen to it by itself.
    fn spawn(&mut self, who: usize, faults: bool) -> i32 {
        let (pid, now) = (self.next_pid(), self.now);
        self.stats.starts += 1;
        let born = now + self.rng(Some(who)).below(30);
        let mut process = Proc {
            pid,
            who,
            born,
            listens: Some(born + self.rng(Some(who)).between(1, 500)),
            dies: None,
            manner: [
                Manner::Graceful,
                Manner::Graceful,
                Manner::Abrupt,
                Manner::Deaf,
            ][usize::try_from(self.rng(Some(who)).below(4)).unwrap()],
            stopping: false,
            served: false,
            may_cut: false,
        };
        if faults && self.rng(Some(who)).percent(30) {
            let later = self.rng(Some(who)).between(1, 60_000);
            let mut dies = None;
            match self.rng(Some(who)).below(6) {
                0 => {
                    (process.listens, dies) = (
                        None,
                        Some((
                            born + later % 400,
                            Exit::Code(i32::try_from(later % 3).unwrap()),
                        )),
                    )
                }
                1 => process.listens = None,
                2 => process.listens = Some(born + later / 2),
                3 => dies = Some((born + later, Exit::Code(0))),
                4 => dies = Some((born + later, Exit::Code(1))),
                _ => dies = Some((born + later % 1000, Exit::Signal(11))),
            }
            process.dies = dies;
            process.may_cut = dies.is_some();
            self.excuse(
                Why::Fault,
                Some(who),
                now,
                dies.map_or(now + 60_000, |d| d.0),
            );
        }
        self.say(format_args!("  {process:?}"));
        self.procs.insert(pid, process);
        pid
    }

    /// A signal to a process: may it come now?
    fn may_signal(&mut self, pid: i32, kill: bool, nginx: bool) {
        let (now, in_flight) = (self.now, self.in_flight(pid));
        let Some(process) = self.procs.get(&pid) else {
            return;
        };
        let (who, told, may_cut, born) =
            (process.who, process.stopping, process.may_cut, process.born);
        let name = NAMES[who];
        // A create that failed is undone like a stop: whoever still uses it has the drain timeout.
        let drained = |why| self.excused_since(why, who, now.saturating_sub(DRAIN));
        let cut = self.excused(&[Why::Cut], who, now.saturating_sub(1000), now)
            || drained(Why::Stop)
            || drained(Why::Gone);
        if cut && let Some(process) = self.procs.get_mut(&pid) {
            process.may_cut = true;
        } else if in_flight > 0 && !may_cut {
            self.violate(format!(
                "{name} was {} with {in_flight} in flight",
                if kill { "killed" } else { "stopped" }
            ));
        }
        if told
            || kill
            || self.excused(
                &[Why::Stop, Why::Cut, Why::Gone, Why::Fault, Why::Outage],
                who,
                now.saturating_sub(60_000),
                now,
            )
        {
            return;
        }
        if !nginx {
            // acc lets every request through by itself: it knows all use at every moment.
            self.looked(who);
        }
        let quiet = now.saturating_sub(self.last_use[who].max(born));
        if quiet < IDLE {
            self.violate(format!("{name} was put to sleep after {quiet} ms"));
        }
    }

    fn end(&mut self, pid: i32, at: u64, exit: Exit) {
        if let Some(process) = self.procs.get_mut(&pid)
            && process.dies.is_none_or(|d| d.0 > at)
        {
            process.dies = Some((at, exit));
        }
    }
}

#[async_trait]
impl Runner for Drivers {
    fn capabilities(&self) -> Capabilities {
        Capabilities::LAUNCHED
    }

    async fn start(&self, program: &Program) -> Result<Process, SupervisorError> {
        let name = program.name.as_str();
        self.ask("start", name).await?;
        let who = who(name);
        let (pid, born, lost) = {
            let mut s = self.0.state();
            let faults = s.faults;
            if faults && s.rng(Some(who)).percent(3) {
                let now = s.now;
                s.excuse(Why::Fault, Some(who), now, now);
                return Err(SupervisorError::NotStarted {
                    name: name.into(),
                    why: "set to fail".into(),
                });
            }
            // One that is about to be born counts too: there is never a second one.
            let there = s
                .procs
                .values()
                .find(|p| p.who == who)
                .map(|p| (p.pid, p.stopping));
            if let Some((pid, true)) = there {
                s.violate(format!(
                    "{name} was started while process {pid} was still ending"
                ));
            }
            let pid = there.map_or_else(|| s.spawn(who, faults), |p| p.0);
            let lost = faults && s.rng(Some(who)).percent(2);
            if lost {
                let now = s.now;
                s.excuse(Why::Fault, Some(who), now, now + 60_000);
            }
            (pid, s.procs[&pid].born, lost)
        };
        self.0.poke();
        self.0.until(|s| (s.now >= born).then_some(())).await;
        self.0.done().await;
        if lost {
            Err(unreachable())
        } else {
            Ok(identity(pid))
        }
    }

    async fn find(&self, name: &InstanceName) -> Result<Option<Process>, SupervisorError> {
        self.ask("find", name.as_str()).await?;
        Ok(self
            .0
            .state()
            .process(who(name.as_str()))
            .map(|p| identity(p.pid)))
    }

    async fn running(&self) -> Result<Vec<(InstanceName, Process)>, SupervisorError> {
        self.ask("running", "").await?;
        let mut s = self.0.state();
        let all: Vec<_> = (0..NAMES.len())
            .filter_map(|who| s.process(who).map(|p| (who, p.pid)))
            .collect();
        Ok(all
            .into_iter()
            .map(|(who, pid)| (InstanceName::parse(NAMES[who]).unwrap(), identity(pid)))
            .collect())
    }

    async fn terminate(&self, program: &Program, process: Process) -> Result<(), SupervisorError> {
        self.ask("terminate", program.name.as_str()).await?;
        let (pid, who) = (process.pid, who(program.name.as_str()));
        {
            let mut s = self.0.state();
            s.may_signal(pid, false, self.0.profile.nginx);
            let now = s.now;
            let last = s
                .flights
                .values()
                .filter(|f| f.pid == pid)
                .map(|f| f.ends)
                .max()
                .unwrap_or(now);
            let soon = now + s.rng(Some(who)).below(50);
            if let Some(process) = s.procs.get_mut(&pid) {
                process.stopping = true;
                let manner = process.manner;
                s.stats.stops += 1;
                match manner {
                    Manner::Graceful => s.end(pid, last.max(soon), Exit::Code(0)),
                    Manner::Abrupt => s.end(pid, soon, Exit::Signal(15)),
                    Manner::Deaf => {}
                }
            }
        }
        self.0.poke();
        self.0.done().await;
        Ok(())
    }

    async fn kill(
        &self,
        name: &InstanceName,
        _account: &Account,
        process: Process,
    ) -> Result<(), SupervisorError> {
        self.ask("kill", name.as_str()).await?;
        {
            let mut s = self.0.state();
            s.may_signal(process.pid, true, self.0.profile.nginx);
            let now = s.now;
            s.end(process.pid, now, Exit::Signal(9));
        }
        self.0.poke();
        self.0.done().await;
        Ok(())
    }

    async fn wait(
        &self,
        name: &InstanceName,
        _account: &Account,
        process: Process,
    ) -> Result<Exit, SupervisorError> {
        self.ask("wait", name.as_str()).await?;
        let exit = self.0.until(|s| {
            let gone = !s.procs.contains_key(&process.pid);
            gone.then(|| s.ended.get(&process.pid).copied().unwrap_or(Exit::Unknown))
        });
        let exit = exit.await;
        self.0.done().await;
        Ok(exit)
    }

    async fn forget(&self, name: &InstanceName, _account: &Account) -> Result<(), SupervisorError> {
        self.ask("forget", name.as_str()).await?;
        let mut s = self.0.state();
        if let Some(pid) = s.process(who(name.as_str())).map(|p| p.pid) {
            let now = s.now;
            if !s.excused(
                &[Why::Fault, Why::Outage],
                who(name.as_str()),
                now.saturating_sub(60_000),
                now,
            ) {
                s.violate(format!("{name} is forgotten while process {pid} runs"));
            }
        }
        Ok(())
    }

    async fn tidy(&self, _: &[InstanceName]) -> Result<(), SupervisorError> {
        self.ask("tidy", "").await
    }
}

#[async_trait]
impl OwnServices for Drivers {
    fn kind(&self) -> &'static str {
        "fake"
    }

    async fn boot(&self, _: &[Service]) -> Result<Ensured, SupervisorError> {
        Ok(Ensured::Already)
    }

    async fn ensure_service(&self, _: &Service) -> Result<Ensured, SupervisorError> {
        Ok(Ensured::Already)
    }

    async fn service(&self, _: &str) -> Result<Option<Process>, SupervisorError> {
        Ok(None)
    }

    async fn stop_service(&self, _: &Service) -> Result<(), SupervisorError> {
        Ok(())
    }

    async fn halt(&self) -> Result<(), SupervisorError> {
        Ok(())
    }
}

impl Drivers {
    async fn gate(&self, deed: &'static str, on: &str) -> Result<(), EdgeError> {
        self.0.call(deed, on).await;
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

    fn at_once(&self, probe_target: &ProbeTarget, _: Process) -> Option<Readiness> {
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
