//! A seeded simulation of the whole brain: the real service, registry, actors, wake queue, monitor,
//! operations and store over a host that is made up, with time that only moves when everybody waits.
//! See `docs/simulation.md`.
//!
//! `ACC_SIM_SEED=N` replays one seed with its trace, `ACC_SIM_SEEDS=N` runs that many instead of
//! the usual number.

mod actions;
mod client;
mod drivers;
mod host;
mod rng;
mod truth;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::actions::Life;
use self::drivers::Drivers;
use self::host::{Host, NAMES, Profile, Stats, Why};
use self::rng::Rng;
use super::context::Parts;
use super::recover;
use super::world::World;
use crate::config::env::Env;
use crate::config::{self, Config, EdgeKind};
use crate::store::sqlite::SqliteStore;

/// Seeds of a usual run.
const SEEDS: u64 = 2_000;
/// Steps of a seed.
const STEPS: u64 = 100;

const MODEL: &str =
    "description = \"a test\"\nlisten = \"unix\"\ncommand = [\"/bin/true\", \"{{ name }}\"]\n";

/// The folders of one thread, used for one seed after the other.
struct Bench {
    _dir: tempfile::TempDir,
    config: Config,
}

impl Bench {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let dir = tempfile::Builder::new()
            .prefix("accsim")
            .tempdir_in(base)
            .unwrap();
        let model = dir.path().join("h/models/test");
        std::fs::create_dir_all(&model).unwrap();
        std::fs::write(model.join("model.toml"), MODEL).unwrap();
        let text = format!(
            "home = \"{0}/h\"\nrun = \"{0}/r\"\n[idle]\ntimeout = \"60s\"\nmin_awake = \"5s\"\n[wake]\ntimeout = \"30s\"\nmax_at_once = 2\n\
             [stop]\ndrain = \"10s\"\ntimeout = \"5s\"\n",
            dir.path().display()
        );
        let config =
            config::parse(&text, None, &Env::bare(0, dir.path())).unwrap_or_else(|e| panic!("{e}"));
        Self { _dir: dir, config }
    }

    fn instances(&self) -> PathBuf {
        self.config.home.join("instances")
    }

    fn clean(&self) {
        let _ = std::fs::remove_dir_all(self.instances());
        let _ = std::fs::remove_dir_all(&self.config.run);
        std::fs::create_dir_all(self.instances()).unwrap();
        std::fs::create_dir_all(&self.config.run).unwrap();
    }

    fn world(&self, host: &Arc<Host>, store: &SqliteStore) -> Arc<World> {
        let mut config = self.config.clone();
        config.edge.kind = if host.profile.nginx {
            EdgeKind::Nginx
        } else {
            EdgeKind::Builtin
        };
        let drivers = Arc::new(Drivers(host.clone()));
        World::new(Parts {
            config,
            store: Arc::new(store.twin()),
            account: crate::domain::account::Account::SameAsAcc,
            runners: crate::driver::supervisor::Runners::of_processes(drivers.clone()),
            own_services: drivers.clone(),
            edge: drivers.clone(),
            probe: drivers.clone(),
            activity: drivers.clone(),
            clock: drivers,
            boot: "boot".into(),
            acc: "/bin/true".into(),
            services: Vec::new(),
        })
    }
}

/// What a seed came to.
struct Run {
    stats: Stats,
    violation: Option<String>,
    trace: Vec<String>,
}

fn profile(seed: u64) -> Profile {
    // Every other seed breaks nothing: there, nothing is excused.
    Profile {
        nginx: seed & 1 == 0,
        faults: seed & 2 == 0,
        crashes: seed.is_multiple_of(3),
        clock: seed.is_multiple_of(5),
    }
}

fn run(seed: u64, bench: &Bench) -> Run {
    bench.clean();
    let mut rng = Rng::new(seed);
    let host = Host::new(profile(seed), rng.fork());
    let store = SqliteStore::in_memory().unwrap();
    let writes = Arc::downgrade(&host);
    store.fail_writes_when(move || {
        writes
            .upgrade()
            .is_some_and(|host| host.point() || host.state().out.disk)
    });
    for who in 0..NAMES.len() {
        host.state().begin_excuse(Why::Gone, Some(who));
    }
    let (mut steps, mut next) = (STEPS, 0);
    for lives in 0.. {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let finished = runtime.block_on(async {
            host.begin_life();
            let life = Life {
                host: host.clone(),
                world: bench.world(&host, &store),
            };
            tokio::select! {
                biased;
                () = host.crashed() => false,
                () = live(&life, &mut rng, &mut steps, &mut next) => true,
            }
        });
        // Its time is read for the last time.
        let clock = runtime.enter();
        host.end_life();
        drop(clock);
        drop(runtime);
        if finished || host.violation().is_some() {
            break;
        }
        assert!(lives < 500, "seed {seed}: acc does not come up");
        host.pass_time([0, 100, 3_000, 120_000][usize::try_from(rng.below(4)).unwrap()]);
    }
    let stats = host.state().stats;
    Run {
        stats,
        violation: host.violation(),
        trace: host.trace(),
    }
}

