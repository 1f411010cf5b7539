//! A supervisor in memory for tests of its callers: its runs end when a test says so. They are no
//! processes of this host, so that what asks for more than a runner offers fails with it.
//!
//! It passes the same suite as the real ones where no process is needed. A test can make it fail,
//! delay starts, make it unreachable, and let processes ignore their stop signal.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::domain::account::Account;
use crate::domain::instance::{Exit, Process, RunId};
use crate::domain::name::InstanceName;

use super::locks::Locks;
use super::{Capabilities, Ensured, OwnServices, Program, Runner, Service, SupervisorError};

/// Pids start above the highest one of any kernel, so that a mistake signals no process.
const FIRST_PID: i32 = 100_000_000;

type Hook = Box<dyn Fn(&Program) + Send + Sync>;

/// The fake supervisor.
#[derive(Default)]
pub struct Fake {
    state: Mutex<FakeProcesses>,
    locks: Locks,
}

#[derive(Default)]
struct FakeProcesses {
    calls: Vec<String>,
    accounts: Vec<(InstanceName, Account)>,
    running: BTreeMap<InstanceName, RunId>,
    services: BTreeMap<String, Process>,
    /// Every run ever started, with how it ended.
    ends: HashMap<RunId, watch::Sender<Option<Exit>>>,
    failures: VecDeque<String>,
    stubborn: HashSet<InstanceName>,
    start_delay: Duration,
    unreachable: bool,
    on_start: Option<Hook>,
    capabilities: Option<Capabilities>,
    processes: bool,
    made: i32,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fake")
            .field("running", &self.state().running)
            .finish_non_exhaustive()
    }
}

impl Fake {
    /// Makes a fake without processes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Delays every start from now on (by tokio's clock, which tests can pause).
    pub fn delay_starts(&self, delay: Duration) {
        self.state().start_delay = delay;
    }

    /// Makes the next start fail for this reason; two calls, the next two.
    pub fn fail_next_start(&self, why: &str) {
        self.state().failures.push_back(why.to_owned());
    }

    /// Makes the instance ignore its stop signal: only a kill ends it.
    pub fn make_stubborn(&self, name: &InstanceName, stubborn: bool) {
        let mut state = self.state();
        if stubborn {
            state.stubborn.insert(name.clone());
        } else {
            state.stubborn.remove(name);
        }
    }

    /// Makes queries (`find`, `running`, `service`) fail from now on, or work again.
    pub fn make_unreachable(&self, unreachable: bool) {
        self.state().unreachable = unreachable;
    }

    /// From now on it can do only this.
    pub fn set_capabilities(&self, capabilities: Capabilities) {
        self.state().capabilities = Some(capabilities);
    }

    /// Its runs are processes from now on, for callers that ask the kernel about them.
    pub fn run_processes(&self) {
        self.state().processes = true;
    }

    /// Is called at each start, for instance to begin listening in the instance's stead.
    pub fn on_start(&self, hook: impl Fn(&Program) + Send + Sync + 'static) {
        self.state().on_start = Some(Box::new(hook));
    }

    /// Ends the instance's process in this way; does nothing if none runs.
    pub fn exit(&self, name: &InstanceName, exit: Exit) {
        let run_id = self.state().running.get(name).cloned();
        if let Some(run_id) = run_id {
            self.end(name, &run_id, exit);
        }
    }

    /// The calls so far, in order: `start a`, `terminate a`, `kill a`, `wait a`, `forget a`,
    /// `ensure_service nginx`, `stop_service nginx`, `tidy`, `boot`, `halt`. Queries are not
    /// recorded.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// The accounts that the calls for this instance named so far, in order.
    #[must_use]
    pub fn accounts(&self, name: &InstanceName) -> Vec<Account> {
        let state = self.state();
        let of_name = state.accounts.iter().filter(|(of, _)| of == name);
        of_name.map(|(_, account)| account.clone()).collect()
    }

    /// How often a process was started under this name.
    #[must_use]
    pub fn starts(&self, name: &InstanceName) -> usize {
        let start = format!("start {name}");
        self.state()
            .calls
            .iter()
            .filter(|call| **call == start)
            .count()
    }

    fn state(&self) -> MutexGuard<'_, FakeProcesses> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, call: String) {
        self.state().calls.push(call);
    }

    fn note_of(&self, verb: &str, name: &InstanceName, account: &Account) {
        self.note(format!("{verb} {name}"));
        self.state().accounts.push((name.clone(), account.clone()));
    }

    fn reachable(&self) -> Result<(), SupervisorError> {
        if self.state().unreachable {
            return Err(SupervisorError::Unreachable {
                what: "the fake supervisor".to_owned(),
                why: "the fake was set to fail".to_owned(),
            });
        }
        Ok(())
    }

    fn end(&self, name: &InstanceName, run_id: &RunId, exit: Exit) {
        let mut state = self.state();
        if state.running.get(name) == Some(run_id) {
            state.running.remove(name);
        }
        if let Some(end) = state.ends.get(run_id) {
            // The first end counts, as with real processes.
            end.send_if_modified(|reported| reported.is_none() && reported.replace(exit).is_none());
        }
    }
}

impl FakeProcesses {
    fn make_process(&mut self) -> Process {
        self.made += 1;
        Process {
            pid: FIRST_PID + self.made,
            start_time: u64::from(self.made.unsigned_abs()),
        }
    }
}

#[async_trait]
impl Runner for Fake {
    fn capabilities(&self) -> Capabilities {
        self.state().capabilities.unwrap_or(Capabilities::LAUNCHED)
    }

