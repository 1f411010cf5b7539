//! What acc adds to a wake: the application's own start beside the wake through each of the four combinations, in one run.
//!
//! `cargo bench --bench wake [-- --rounds N] [--json]`. The rounds are interleaved, so that whatever else the machine does meets
//! all of them alike; the difference to the own start is the figure to look at, not the absolute time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark may panic and print")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use support::bed::ACC;
use support::wait::pause;
use support::{Bed, Combination, now, processes};

/// Pause between two looks whether the application answers by itself.
const LOOK: Duration = Duration::from_micros(200);
/// Longest any start may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The samples of one way to start, in milliseconds.
struct Series {
    name: String,
    samples: Vec<f64>,
}

impl Series {
    fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), samples: Vec::new() }
    }

    /// The sample that `share` of all samples do not exceed (nearest rank).
    fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a rank")]
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted[rank.clamp(1, sorted.len()) - 1]
    }

    fn summary(&self) -> [f64; 3] {
        [self.percentile(0.5), self.percentile(0.95), self.percentile(1.0)]
    }
}

/// Spawns the demo application alone and returns when it has answered a request, in milliseconds.
fn own_start(dir: &Path) -> f64 {
    let socket = dir.join("own.sock");
    let _ = std::fs::remove_file(&socket);
    let began = now();
    let mut child = Command::new(ACC)
        .args(["demo-app", "--name", "own", "--socket"])
        .arg(&socket)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !answers(&socket) {
        assert!(began.elapsed() < LIMIT, "the demo application does not answer");
        pause(LOOK);
    }
    let took = began.elapsed().as_secs_f64() * 1000.0;
    processes::signal(i32::try_from(child.id()).unwrap(), Signal::SIGKILL);
    child.wait().unwrap();
    took
}

/// One request over a unix socket; false until there is a whole answer.
fn answers(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else { return false };
    let mut text = String::new();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: own\r\nConnection: close\r\n\r\n").is_ok()
        && stream.read_to_string(&mut text).is_ok()
        && text.starts_with("HTTP/1.1 200")
}

/// Puts the instance to sleep, then asks it on a fresh connection; from the connect to the whole answer, in milliseconds.
fn wake(bed: &Bed) -> f64 {
    bed.acc(&["stop", "bench"]).ok();
    let ask = bed.ask("GET", "bench", "/");
    let began = now();
    let reply = ask.send(bed.address()).unwrap();
    let took = began.elapsed().as_secs_f64() * 1000.0;
    reply.status(200);
    took
}

fn print_table(rounds: usize, all: &[Series]) {
    println!("{rounds} rounds, milliseconds");
    println!("{:<24} {:>8} {:>8} {:>8} {:>12} {:>12}", "START", "P50", "P95", "MAX", "P50 ADDED", "P95 ADDED");
    let [own50, own95, _] = all[0].summary();
    for series in all {
        let [p50, p95, max] = series.summary();
        println!("{:<24} {p50:>8.2} {p95:>8.2} {max:>8.2} {:>12.2} {:>12.2}", series.name, p50 - own50, p95 - own95);
    }
}

fn print_json(rounds: usize, all: &[Series]) {
    let own = all[0].summary();
    let rows: Vec<_> = all
        .iter()
        .map(|s| {
            let [p50, p95, max] = s.summary();
            serde_json::json!({ "name": s.name, "p50_ms": p50, "p95_ms": p95, "max_ms": max, "p50_added_ms": p50 - own[0], "p95_added_ms": p95 - own[1], "samples_ms": s.samples })
        })
        .collect();
    println!("{}", serde_json::json!({ "bench": "wake", "rounds": rounds, "series": rows }));
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| arguments.iter().position(|a| a == flag).and_then(|n| arguments.get(n + 1));
    let rounds: usize = after("--rounds").map_or(50, |n| n.parse().expect("--rounds takes a number"));
    let beds: Vec<Bed> = Combination::ALL.into_iter().filter_map(|c| Bed::with(c, |s| s.idle = "1h")).collect();
    let mut all = vec![Series::new("own start")];
    for bed in &beds {
        bed.acc(&["create", "bench", "--model", "hello"]).ok();
        all.push(Series::new(format!("{} + {}", bed.combination.edge, bed.combination.supervisor)));
    }
    let dir = tempfile::tempdir().unwrap();
    // One round to warm caches, not counted.
    for round in 0..=rounds {
        let own = own_start(dir.path());
        let mut samples = vec![own];
        samples.extend(beds.iter().map(wake));
        if round > 0 {
            all.iter_mut().zip(samples).for_each(|(series, sample)| series.samples.push(sample));
        }
    }
    if arguments.iter().any(|a| a == "--json") { print_json(rounds, &all) } else { print_table(rounds, &all) }
}