/// A life of acc: it takes up what it finds, then takes what comes; at the end everything comes to
/// rest.
async fn live(life: &Life, rng: &mut Rng, steps: &mut u64, next: &mut u64) {
    let started = Box::pin(async {
        recover::recover(&life.world).await?;
        recover::adopt(&life.world).await
    })
    .await;
    if started.is_err() {
        // The server would not come up; somebody starts it again when there is room.
        life.host.state().out.disk = false;
        life.let_go_by(1000).await;
        return life.host.crash();
    }
    if *steps == STEPS {
        for who in 0..NAMES.len() {
            life.verb(rng.next(), who, actions::create(who, true));
        }
        life.let_go_by(5_000).await;
    }
    while *steps > 0 && life.host.violation().is_none() {
        *steps -= 1;
        life.step(rng, next).await;
        if steps.is_multiple_of(4) {
            life.look();
        }
    }
    if life.host.violation().is_none() {
        life.heal();
        life.settle(next).await;
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::vars()
        .find(|(k, _)| k == name)
        .and_then(|(_, v)| v.parse().ok())
}

fn fail(seed: u64, run: &Run, lines: usize) -> ! {
    let end = run
        .trace
        .iter()
        .position(|l| l.contains("VIOLATION"))
        .map_or(run.trace.len(), |n| n + 1);
    let from = end.saturating_sub(lines);
    let violation = run.violation.as_deref().unwrap_or("nothing");
    panic!(
        "seed {seed}, step {}: {violation}\n{}\n{:?}\nreplay: ACC_SIM_SEED={seed} cargo test --lib simulation::seeds -- --nocapture",
        run.stats.steps,
        run.trace[from..end].join("\n"),
        profile(seed)
    );
}

#[test]
fn seeds() {
    if let Some(seed) = number("ACC_SIM_SEED") {
        let run = run(seed, &Bench::new());
        fail(seed, &run, usize::MAX);
    }
    let seeds = number("ACC_SIM_SEEDS").unwrap_or(SEEDS);
    let began = tokio::time::Instant::now();
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let all: Vec<Stats> = std::thread::scope(|scope| {
        let work = || {
            let bench = Bench::new();
            let mut sum = Stats::default();
            loop {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                if seed >= seeds {
                    return sum;
                }
                let one = run(seed, &bench);
                sum.add(&one.stats);
                if one.violation.is_some() {
                    next.store(seeds, Ordering::SeqCst);
                    fail(seed, &one, 120);
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|w| w.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
            .collect()
    });
    let mut sum = Stats::default();
    all.iter().for_each(|s| sum.add(s));
    report(seeds, began.elapsed(), &sum);
    assert!(
        sum.answered * 2 > sum.requests,
        "most requests are answered: {sum:?}"
    );
}

fn report(seeds: u64, took: Duration, sum: &Stats) {
    let a_second = f64::from(u32::try_from(seeds).unwrap_or(u32::MAX)) / took.as_secs_f64();
    eprintln!(
        "{seeds} seeds in {:.1} s, {a_second:.0} seeds a second: {sum:?}",
        took.as_secs_f64()
    );
}

#[test]
fn a_seed_is_the_same_every_time() {
    let bench = Bench::new();
    for seed in 0..12 {
        // tokio wakes those who wait for the same thing in any order; within a millisecond the
        // order does not count.
        let trace = || {
            let mut trace = run(seed, &bench).trace;
            trace.sort();
            trace
        };
        let (one, other) = (trace(), trace());
        let same = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
        let end = |t: &[String]| t[same.saturating_sub(15)..t.len().min(same + 2)].join("\n");
        assert!(
            same == one.len() && same == other.len(),
            "seed {seed} differs:\n{}\n----\n{}",
            end(&one),
            end(&other)
        );
    }
}

impl Stats {
    fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.requests += other.requests;
        self.answered += other.answered;
        self.refused += other.refused;
        self.broken += other.broken;
        self.starts += other.starts;
        self.stops += other.stops;
        self.crashes += other.crashes;
        self.verbs += other.verbs;
    }
}
