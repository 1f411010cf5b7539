//! The service over fakes, with time that only moves when everybody waits.

mod accounts;
mod clock;
mod fit;
mod found;
mod ground;
mod many;
mod monitor;
mod reads;
mod refusals;
mod registry;
mod unwritten;
mod wakes;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::admission::{Admission, Admitted, Caller, Ticket};
use super::context::Parts;
use super::error::{ErrorKind, ServiceError};
use super::handler::{EntryPoint, RequestCaller};
use super::lookup::{find, find_row};
use super::outcome::{InstanceView, Outcome};
use super::request::{NewInstance, Request};
use super::world::World;
use super::*;
use crate::config::env::Env;
use crate::config::{self, Config};
use crate::domain::account::Account;
use crate::domain::admission::Refusal;
use crate::domain::event_kind::EventKind;
use crate::domain::instance::{DesiredState, Exit, Listen, Process};
use crate::domain::name::{HostName, InstanceId, InstanceName};
use crate::domain::operation::{OperationKind, OperationState};
use crate::domain::rule::Verdict;
use crate::domain::time::{Timestamp, WallTime, millis};
use crate::driver::activity::{Activity, ActivityError, LogMark, Seen, Target};
use crate::driver::edge::fake::FakeEdge;
use crate::driver::probe::{NotifySocket, Obstacle, Probe, ProbeTarget, Readiness};
use crate::driver::supervisor::fake::Fake;
use crate::driver::supervisor::{Capabilities, Runner, Runners};
use crate::host::clock::Clock;
use crate::store::NewOperation;
use crate::store::sqlite::SqliteStore;

const USE: Verdict = Verdict {
    wake: true,
    counts: true,
};

/// Tokio's clock as both clocks; a test that pauses it stops time.
struct TokioClock(tokio::time::Instant, AtomicI64);

impl TokioClock {
    fn set_by(&self, ms: i64) {
        self.1.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_000_000 + millis(self.0.elapsed()))
    }
    fn wall(&self) -> WallTime {
        WallTime(
            1_700_000_000_000
                + self.1.load(Ordering::SeqCst)
                + i64::try_from(millis(self.0.elapsed())).unwrap(),
        )
    }
}

/// Ready at once, unless told to hold.
#[derive(Default)]
struct TestProbe {
    hold: AtomicBool,
    obstacle: AtomicBool,
    /// What it was told to clear, or to find the place of.
    targets: Mutex<Vec<ProbeTarget>>,
    /// Ports that another program has.
    taken: Mutex<Vec<u16>>,
    go: Notify,
    /// It answers as soon as it was started.
    at_once: AtomicBool,
}

impl TestProbe {
    fn release(&self) {
        self.hold.store(false, Ordering::SeqCst);
        self.go.notify_waiters();
    }
}

#[async_trait]
impl Probe for TestProbe {
    async fn clear(&self, probe_target: &ProbeTarget) -> Result<Option<NotifySocket>, Obstacle> {
        self.targets.lock().unwrap().push(probe_target.clone());
        match probe_target.listen {
            Listen::Tcp(address) if self.taken.lock().unwrap().contains(&address.port()) => {
                Err(Obstacle::Port("a thief has it".into()))
            }
            _ if self.obstacle.load(Ordering::SeqCst) => {
                Err(Obstacle::Other("somebody answers there".into()))
            }
            _ => Ok(None),
        }
    }
    fn at_once(&self, _: &ProbeTarget, _: Option<Process>) -> Option<Readiness> {
        self.at_once.load(Ordering::SeqCst).then(Readiness::default)
    }
    async fn ready(
        &self,
        _: &ProbeTarget,
        _: Option<Process>,
        _: Option<NotifySocket>,
    ) -> Result<Readiness, String> {
        let go = self.go.notified();
        if self.hold.load(Ordering::SeqCst) {
            go.await;
        }
        Ok(Readiness::default())
    }
    async fn misplaced(&self, awake: &[(ProbeTarget, Process)]) -> Vec<Option<String>> {
        let targets = awake.iter().map(|(target, _)| target.clone());
        self.targets.lock().unwrap().extend(targets);
        vec![None; awake.len()]
    }
    fn describe(&self, _: &ProbeTarget) -> String {
        "an answer".into()
    }
}

