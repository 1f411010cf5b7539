//! The cost of sleeping instances: an installation with ten of them beside one with thousands, in
//! one run.
//!
//! `cargo bench --bench density [-- --count N] [--awake N] [--rounds N] [--edge builtin]
//! [--supervisor builtin] [--json]`. What is compared is measured in turns, so that whatever else
//! the machine does meets both alike. The populations are made as a script would make them: one
//! request after the other over the control socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark may panic and print"
)]

#[path = "density/client.rs"]
mod client;
#[path = "density/procs.rs"]
mod procs;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "density/table.rs"]
mod table;

use std::process::Command;
use std::time::Duration;

use client::{command, create, ms, verb, wake};
use nix::sys::signal::Signal;
use procs::Standing;
use serde_json::json;
use support::fixture::ACC;
use support::wait::{holds, pause, wait_until};
use support::{Combination, Fixture, now, processes};
use table::{Goal, Table};

/// Sleepers of the installation to compare with.
const FEW: usize = 10;
/// How long the servers are watched at rest.
const REST: Duration = Duration::from_secs(20);

/// What to measure.
struct Options {
    count: usize,
    awake: usize,
    rounds: usize,
    combination: Combination,
    json: bool,
}

impl Options {
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let after = |flag: &str| {
            arguments
                .iter()
                .position(|a| a == flag)
                .and_then(|n| arguments.get(n + 1))
                .cloned()
        };
        let number = |flag: &str, usual: usize| {
            after(flag).map_or(usual, |n| {
                n.parse()
                    .unwrap_or_else(|_| panic!("{flag} takes a number"))
            })
        };
        let kind = |flag: &str, usual: &'static str| {
            if after(flag).as_deref() == Some("builtin") {
                "builtin"
            } else {
                usual
            }
        };
        Self {
            count: number("--count", 2_000),
            awake: number("--awake", 100),
            rounds: number("--rounds", 30),
            combination: Combination {
                edge: kind("--edge", "nginx"),
                supervisor: kind("--supervisor", "supervisord"),
            },
            json: arguments.iter().any(|a| a == "--json"),
        }
    }
}

/// The two installations.
struct Pair {
    few: Fixture,
    many: Fixture,
    count: usize,
    rounds: usize,
}

impl Pair {
    /// Measures both in turns: first the one with few.
    fn turns(&self, mut measure: impl FnMut(&Fixture, usize) -> f64) -> [Vec<f64>; 2] {
        let mut samples = [Vec::new(), Vec::new()];
        // The first round warms caches and is not counted.
        for round in 0..=self.rounds {
            let pair = [measure(&self.few, round), measure(&self.many, round)];
            if round > 0 {
                samples
                    .iter_mut()
                    .zip(pair)
                    .for_each(|(all, one)| all.push(one));
            }
        }
        samples
    }
}

/// Creates the sleeping instances, and adds the cost of creating each to the table.
fn populate(pair: &Pair, table: &mut Table) {
    for n in 0..FEW {
        create(&pair.few, &format!("s{n}"), "hello");
    }
    let reloads = Standing::of(&pair.many).nginx;
    let began = now();
    let samples: Vec<f64> = (0..pair.count)
        .map(|n| create(&pair.many, &format!("s{n}"), "hello"))
        .collect();
    let took = began.elapsed();
    table.once(
        format!("{} created one after the other", pair.count),
        "s",
        None,
        took.as_secs_f64(),
        Goal::AtMost(60.0),
    );
    let (first, last) = (
        &samples[..samples.len().min(200)],
        &samples[samples.len().saturating_sub(200)..],
    );
    table.repeated(
        "create, the last 200 against the first 200",
        "ms",
        first,
        last,
        Goal::None,
    );
    let same = reloads == Standing::of(&pair.many).nginx;
    table.once(
        "reloads of nginx meanwhile (0: same workers)",
        "",
        None,
        if same { 0.0 } else { 1.0 },
        Goal::AtMost(0.0),
    );
    let [few, many] = pair.turns(|fixture, n| create(fixture, &format!("t{n}"), "hello"));
    table.repeated(
        format!("create no. {} against no. {FEW}", pair.count),
        "ms",
        &few,
        &many,
        Goal::Times(1.2),
    );
    table.repeated("the same", "ms", &[], &many, Goal::AtMost(7.0));
    let [few, many] = pair.turns(|fixture, n| {
        let name = format!("t{n}");
        verb(
            fixture,
            &json!({ "verb": "destroy", "instance": name, "force": false }),
        ) + verb(fixture, &json!({ "verb": "purge", "instance": name }))
    });
    table.repeated("destroy and purge", "ms", &few, &many, Goal::None);
    let [few, many] = pair.turns(|fixture, n| create(fixture, &format!("p{n}"), "hello-tcp"));
    table.repeated("create of one on a TCP port", "ms", &few, &many, Goal::None);
}

