//! The service over fakes, with time that only moves when everybody waits.

mod accounts;
mod clock;
mod fit;
mod found;
mod ground;
mod many;
mod reads;
mod registry;

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
use crate::domain::operation::OperationKind;
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
    fn at_once(&self, _: &ProbeTarget, _: Process) -> Option<Readiness> {
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
async fn many_first_requests_start_it_once_and_all_pass() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    fixture.probe.hold.store(true, Ordering::SeqCst);
    let tasks: Vec<_> = (0..300)
        .map(|_| {
            let world = fixture.world.clone();
            tokio::spawn(async move { pass(&world, "a").await.map(|p| p.gate().run) })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(
        pass(&fixture.world, "a").await,
        Err(Refusal::TooManyWaiting)
    ));
    fixture.probe.release();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(1));
    }
    fixture.written().await;
    assert_eq!(fixture.supervisor.starts(&name("a")), 1);
    assert_eq!(fixture.view("a").wakes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_reaches_every_waiter_and_is_tried_again_later() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    fixture.probe.hold.store(true, Ordering::SeqCst);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let world = fixture.world.clone();
            tokio::spawn(async move { pass(&world, "a").await.map(drop) })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    fixture.supervisor.exit(&name("a"), Exit::Code(3));
    for task in tasks {
        assert!(matches!(
            task.await.unwrap(),
            Err(Refusal::Failed {
                reason: "ended at start",
                ..
            })
        ));
    }
    assert_eq!(fixture.supervisor.starts(&name("a")), 1);
    assert!(
        matches!(pass(&fixture.world, "a").await, Err(Refusal::Failed { .. })),
        "no try before its time"
    );
    assert_eq!(fixture.supervisor.starts(&name("a")), 1);
    fixture.probe.release();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(pass(&fixture.world, "a").await.is_ok());
    fixture.written().await;
    assert_eq!(fixture.view("a").failure, None);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_cancels_its_wait_and_not_the_wake() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    fixture.probe.hold.store(true, Ordering::SeqCst);
    drop(fixture.world.admit(&host("a"), USE).await.unwrap());
    fixture.probe.release();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.phase("a"), "awake");
}

