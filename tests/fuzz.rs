//! A short run of every fuzz target: the seeds of its corpus, changed in random ways, for a bounded
//! number of times.
//!
//! The same functions run under cargo-fuzz (`fuzz/run`), which finds its way by coverage; here they
//! only have to keep their promises. `ACC_FUZZ=N` runs N inputs each, `ACC_FUZZ_SEED=N` begins
//! elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "../fuzz/targets.rs"]
mod targets;
#[path = "../fuzz/tenants.rs"]
mod tenants;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Inputs of a usual run, for each target.
const INPUTS: u64 = 3_000;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::vars()
        .find(|(k, _)| k == name)
        .and_then(|(_, v)| v.parse().ok())
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Makes one or several small changes: a byte or bit changed, a piece removed, doubled, or taken
/// from another seed, or an interesting piece put in.
fn mutate(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    const PIECES: &[&[u8]] = &[
        b"\"",
        b"\\",
        b"\n",
        b"\0",
        b"{{",
        b"}}",
        b"$",
        b";",
        b"#",
        b"\xff",
        b"\xc3\xa4",
        b"..",
        b"]]>",
        b"&#0;",
        b"-1",
        b"1e99",
        b"99999999999999999999",
    ];
    let mut data = seeds[rng.below(seeds.len())].clone();
    for _ in 0..=rng.below(6) {
        let at = rng.below(data.len() + 1);
        let end = (at + 1 + rng.below(16)).min(data.len());
        match rng.below(6) {
            0 if at < data.len() => data[at] = rng.next().to_le_bytes()[0],
            1 if at < data.len() => data[at] ^= 1 << rng.below(8),
            2 if at < end => drop(data.drain(at..end)),
            3 if at < end => {
                let piece = data[at..end].to_vec();
                data.splice(at..at, piece);
            }
            4 => {
                let other = &seeds[rng.below(seeds.len())];
                let from = rng.below(other.len());
                let piece = other[from..(from + 32).min(other.len())].to_vec();
                data.splice(at..at, piece);
            }
            _ => drop(data.splice(at..at, PIECES[rng.below(PIECES.len())].iter().copied())),
        }
    }
    data
}

fn drive(name: &str, target: fn(&[u8])) {
    let seeds = corpus(name);
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|seed| target(seed));
    let mut rng = Rng(number("ACC_FUZZ_SEED").unwrap_or(1));
    for n in 0..number("ACC_FUZZ").unwrap_or(INPUTS) {
        let data = mutate(&mut rng, &seeds);
        // The failure has been printed by then; this prints the input that caused it.
        let held = catch_unwind(AssertUnwindSafe(|| target(&data))).is_ok();
        assert!(
            held,
            "target `{name}`, input {n}: {:?}",
            String::from_utf8_lossy(&data)
        );
    }
}

#[test]
fn host_headers() {
    drive("host", targets::host);
}

#[test]
fn configs() {
    drive("config", targets::config);
}

#[test]
fn models() {
    drive("model", targets::model);
}

#[test]
fn control_requests() {
    drive("control", targets::control);
}

#[test]
fn xmlrpc_answers() {
    drive("xmlrpc", targets::xmlrpc);
}

#[test]
fn nginx_texts() {
    drive("nginx", targets::nginx);
}

#[test]
fn names_of_processes() {
    drive("stat", targets::stat);
}

#[test]
fn messages_of_instances() {
    drive("notify", tenants::notify);
}

#[test]
fn pid_files() {
    drive("record", tenants::record);
}

#[test]
fn lines_of_proc() {
    drive("proc", tenants::proc);
}

#[test]
fn what_the_launcher_is_told() {
    drive("launch", tenants::launch);
}

#[test]
fn fields_of_the_access_log() {
    drive("access", tenants::access);
}

#[test]
fn headers_both_ways() {
    drive("header", tenants::header);
}

#[test]
fn answers_of_instances() {
    drive("answer", tenants::answer);
}