/// Memory now.
fn memory(pair: &Pair, when: &str, table: &mut Table) {
    let server = |fixture: &Fixture| {
        Standing::of(fixture)
            .server
            .iter()
            .map(|pid| procs::own_mib(*pid))
            .sum::<f64>()
    };
    table.once(
        format!("server's own memory (master and worker), {when}"),
        "MiB",
        Some(server(&pair.few)),
        server(&pair.many),
        Goal::AtMost(if pair.count >= 100_000 { 54.0 } else { 14.0 }),
    );
    let nginx = |fixture: &Fixture| {
        Standing::of(fixture)
            .nginx
            .iter()
            .map(|pid| procs::own_mib(*pid))
            .fold(0.0, f64::max)
    };
    table.once(
        format!("own memory of nginx's largest process, {when}"),
        "MiB",
        Some(nginx(&pair.few)),
        nginx(&pair.many),
        Goal::AtMost(20.0),
    );
}

/// The cost while no command and no request arrives.
fn rest(pair: &Pair, table: &mut Table) {
    let [few, many] = [Standing::of(&pair.few), Standing::of(&pair.many)];
    // The last commands still have timers, and threads that wait for more.
    wait_until("the servers are quiet", Duration::from_secs(60), || {
        let count =
            || [&few, &many].map(|s| s.server.iter().map(|p| procs::switches(*p)).sum::<u64>());
        let before = count();
        pause(Duration::from_secs(2));
        holds(before == count(), "they are busy")
    });
    let groups = [&few.server, &many.server, &few.nginx, &many.nginx];
    let look = || {
        groups.map(|pids| {
            pids.iter()
                .map(|p| (procs::switches(*p), procs::busy(*p)))
                .fold((0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1))
        })
    };
    let before = look();
    pause(REST);
    let after = look();
    #[expect(clippy::cast_precision_loss, reason = "small enough")]
    let rate = |n: usize| (after[n].0 - before[n].0) as f64 / REST.as_secs_f64();
    let share = |n: usize| (after[n].1 - before[n].1) / ms(REST) * 100.0;
    table.once(
        "at rest: wake-ups of the server's threads, a second",
        "",
        Some(rate(0)),
        rate(1),
        Goal::AtMost(1.0),
    );
    table.once(
        "at rest: processor time of the server",
        "%",
        Some(share(0)),
        share(1),
        Goal::AtMost(0.049),
    );
    table.once(
        "at rest: wake-ups of nginx, a second",
        "",
        Some(rate(2)),
        rate(3),
        Goal::AtMost(1.0),
    );
}

/// Whole commands that only read, against `true`.
fn reading(pair: &Pair, table: &mut Table) {
    let nothing = || {
        let mut command = Command::new("/bin/true");
        command.env_clear().current_dir(&pair.many.dir);
        command
    };
    let several: [(&str, &[&str], f64); 5] = [
        ("acc --version", &["--version"], 5.0),
        ("acc info NAME", &["info", "s5"], 10.0),
        ("acc list --limit 50", &["list", "--limit", "50"], 10.0),
        (
            "acc list --phase awake --limit 50",
            &["list", "--phase", "awake", "--limit", "50"],
            10.0,
        ),
        ("acc events --lines 20", &["events", "--lines", "20"], 10.0),
    ];
    for (what, arguments, goal) in several {
        let mut samples = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..pair.rounds {
            samples[0].push(command(nothing()));
            samples[1].push(command(pair.few.command(arguments)));
            samples[2].push(command(pair.many.command(arguments)));
        }
        table.repeated(
            format!("`{what}` above `true`"),
            "ms",
            &samples[0],
            &samples[2],
            Goal::Above(goal),
        );
        table.repeated(
            format!("`{what}` against the same with few"),
            "ms",
            &samples[1],
            &samples[2],
            Goal::None,
        );
    }
}