#[tokio::test(start_paused = true)]
async fn one_that_never_answers_fails_in_time_and_is_ended() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    fixture.probe.hold.store(true, Ordering::SeqCst);
    let error = fixture.ask(start("a")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert!(
        error
            .message
            .contains("did not answer within 30.0 s: waited for an answer"),
        "{}",
        error.message
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.phase("a"), "failed");
    assert!(fixture.supervisor.running().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pass_keeps_it_awake_and_a_quiet_one_is_put_to_sleep() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let request = pass(&fixture.world, "a").await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(fixture.monitor().await.is_empty());
    drop(request);
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert!(fixture.monitor().await.is_empty());
    fixture.activity.connections.store(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(fixture.monitor().await.is_empty(), "seen from outside");
    fixture.activity.connections.store(0, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(61)).await;
    fixture.activity.blind.store(true, Ordering::SeqCst);
    assert_eq!(
        fixture.monitor().await,
        ["acc error"],
        "not known is not quiet"
    );
    fixture.activity.blind.store(false, Ordering::SeqCst);
    assert_eq!(fixture.monitor().await, ["a sleep"]);
    assert_eq!(fixture.phase("a"), "asleep");
}

#[tokio::test(start_paused = true)]
async fn requests_during_an_operators_stop_wait_and_wake_it_again() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let held = pass(&fixture.world, "a").await.unwrap();
    let world = fixture.world.clone();
    let stopping = tokio::spawn(async move { handle(&world, &caller(), stop("a")).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.phase("a"), "draining");
    let world = fixture.world.clone();
    let next = tokio::spawn(async move { pass(&world, "a").await.map(|p| p.gate().run) });
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(held);
    stopping.await.unwrap().unwrap();
    assert_eq!(next.await.unwrap(), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_withdrawn_ends_at_once() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let held = pass(&fixture.world, "a").await.unwrap();
    let verb = |request: Request| {
        let world = fixture.world.clone();
        tokio::spawn(async move { handle(&world, &caller(), request).await })
    };
    fixture.supervisor.make_stubborn(&name("a"), true);
    let stopping = verb(Request::Stop {
        instance: "a".into(),
        now: true,
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(fixture.phase("a"), "stopping");
    let starting = verb(start("a"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The last word: no start after all.
    let again = verb(stop("a"));
    drop(held);
    let began = tokio::time::Instant::now();
    let error = starting.await.unwrap().unwrap_err();
    assert!(
        error.message.contains("stopped while it was starting"),
        "{error}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "it waited for {:?}",
        began.elapsed()
    );
    stopping.await.unwrap().unwrap();
    again.await.unwrap().unwrap();
    assert_eq!(fixture.phase("a"), "asleep");
}

#[tokio::test(start_paused = true)]
async fn who_waits_does_not_hear_of_a_supervisor_that_is_brought_back() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let another = fixture.another();
    fixture.supervisor.make_unreachable(true);
    let (request, verb) = (another.clone(), another.clone());
    let held = tokio::spawn(async move { pass(&request, "a").await.map(drop) });
    let started = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        handle(&verb, &caller(), start("a")).await
    });
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!held.is_finished() && !started.is_finished());
    fixture.supervisor.make_unreachable(false);
    held.await.unwrap().unwrap();
    assert!(already(&started.await.unwrap().unwrap()));
    assert_eq!(fixture.supervisor.starts(&name("a")), 1);
}

#[tokio::test(start_paused = true)]
async fn could_not_ask_is_not_gone() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let another = fixture.another();
    fixture.supervisor.make_unreachable(true);
    let error = handle(&another, &caller(), stop("a")).await.unwrap_err();
    assert!(
        error
            .message
            .contains("could not find out whether `a` is running"),
        "{error}"
    );
    assert_eq!(fixture.phase("a"), "awake");
    fixture.supervisor.make_unreachable(false);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(already(
        &handle(&another, &caller(), start("a")).await.unwrap()
    ));
    assert_eq!(fixture.supervisor.starts(&name("a")), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_for_one_that_died_while_acc_was_away_wakes_it() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let another = fixture.another();
    fixture.supervisor.exit(&name("a"), Exit::Signal(9));
    // The row still says awake: that is hearsay, and the request must neither be sent nowhere nor
    // hear of the old death.
    assert_eq!(pass(&another, "a").await.map(|p| p.gate().run), Ok(2));
    assert_eq!(fixture.supervisor.starts(&name("a")), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_up_comes_up_and_what_is_disabled_stays_down() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    fixture.create("b", false).await.unwrap();
    let set_desired = |instance: &str, desired| Request::SetDesired {
        instance: instance.into(),
        desired,
    };
    fixture
        .ask(set_desired("a", DesiredState::Up))
        .await
        .unwrap();
    fixture
        .ask(set_desired("b", DesiredState::Down))
        .await
        .unwrap();
    assert_eq!(
        (fixture.phase("a"), fixture.phase("b")),
        ("awake", "asleep")
    );
    assert!(matches!(
        pass(&fixture.world, "b").await,
        Err(Refusal::Disabled)
    ));
    assert_eq!(
        fixture.ask(start("b")).await.unwrap_err().kind,
        ErrorKind::Denied
    );
    fixture.supervisor.exit(&name("a"), Exit::Signal(9));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.monitor().await, ["a started"]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_its_runner_cannot_run_is_refused() {
    let fixture = Fixture::new();
    let model = fixture.dir.path().join("h/models/test/model.toml");
    let all = Capabilities::LAUNCHED;
    let (no_socket, no_notify, no_process) = (
        Capabilities {
            handed_socket: false,
            ..all
        },
        Capabilities {
            notify: false,
            ..all
        },
        Capabilities {
            local_processes: false,
            ..all
        },
    );
    for (name, keys, can, why) in [
        (
            "a",
            "listen = \"fd\"",
            no_socket,
            Some("hand its socket over"),
        ),
        ("b", "listen = \"unix\"", no_socket, None),
        (
            "c",
            "ready = \"notify\"",
            no_notify,
            Some("hear from it that it is ready"),
        ),
        ("d", "ready = \"socket\"", no_notify, None),
        (
            "e",
            "",
            no_process,
            Some("run it as a process of this host"),
        ),
    ] {
        std::fs::write(&model, format!("{keys}\ncommand = [\"/bin/true\"]\n")).unwrap();
        fixture.supervisor.set_capabilities(can);
        let refused = fixture.create(name, true).await.err().map(|e| e.message);
        assert_eq!(refused.is_some(), why.is_some(), "{name}: {refused:?}");
        assert!(
            refused
                .unwrap_or_default()
                .ends_with(why.unwrap_or_default())
        );
        let made = fixture.world.store.by_name(name).unwrap();
        assert_eq!(made.is_some(), why.is_none(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_that_fails_leaves_nothing() {
    let fixture = Fixture::new();
    fixture.supervisor.fail_next_start("no luck");
    let error = fixture.create("a", false).await.unwrap_err();
    assert!(
        error
            .message
            .contains("starting it failed, and all changes were undone"),
        "{error}"
    );
    assert!(fixture.world.store.names().unwrap().is_empty());
    assert!(!fixture.world.config().instance_dir("a").exists());
    fixture.create("a", false).await.unwrap();
    assert_eq!(fixture.view("a").id, 2, "numbers are not used again");
    let taken = fixture.create("a", true).await.unwrap_err();
    assert!(taken.message.contains("the name `a` is taken"), "{taken}");
}

#[tokio::test(start_paused = true)]
async fn half_done_work_is_undone_or_finished_by_the_next_acc() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    fixture.create("b", false).await.unwrap();
    fixture
        .world
        .store
        .begin(&operation(2, "b", OperationKind::Create))
        .unwrap();
    fixture
        .ask(Request::Destroy {
            instance: "a".into(),
            force: false,
        })
        .await
        .unwrap();
    fixture
        .world
        .store
        .begin(&operation(1, "a", OperationKind::Purge))
        .unwrap();
    let another = fixture.another();
    recover::recover(&another).await.unwrap();
    assert!(another.store.names().unwrap().is_empty());
    assert!(another.store.unfinished().unwrap().is_empty());
    assert!(fixture.supervisor.running().await.unwrap().is_empty());
    assert!(
        !another.config().instance_dir("a").exists()
            && !another.config().instance_dir("b").exists()
    );
}

#[tokio::test(start_paused = true)]
async fn quiesce_puts_all_to_sleep_and_wakes_nobody() {
    let fixture = Fixture::new();
    for name in ["a", "b", "c"] {
        fixture.create(name, false).await.unwrap();
    }
    assert_eq!(
        fixture.ask(Request::Quiesce).await.unwrap(),
        Outcome::Quiesced { stopped: 3 }
    );
    assert!(matches!(
        pass(&fixture.world, "a").await,
        Err(Refusal::Halting)
    ));
    assert_eq!(
        fixture.ask(start("a")).await.unwrap_err().kind,
        ErrorKind::Denied
    );
}

#[tokio::test(start_paused = true)]
async fn what_runs_without_need_is_ended_by_a_pass() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    fixture.create("b", true).await.unwrap();
    // The row of `a` vanishes, and somebody starts `b` behind acc's back.
    let program = launch_spec::program(
        &fixture.world,
        &launch_spec::instance(
            &fixture.world,
            &find_row(&*fixture.world.store, &"b".into()).unwrap(),
        )
        .unwrap(),
    );
    fixture.supervisor.start(&program).await.unwrap();
    fixture
        .world
        .store
        .delete(InstanceId(1), WallTime(0))
        .unwrap();
    fixture.world.registry.forget(InstanceId(1));
    let lines = fixture.monitor().await;
    assert!(
        lines.contains(&"a repaired".to_owned()) && lines.contains(&"b repaired".to_owned()),
        "{lines:?}"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fixture.supervisor.running().await.unwrap().is_empty());
    assert!(fixture.monitor().await.is_empty(), "nothing left to do");
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

#[tokio::test(start_paused = true)]
async fn two_passes_at_once_are_one() {
    let fixture = Fixture::new();
    let _busy = fixture.world.monitor.lock().await;
    assert_eq!(
        fixture
            .ask(Request::Monitor {
                dry_run: false,
                thorough: false
            })
            .await
            .unwrap(),
        Outcome::Busy
    );
}

#[tokio::test(start_paused = true)]
async fn bad_requests_are_refused_before_anything_is_made() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    let new = |f: fn(&mut NewInstance)| {
        let mut new = NewInstance {
            name: Some("x".into()),
            model: "test".into(),
            asleep: true,
            ..NewInstance::default()
        };
        f(&mut new);
        Request::Create(new)
    };
    let cases: [(Request, ErrorKind, &str); 7] = [
        (
            new(|n| n.name = Some("A_b".into())),
            ErrorKind::Invalid,
            "`A_b` cannot be an instance's name",
        ),
        (
            new(|n| n.model = "nope".into()),
            ErrorKind::NotFound,
            "there is no model `nope`",
        ),
        (
            new(|n| n.model = "../x".into()),
            ErrorKind::NotFound,
            "there is no model",
        ),
        (
            new(|n| n.hosts = vec!["a b".into()]),
            ErrorKind::Invalid,
            "`a b` is not a host name",
        ),
        (
            new(|n| n.hosts = vec!["a.apps.localhost".into()]),
            ErrorKind::Failed,
            "belongs to instance `a`",
        ),
        (
            new(|n| n.owner = Some("jane".into())),
            ErrorKind::Invalid,
            "`jane` is not an e-mail address",
        ),
        (
            new(|n| drop(n.set.insert("k".into(), "v".into()))),
            ErrorKind::Invalid,
            "`k`",
        ),
    ];
    for (request, kind, text) in cases {
        let error = fixture.ask(request).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(text), "{error}");
        assert!(!error.hint.is_empty());
    }
    assert_eq!(fixture.world.store.names().unwrap(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn starts_wait_their_turn() {
    let fixture = Fixture::new();
    let most = fixture.world.config().wake.max_at_once;
    let running = Arc::new(Mutex::new(0));
    for n in 0..most * 2 {
        fixture.create(&format!("a{n}"), true).await.unwrap();
    }
    fixture.probe.hold.store(true, Ordering::SeqCst);
    let seen = running.clone();
    fixture
        .supervisor
        .on_start(move |_, _| *seen.lock().unwrap() += 1);
    let tasks: Vec<_> = (0..most * 2)
        .map(|n| {
            let world = fixture.world.clone();
            tokio::spawn(async move { pass(&world, &format!("a{n}")).await.map(drop) })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(*running.lock().unwrap(), most);
    fixture.probe.release();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(()));
    }
}
