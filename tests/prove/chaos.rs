//! Every program of acc is killed while it works.

use super::run::proven;
use crate::support::{Combination, Fixture};

pub fn everything_is_killed_and_nothing_is_lost(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    let mut kinds = vec!["server", "master"];
    if combination.supervisor == "supervisord" {
        kinds.push("supervisor");
    }
    if combination.edge == "nginx" {
        kinds.push("worker");
    }
    let mut killed = 0;
    for seed in ["7", "8"] {
        let report = proven(
            &fixture,
            &[
                "--cycles",
                "16",
                "--clients",
                "8",
                "--chaos",
                "--seed",
                seed,
            ],
        );
        let of = |what: &str| report["strikes"][what].as_u64().unwrap();
        eprintln!("{combination:?}, seed {seed}: {}", report["strikes"]);
        killed += kinds.iter().filter(|what| of(what) > 0).count();
    }
    // Which programs are killed in a short run is chance, but hardly any kills would be an error.
    assert!(killed >= kinds.len(), "{killed}");
}