/// Commands that change something or check everything.
fn acting(pair: &Pair, awake: usize, table: &mut Table) {
    let [few, many] = pair.turns(|fixture, _| wake(fixture, "s5"));
    table.repeated("wake, others asleep", "ms", &few, &many, Goal::Times(1.1));
    let names: Vec<String> = (0..awake).map(|n| format!("a{n}")).collect();
    for fixture in [&pair.few, &pair.many] {
        for name in &names {
            create(fixture, name, "hello");
        }
        client::start_all(fixture, &names);
    }
    let what = format!("`acc monitor`, {awake} awake");
    let [few, many] = pair.turns(|fixture, _| command(fixture.command(&["monitor"])));
    table.repeated(what.clone(), "ms", &few, &many, Goal::Times(1.2));
    table.repeated(what, "ms", &[], &many, Goal::AtMost(50.0));
    let [few, many] = pair.turns(|fixture, _| wake(fixture, "s5"));
    table.repeated(
        format!("wake, {awake} awake besides"),
        "ms",
        &few,
        &many,
        Goal::None,
    );
}

/// Actions that happen once: a new worker, a run of `acc doctor`, a whole boot.
fn rarely(pair: &Pair, table: &mut Table) {
    let both = |measure: &dyn Fn(&Fixture) -> f64| (measure(&pair.few), measure(&pair.many));
    let (few, many) = both(&|fixture| {
        let worker = processes::find(&fixture.dir, &["acc", "worker"])
            .expect("a worker")
            .pid;
        let began = now();
        processes::signal(worker, Signal::SIGKILL);
        wait_until("the next worker answers", Duration::from_secs(60), || {
            let next =
                processes::find(&fixture.dir, &["acc", "worker"]).is_some_and(|p| p.pid != worker);
            holds(next && client::pings(fixture), "no answer")
        });
        ms(began.elapsed())
    });
    table.once(
        "worker killed until the next one answers",
        "ms",
        Some(few),
        many,
        Goal::None,
    );
    let (few, many) = both(&|fixture| {
        let began = now();
        let _ = fixture.acc(&["doctor"]);
        ms(began.elapsed())
    });
    table.once("`acc doctor`", "ms", Some(few), many, Goal::None);
    let (few, many) = both(&|fixture| {
        verb(
            fixture,
            &json!({ "verb": "monitor", "dry_run": false, "thorough": true }),
        )
    });
    table.once("a thorough pass", "ms", Some(few), many, Goal::None);
    for verb in ["halt", "boot"] {
        let (few, many) = both(&|fixture| command(fixture.command(&[verb])));
        table.once(format!("`acc {verb}`"), "ms", Some(few), many, Goal::None);
    }
}

/// The size of the binary without symbols for debuggers and profilers.
fn binary(fixture: &Fixture, table: &mut Table) {
    let stripped = fixture.dir.join("stripped");
    let copied = Command::new("strip")
        .arg("-o")
        .arg(&stripped)
        .arg(ACC)
        .status()
        .is_ok_and(|s| s.success());
    let (what, path) = if copied {
        ("the binary, stripped", stripped.as_path())
    } else {
        ("the binary, as built", ACC.as_ref())
    };
    #[expect(clippy::cast_precision_loss, reason = "small enough")]
    let size = std::fs::metadata(path).unwrap().len() as f64 / 1e6;
    table.once(what, "MB", None, size, Goal::AtMost(15.0));
}

fn main() {
    let options = Options::read();
    let fixture = || {
        Fixture::with(options.combination, |s| {
            (s.idle, s.check_every) = ("1h", "30s");
            // More ports than a fixture has: no program listens on them, they are only assigned.
            s.ports = "30000-32000".to_owned();
        })
    };
    let (Some(few), Some(many)) = (fixture(), fixture()) else {
        return;
    };
    let pair = Pair {
        few,
        many,
        count: options.count,
        rounds: options.rounds,
    };
    let mut table = Table::default();
    binary(&pair.many, &mut table);
    populate(&pair, &mut table);
    memory(&pair, "after they were made", &mut table);
    rest(&pair, &mut table);
    reading(&pair, &mut table);
    acting(&pair, options.awake, &mut table);
    memory(&pair, "at the end", &mut table);
    rarely(&pair, &mut table);
    let Combination { edge, supervisor } = options.combination;
    if options.json {
        let head = json!({ "bench": "density", "sleepers": options.count, "few": FEW, "awake": options.awake, "rounds": options.rounds,
            "edge": edge, "supervisor": supervisor, "figures": table.json() });
        println!("{head}");
    } else {
        println!(
            "{} sleepers beside {FEW}, {edge} and {supervisor}, medians of {} rounds in turns",
            options.count, options.rounds
        );
        table.print();
    }
}
