//! What must be true: in between, and when everything has come to rest.

use super::actions::Life;
use super::drivers::who as number;
use super::host::{DRAIN, IDLE, NAMES, State, WAKE, Why};
use crate::domain::instance::{DesiredState, RunId};
use crate::domain::lifecycle::Phase;
use crate::service::request::Request;
use crate::store::sqlite::SqliteStore;
use crate::store::{Filter, Row};

/// A gate may lead nowhere, and a phase be wrong, for this long: until acc has heard of it.
const SOON: u64 = 5_000;
/// Every verb and every request ends within this time.
const LONGEST: u64 = 900_000;

impl Life {
    fn rows(&self) -> Vec<Row> {
        self.world.store.list(&Filter::default()).unwrap()
    }

    /// Looks at what must hold at every moment.
    pub(super) fn look(&self) {
        let rows = SqliteStore::of(&*self.world.store).phases();
        // A full disk makes rows lag behind what acc knows.
        let live: Vec<usize> = self
            .world
            .registry
            .all()
            .iter()
            .filter(|h| h.snapshot().phase.is_live())
            .map(|h| number(h.instance.name.as_str()))
            .collect();
        let mut s = self.host.state();
        let now = s.now;
        for (who, name) in NAMES.iter().enumerate() {
            let answers = s.process(who).is_some_and(|p| p.accepts(now));
            let rests =
                |phase: &str| phase == Phase::Asleep.as_str() || phase == Phase::Failed.as_str();
            let lost = s
                .process(who)
                .is_some_and(|p| p.served && !p.stopping && p.accepts(now));
            if lost
                && !live.contains(&who)
                && rows.iter().any(|(row, phase)| row == name && rests(phase))
            {
                s.violate(format!("{name} serves, and acc has forgotten it"));
            }
            let awake = rows
                .iter()
                .any(|(row, phase)| row == name && phase == Phase::Awake.as_str());
            let wrong =
                !answers && (awake || self.host.profile.nginx && s.gates.contains_key(&who));
            let since = *s.wrong_since[who].get_or_insert(now);
            if !wrong {
                s.wrong_since[who] = None;
            } else if now - since > SOON
                && !s.excused(&[Why::Outage], who, since.saturating_sub(SOON), now)
            {
                s.violate(format!(
                    "{} does not answer, yet is awake ({awake}) or its gate is open",
                    name
                ));
            }
        }
        if let Some(verb) = s.verbs.values().find(|v| now - v.since > LONGEST).cloned() {
            s.violate(format!("it has not ended: {verb:?}"));
        }
    }

    /// Nothing is broken any more, and processes that will die by themselves do no longer.
    pub(super) fn heal(&self) {
        let mut s = self.host.state();
        s.say(format_args!("HEALED"));
        s.out = Default::default();
        s.crash_in = None;
        s.faults = false;
        for process in s.procs.values_mut().filter(|p| !p.stopping) {
            process.dies = None;
        }
        s.end_excuse(Why::Outage, None);
    }

    /// Waits for all that is under way.
    async fn rest(&self) {
        let began = self.host.now();
        loop {
            let open = {
                let s = self.host.state();
                (
                    s.verbs.values().next().map(|v| v.request.clone()),
                    s.asked.keys().next().copied(),
                    s.flights.len(),
                )
            };
            if open == (None, None, 0) {
                return;
            }
            if self.host.now() - began > LONGEST || self.host.violation().is_some() {
                return self
                    .host
                    .violate(format!("it does not come to rest: {open:?}"));
            }
            self.let_go_by(1000).await;
        }
    }

    async fn pass(&self) {
        self.verb(
            0,
            0,
            Request::Monitor {
                dry_run: false,
                thorough: false,
            },
        );
        self.rest().await;
        self.let_go_by(10_000).await;
    }

