//! The supervisor of the simulation: it starts and ends the processes of the host.

use super::*;

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

/// The process of a run that [`identity`] made.
fn pid_of(run_id: &RunId) -> i32 {
    run_id.process().unwrap().pid
}

#[async_trait]
impl Runner for Drivers {
    fn capabilities(&self) -> Capabilities {
        Capabilities::LAUNCHED
    }

    async fn start(&self, program: &Program) -> Result<RunId, SupervisorError> {
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

    async fn find(&self, name: &InstanceName) -> Result<Option<RunId>, SupervisorError> {
        self.ask("find", name.as_str()).await?;
        Ok(self
            .0
            .state()
            .process(who(name.as_str()))
            .map(|p| identity(p.pid)))
    }

    async fn running(&self) -> Result<Vec<(InstanceName, RunId)>, SupervisorError> {
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

    async fn terminate(&self, program: &Program, run_id: &RunId) -> Result<(), SupervisorError> {
        self.ask("terminate", program.name.as_str()).await?;
        let (pid, who) = (pid_of(run_id), who(program.name.as_str()));
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
        run_id: &RunId,
    ) -> Result<(), SupervisorError> {
        self.ask("kill", name.as_str()).await?;
        {
            let mut s = self.0.state();
            s.may_signal(pid_of(run_id), true, self.0.profile.nginx);
            let now = s.now;
            s.end(pid_of(run_id), now, Exit::Signal(9));
        }
        self.0.poke();
        self.0.done().await;
        Ok(())
    }

    async fn wait(
        &self,
        name: &InstanceName,
        _account: &Account,
        run_id: &RunId,
    ) -> Result<Exit, SupervisorError> {
        self.ask("wait", name.as_str()).await?;
        let pid = pid_of(run_id);
        let exit = self.0.until(|s| {
            let gone = !s.procs.contains_key(&pid);
            gone.then(|| s.ended.get(&pid).copied().unwrap_or(Exit::Unknown))
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