    async fn start(&self, program: &Program) -> Result<RunId, SupervisorError> {
        let _held = self.locks.lock(program.name.as_str()).await;
        let delay = {
            let state = self.state();
            if let Some(running) = state.running.get(&program.name) {
                return Ok(running.clone());
            }
            state.start_delay
        };
        self.note_of("start", &program.name, &program.account);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut state = self.state();
        if let Some(why) = state.failures.pop_front() {
            return Err(SupervisorError::NotStarted {
                name: program.name.to_string(),
                why,
            });
        }
        let process = state.make_process();
        let run_id = match state.processes {
            true => RunId::from(process),
            false => RunId::new(&format!("fake-{}", state.made)),
        };
        state.ends.insert(run_id.clone(), watch::Sender::new(None));
        state.running.insert(program.name.clone(), run_id.clone());
        if let Some(hook) = &state.on_start {
            hook(program);
        }
        Ok(run_id)
    }

    async fn find(&self, name: &InstanceName) -> Result<Option<RunId>, SupervisorError> {
        self.reachable()?;
        Ok(self.state().running.get(name).cloned())
    }

    async fn running(&self) -> Result<Vec<(InstanceName, RunId)>, SupervisorError> {
        self.reachable()?;
        Ok(self
            .state()
            .running
            .iter()
            .map(|(name, run_id)| (name.clone(), run_id.clone()))
            .collect())
    }

    async fn terminate(&self, program: &Program, run_id: &RunId) -> Result<(), SupervisorError> {
        self.note_of("terminate", &program.name, &program.account);
        if !self.state().stubborn.contains(&program.name) {
            self.end(&program.name, run_id, Exit::Signal(program.stop_signal));
        }
        Ok(())
    }

    async fn kill(
        &self,
        name: &InstanceName,
        account: &Account,
        run_id: &RunId,
    ) -> Result<(), SupervisorError> {
        self.note_of("kill", name, account);
        self.end(name, run_id, Exit::Signal(libc::SIGKILL));
        Ok(())
    }

    async fn wait(
        &self,
        name: &InstanceName,
        account: &Account,
        run_id: &RunId,
    ) -> Result<Exit, SupervisorError> {
        self.note_of("wait", name, account);
        let Some(mut end) = self.state().ends.get(run_id).map(watch::Sender::subscribe) else {
            return Ok(Exit::Unknown);
        };
        let exit = end
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reported| *reported);
        Ok(exit.unwrap_or(Exit::Unknown))
    }

    async fn forget(&self, name: &InstanceName, account: &Account) -> Result<(), SupervisorError> {
        self.note_of("forget", name, account);
        Ok(())
    }

    async fn tidy(&self, _live: &[InstanceName]) -> Result<(), SupervisorError> {
        self.note("tidy".to_owned());
        Ok(())
    }
}

#[async_trait]
impl OwnServices for Fake {
    fn kind(&self) -> &'static str {
        "fake"
    }

    async fn boot(&self, services: &[Service]) -> Result<Ensured, SupervisorError> {
        self.note("boot".to_owned());
        let mut ensured = Ensured::Already;
        for service in services {
            if self.ensure_service(service).await? == Ensured::Started {
                ensured = Ensured::Started;
            }
        }
        Ok(ensured)
    }

    async fn ensure_service(&self, service: &Service) -> Result<Ensured, SupervisorError> {
        self.note(format!("ensure_service {}", service.name));
        let mut state = self.state();
        if state.services.contains_key(service.name) {
            return Ok(Ensured::Already);
        }
        let process = state.make_process();
        state.services.insert(service.name.to_owned(), process);
        Ok(Ensured::Started)
    }

    async fn service(&self, name: &str) -> Result<Option<Process>, SupervisorError> {
        self.reachable()?;
        Ok(self.state().services.get(name).copied())
    }

    async fn stop_service(&self, service: &Service) -> Result<(), SupervisorError> {
        self.note(format!("stop_service {}", service.name));
        self.state().services.remove(service.name);
        Ok(())
    }

    async fn halt(&self) -> Result<(), SupervisorError> {
        self.note("halt".to_owned());
        self.state().services.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite::program;
    use super::*;
    use std::path::Path;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn it_does_what_it_is_told() {
        let fake = Arc::new(Fake::new());
        let a = program("a", Path::new("/"), &["x"]);
        fake.fail_next_start("no luck");
        assert_eq!(
            fake.start(&a).await.unwrap_err().to_string(),
            "could not start `a`: no luck"
        );
        fake.delay_starts(Duration::from_secs(3));
        let before = tokio::time::Instant::now();
        let run_id = fake.start(&a).await.unwrap();
        assert_eq!(before.elapsed(), Duration::from_secs(3));
        fake.make_stubborn(&a.name, true);
        fake.terminate(&a, &run_id).await.unwrap();
        assert_eq!(fake.find(&a.name).await.unwrap(), Some(run_id.clone()));
        fake.make_unreachable(true);
        assert!(matches!(
            fake.find(&a.name).await,
            Err(SupervisorError::Unreachable { .. })
        ));
        let waiting = tokio::spawn({
            let (fake, name, run_id) = (Arc::clone(&fake), a.name.clone(), run_id.clone());
            async move { fake.wait(&name, &Account::SameAsAcc, &run_id).await }
        });
        tokio::task::yield_now().await;
        fake.exit(&a.name, Exit::Code(4));
        fake.kill(&a.name, &a.account, &run_id).await.unwrap();
        assert_eq!(
            waiting.await.unwrap().unwrap(),
            Exit::Code(4),
            "the first end counts"
        );
        assert_eq!(
            fake.calls(),
            ["start a", "start a", "terminate a", "wait a", "kill a"]
        );
        assert_eq!(fake.starts(&a.name), 2);
    }
}