/// So many connections to everybody, or nobody can tell.
#[derive(Default)]
struct TestActivity {
    connections: AtomicU32,
    blind: AtomicBool,
    mark: Mutex<LogMark>,
    /// What was looked at last.
    asked: Mutex<Vec<Target>>,
}

impl TestActivity {
    /// A line in the access log, now.
    fn touch(&self, clock: &TokioClock) {
        let mut mark = self.mark.lock().unwrap();
        *mark = LogMark {
            inode: 1,
            size: mark.size + 1,
            modified: clock.wall().0,
        };
    }
}

#[async_trait]
impl Activity for TestActivity {
    async fn sample(&self, targets: &[Target]) -> Result<Vec<Seen>, ActivityError> {
        *self.asked.lock().unwrap() = targets.to_vec();
        if self.blind.load(Ordering::SeqCst) {
            return Err(ActivityError {
                what: "blind".into(),
                source: std::io::Error::other("set to fail"),
            });
        }
        let connections = self.connections.load(Ordering::SeqCst);
        let mark = *self.mark.lock().unwrap();
        Ok(targets.iter().map(|_| Seen { connections, mark }).collect())
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    world: Arc<World>,
    supervisor: Arc<Fake>,
    edge: Arc<FakeEdge>,
    probe: Arc<TestProbe>,
    activity: Arc<TestActivity>,
    clock: Arc<TokioClock>,
}

const MODEL: &str =
    "description = \"a test\"\nlisten = \"unix\"\ncommand = [\"/bin/true\", \"{{ name }}\"]\n";

fn configure(dir: &Path, more: &str) -> Config {
    let text = format!(
        "home = \"{0}/h\"\nrun = \"{0}/r\"\n{more}\n[idle]\ntimeout = \"60s\"\nmin_awake = \"5s\"\n[wake]\ntimeout = \"30s\"\nmax_waiting = 300\n",
        dir.display()
    );
    config::parse(&text, None, &Env::bare(0, dir)).unwrap_or_else(|e| panic!("{e}"))
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("acc")
            .tempdir_in("/tmp")
            .unwrap();
        let model = dir.path().join("h/models/test");
        std::fs::create_dir_all(&model).unwrap();
        std::fs::create_dir_all(dir.path().join("r")).unwrap();
        std::fs::create_dir_all(dir.path().join("h/instances")).unwrap();
        std::fs::write(model.join("model.toml"), MODEL).unwrap();
        let (supervisor, edge) = (Arc::new(Fake::new()), Arc::new(FakeEdge::new()));
        let (probe, activity) = (
            Arc::new(TestProbe::default()),
            Arc::new(TestActivity::default()),
        );
        let clock = Arc::new(TokioClock(tokio::time::Instant::now(), AtomicI64::new(0)));
        let config = configure(dir.path(), "");
        let parts = Parts {
            store: Arc::new(SqliteStore::open(&config.database()).unwrap()),
            config,
            account: Account::SameAsAcc,
            runners: Runners::of_processes(supervisor.clone()),
            own_services: supervisor.clone(),
            edge: edge.clone(),
            probe: probe.clone(),
            activity: activity.clone(),
            clock: clock.clone(),
            boot: "boot".into(),
            acc: "/bin/true".into(),
            services: Vec::new(),
        };
        edge.set_access_logs(parts.config.access_logs());
        Self {
            dir,
            world: World::new(parts),
            supervisor,
            edge,
            probe,
            activity,
            clock,
        }
    }

    /// Another acc over the same folders and processes: after a crash of the first.
    fn another(&self) -> Arc<World> {
        let config = configure(self.dir.path(), "");
        World::new(Parts {
            store: Arc::new(SqliteStore::open(&config.database()).unwrap()),
            config,
            account: Account::SameAsAcc,
            runners: Runners::of_processes(self.supervisor.clone()),
            own_services: self.supervisor.clone(),
            edge: self.edge.clone(),
            probe: self.probe.clone(),
            activity: self.activity.clone(),
            clock: self.clock.clone(),
            boot: "boot".into(),
            acc: "/bin/true".into(),
            services: Vec::new(),
        })
    }