    /// Everything comes to rest; then nothing is left that is not true, and everything that may
    /// serve does.
    pub(super) async fn settle(&self, next: &mut u64) {
        self.rest().await;
        // A start that hangs is given up after the start timeout.
        self.let_go_by(WAKE + DRAIN).await;
        for _ in 0..2 {
            self.pass().await;
        }
        self.check_truth("at rest", false);
        self.let_go_by(super::host::BACK_OFF + 1_000).await;
        self.serve_all(next).await;
        // Held requests are let through before the gate is open: a slow edge may still be at it.
        self.let_go_by(5_000).await;
        self.check_truth("after one request to each", false);
        for _ in 0..2 {
            self.let_go_by(IDLE + 1_000).await;
            self.pass().await;
        }
        self.check_truth("after the idle time", true);
    }

    async fn serve_all(&self, next: &mut u64) {
        for row in self.rows() {
            let in_service = !matches!(row.stored.phase, Phase::Destroyed | Phase::Creating);
            if in_service && row.stored.desired != DesiredState::Down {
                self.request(number(row.name.as_str()), 100, next, true);
                self.let_go_by(10).await;
            }
        }
        self.rest().await;
    }

    /// Rows, handles, processes, gates and folders agree.
    pub(super) fn check_truth(&self, when: &str, idle: bool) {
        let rows = self.rows();
        let unfinished = self.world.store.unfinished().unwrap();
        let handles = self.world.registry.all();
        let config = self.world.config();
        let mut s = self.host.state();
        if !unfinished.is_empty() {
            s.violate(format!("{when}: operations still run: {unfinished:?}"));
        }
        for row in &rows {
            let wrong = s.wrong(row, self.host.profile.nginx, idle);
            if let Some(wrong) = wrong {
                s.violate(format!(
                    "{when}: {} is {}, and {wrong}",
                    row.name,
                    row.stored.phase.as_str()
                ));
            }
            if !config.instance_dir(row.name.as_str()).is_dir() {
                s.violate(format!("{when}: {} has no folder", row.name));
            }
        }
        for (who, name) in NAMES.iter().enumerate() {
            if rows.iter().any(|r| r.name.as_str() == *name) {
                continue;
            }
            if let Some(pid) = s.process(who).map(|p| p.pid) {
                s.violate(format!("{when}: process {pid} has no instance {name}"));
            }
            if s.gates.contains_key(&who) || config.instance_dir(name).exists() {
                s.violate(format!(
                    "{when}: there is no {name}, but its gate or folder"
                ));
            }
        }
        for handle in handles {
            let row = rows.iter().find(|r| r.id == handle.instance.id);
            let machine = handle.machine();
            let same = row.is_some_and(|r| {
                r.stored.phase == machine.phase() && r.stored.run == machine.run()
            });
            if !same
                || machine.tickets() > 0
                || handle.waiting.count() > 0
                || !machine.phase().is_live()
            {
                s.violate(format!(
                    "{when}: the handle of {} says {:?}, its row {:?}",
                    handle.instance.name,
                    machine,
                    row.map(|r| &r.stored)
                ));
            }
        }
    }
}

impl State {
    /// What is wrong about an instance at rest.
    fn wrong(&mut self, row: &Row, nginx: bool, idle: bool) -> Option<String> {
        let (who, now) = (number(row.name.as_str()), self.now);
        let process = self.process(who).map(|p| (p.pid, p.accepts(now)));
        let open = self.gates.contains_key(&who);
        let stored = &row.stored;
        match stored.phase {
            Phase::Awake if process.is_none_or(|p| !p.1) => Some("nothing answers".into()),
            Phase::Awake if nginx && !open => Some("its gate is closed".into()),
            Phase::Awake
                if stored
                    .run_id
                    .as_ref()
                    .and_then(RunId::process)
                    .map(|p| p.pid)
                    != process.map(|p| p.0) =>
            {
                Some("another process runs".into())
            }
            Phase::Awake if idle && stored.desired != DesiredState::Up => Some("it is idle".into()),
            Phase::Awake => None,
            Phase::Asleep | Phase::Failed | Phase::Destroyed => match process {
                Some((pid, _)) => Some(format!("process {pid} runs")),
                None if nginx && open => Some("its gate is open".into()),
                None if stored.phase == Phase::Asleep && stored.desired == DesiredState::Up => {
                    Some("desired state: up".into())
                }
                None => None,
            },
            Phase::Creating | Phase::Waking | Phase::Draining | Phase::Stopping => {
                Some("that is no phase to rest in".into())
            }
        }
    }
}
