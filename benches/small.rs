//! The small benchmark: the functions that run for every event, request, reload and create, each
//! alone and in memory.
//!
//! `cargo bench --bench small`; a word after `--` names the ones to run. The whole system is
//! measured by `tests/bench/run`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark may panic, and criterion's macros write functions"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use acc::config::env::Env;
use acc::domain::instance::{DesiredState, Launch, Process, RunId};
use acc::domain::lifecycle::{Cause, Event, Limits, Machine, Requests, step};
use acc::domain::name::{HostName, InstanceName};
use acc::domain::rule::{Facts, Rule, judge};
use acc::domain::time::{Timestamp, WallTime};
use acc::models::load_model;
use acc::render::{Templates, instance, nginx};
use acc::store::sqlite::SqliteStore;
use acc::store::{InstanceStore, NewRow};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const LIMITS: Limits = Limits {
    idle: Duration::from_secs(900),
    min_awake: Duration::from_secs(30),
    start: Duration::from_secs(30),
    drain: Duration::from_secs(30),
    drain_streams: Duration::from_secs(2),
    stop: Duration::from_secs(10),
};
/// Number of instances, where that may matter.
const COUNTS: [usize; 3] = [10, 1_000, 10_000];

/// The machine after these events.
fn after(events: &[Event]) -> Machine {
    let mut machine = Machine::creating(DesiredState::Auto, Timestamp(0));
    for event in events {
        machine = step(&machine, event, Timestamp(1_000), &LIMITS)
            .unwrap()
            .next;
    }
    machine
}

fn lifecycle(c: &mut Criterion) {
    let wake = [
        Event::Created,
        Event::Wake(Cause::Request),
        Event::Spawned {
            run: 1,
            run_id: RunId::from(Process {
                pid: 7,
                start_time: 1,
            }),
            answers: false,
        },
        Event::Ready { run: 1 },
    ];
    let mut group = c.benchmark_group("lifecycle step");
    let awake = after(&wake);
    let mut requests = Requests::none(Timestamp(0));
    requests.follow(&awake);
    group.bench_function("a request is admitted and ends", |b| {
        b.iter(|| {
            assert!(black_box(&mut requests).admit());
            requests.release(true, Timestamp(2_000));
        });
    });
    group.bench_function("a whole wake", |b| b.iter(|| after(black_box(&wake))));
    group.finish();
}

fn names(count: usize) -> Vec<InstanceName> {
    (0..count)
        .map(|n| InstanceName::parse(&format!("instance-{n:05}")).unwrap())
        .collect()
}

/// A database with so many instances, each with one host of its own; in memory where the system has
/// a place for that.
fn database(count: usize) -> (tempfile::TempDir, SqliteStore) {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .unwrap();
    let store = SqliteStore::open(&dir.path().join("acc.db")).unwrap();
    let launch = Launch {
        runner: Default::default(),
        argv: vec![
            "/usr/bin/app".into(),
            "--socket".into(),
            "/run/acc/sock/app.sock".into(),
        ],
        env: vec![("LANG".into(), "C.UTF-8".into())],
        handed: false,
        notifies: false,
        health: None,
        stop_signal: 15,
        start_timeout: None,
        stop_timeout: None,
    };
    for name in names(count) {
        let host = HostName::parse(&format!("{name}.example.org")).unwrap();
        let new = NewRow {
            name: &name,
            model: "hello",
            port: None,
            params: &BTreeMap::new(),
            owner: None,
            idle: None,
            hosts: &[host],
            created_at: WallTime(1),
            stored: &after(&[Event::Created]).stored(),
            boot: "boot",
            asked_by: "command_line",
        };
        let id = store.insert(&new).unwrap();
        store.relaunch(id, &launch, "key").unwrap();
    }
    (dir, store)
}

fn store(c: &mut Criterion) {
    let mut group = c.benchmark_group("store");
    for count in COUNTS {
        let (_dir, store) = database(count);
        let middle = names(count).swap_remove(count / 2);
        let host = format!("{middle}.example.org");
        group.bench_with_input(BenchmarkId::new("by name", count), &middle, |b, name| {
            b.iter(|| store.by_name(black_box(name.as_str())).unwrap().unwrap());
        });
        group.bench_with_input(BenchmarkId::new("by host", count), &host, |b, host| {
            b.iter(|| store.by_host(black_box(host), None).unwrap().unwrap());
        });
        group.bench_with_input(BenchmarkId::new("no such host", count), &(), |b, ()| {
            b.iter(|| {
                store
                    .by_host(black_box("nobody.example.org"), None)
                    .unwrap()
            });
        });
    }
    group.finish();
}

fn request(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    group.bench_function("host is read", |b| {
        b.iter(|| HostName::parse(black_box("shop.apps.example.org")).unwrap())
    });
    let rule = |path: &str| Rule {
        path: Some(path.into()),
        user_agent: Some("bot".into()),
        wake: false,
        ..Rule::default()
    };
    let rules: Vec<Rule> = [
        "/favicon.ico",
        "/robots.txt",
        "/health",
        "/metrics",
        "/.well-known/",
    ]
    .map(rule)
    .into();
    let facts = Facts {
        path: "/cart?item=1",
        method: "GET",
        user_agent: "Mozilla/5.0 (X11; Linux x86_64)",
        client: "10.0.0.1".parse().ok(),
    };
    group.bench_function("five rules", |b| {
        b.iter(|| judge(black_box(&rules), black_box(&facts)))
    });
    group.finish();
}

fn render(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let templates = Templates::new(None).unwrap();
    let config = acc::config::load(None, &Env::bare(0, dir.path())).unwrap();
    let allowance = nginx::Allowance {
        run_as: None,
        open_files: None,
        connections: 16_384,
    };
    let mut group = c.benchmark_group("render");
    for count in COUNTS {
        let names = names(count);
        let hosts: Vec<[HostName; 1]> = names
            .iter()
            .map(|n| [HostName::parse(&format!("{n}.example.org")).unwrap()])
            .collect();
        let entries: Vec<_> = names
            .iter()
            .zip(&hosts)
            .map(|(name, hosts)| nginx::NginxEntry {
                name,
                hosts,
                tcp: None,
            })
            .collect();
        group.bench_with_input(
            BenchmarkId::new("nginx.conf, hosts", count),
            &entries,
            |b, entries| {
                b.iter(|| {
                    nginx::text(&templates, &config, &allowance, black_box(entries)).unwrap()
                });
            },
        );
    }
    let model = load_model(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/hello")).unwrap();
    let context = instance::InstanceVariables {
        name: "shop".into(),
        id: 1,
        host: "shop.apps.localhost".into(),
        hosts: vec!["shop.apps.localhost".into()],
        url: "http://shop.apps.localhost/".into(),
        socket: Some("/run/acc/sock/shop/app.sock".into()),
        port: None,
        dir: "/var/lib/acc/instances/shop".into(),
        data: "/var/lib/acc/instances/shop/data".into(),
        params: [("start_delay", "0ms"), ("log", "")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        acc: "/bin/true".into(),
    };
    group.bench_function("launch of an instance", |b| {
        b.iter(|| instance::launch(black_box(&model), &context).unwrap())
    });
    group.finish();
}

criterion_group!(small, lifecycle, request, store, render);
criterion_main!(small);