    async fn ask(&self, request: Request) -> Result<Outcome, ServiceError> {
        handle(&self.world, &caller(), request).await
    }

    async fn create(&self, name: &str, asleep: bool) -> Result<Outcome, ServiceError> {
        let new = NewInstance {
            name: Some(name.into()),
            model: "test".into(),
            asleep,
            ..NewInstance::default()
        };
        self.ask(Request::Create(new)).await
    }

    /// The row follows a moment after those who waited were let through.
    async fn written(&self) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    async fn monitor(&self) -> Vec<String> {
        match self
            .ask(Request::Monitor {
                dry_run: false,
                thorough: false,
            })
            .await
            .unwrap()
        {
            Outcome::Monitor(pass) => pass
                .lines
                .into_iter()
                .map(|l| format!("{} {}", l.instance, l.action.as_str()))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn view(&self, name: &str) -> InstanceView {
        view::of_row(
            &self.world.config(),
            &find_row(&*self.world.store, &name.into()).unwrap(),
        )
    }

    fn phase(&self, name: &str) -> &'static str {
        self.view(name).phase.as_str()
    }
}

fn caller() -> RequestCaller {
    RequestCaller::own(EntryPoint::CommandLine)
}

fn name(text: &str) -> InstanceName {
    InstanceName::parse(text).unwrap()
}

fn operation(id: i64, of: &str, kind: OperationKind) -> NewOperation {
    NewOperation {
        instance: InstanceId(id),
        name: name(of),
        kind,
        at: WallTime(0),
        asked_by: "command_line",
    }
}

fn host(text: &str) -> HostName {
    HostName::parse(&format!("{text}.apps.localhost")).unwrap()
}

async fn pass(world: &Arc<World>, text: &str) -> Result<Box<dyn Ticket>, Refusal> {
    match world.admit(&host(text), USE).await? {
        Admitted::Open(pass) => Ok(pass),
        Admitted::Wait(mut waiting) => waiting.admitted().await,
    }
}

fn start(instance: &str) -> Request {
    Request::Start {
        instance: instance.into(),
    }
}

fn stop(instance: &str) -> Request {
    Request::Stop {
        instance: instance.into(),
        now: false,
    }
}

fn already(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Instance { already: true, .. })
}

#[tokio::test(start_paused = true)]
async fn a_life_from_create_to_purge() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    assert_eq!(fixture.phase("a"), "awake");
    assert!(fixture.edge.gate(&name("a")).is_some());
    assert!(already(&fixture.ask(start("a")).await.unwrap()));
    assert!(!already(&fixture.ask(stop("a")).await.unwrap()));
    assert_eq!(
        (fixture.phase("a"), fixture.edge.gate(&name("a"))),
        ("asleep", None)
    );
    assert!(already(&fixture.ask(stop("1")).await.unwrap()), "by number");
    let denied = fixture
        .ask(Request::Purge {
            instance: "a".into(),
        })
        .await
        .unwrap_err();
    assert_eq!(denied.kind, ErrorKind::Denied);
    fixture
        .ask(Request::Destroy {
            instance: "a".into(),
            force: false,
        })
        .await
        .unwrap();
    assert!(matches!(
        pass(&fixture.world, "a").await,
        Err(Refusal::Destroyed)
    ));
    fixture
        .ask(Request::Purge {
            instance: "a".into(),
        })
        .await
        .unwrap();
    assert!(matches!(
        pass(&fixture.world, "a").await,
        Err(Refusal::UnknownHost)
    ));
    assert!(!fixture.world.config().instance_dir("a").exists());
    assert_eq!(
        fixture.ask(start("a")).await.unwrap_err().kind,
        ErrorKind::NotFound
    );
    assert!(fixture.supervisor.calls().contains(&"forget a".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_sleeper_has_no_task() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    assert_eq!(fixture.world.registry.all().len(), 1);
    fixture.ask(stop("a")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(fixture.world.registry.all().is_empty());
}
