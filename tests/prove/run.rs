//! Runs `acc prove` and reads its report.

use std::time::Duration;

use serde_json::Value;

use crate::support::run::{Done, run};
use crate::support::{Fixture, wait_until};

/// Longest a proof may take.
pub const PROOF: Duration = Duration::from_secs(240);

/// Runs a proof; returns its report and how it ended.
#[track_caller]
pub fn prove(fixture: &Fixture, arguments: &[&str]) -> (Value, Done) {
    let done = run(
        &mut fixture.command(&[&["prove", "--json"], arguments].concat()),
        PROOF,
    );
    let report =
        serde_json::from_str(&done.out).unwrap_or_else(|e| panic!("no report ({e}): {done:?}"));
    (report, done)
}

/// Panics unless nothing was lost, wrong or doubled, and the scratch instance was removed.
#[track_caller]
pub fn proven(fixture: &Fixture, arguments: &[&str]) -> Value {
    let (report, done) = prove(fixture, arguments);
    let numbers = ["lost", "wrong", "doubled"].map(|key| report[key].as_u64());
    assert_eq!(numbers, [Some(0); 3], "{report:#}");
    assert_eq!(
        (done.code, &report["proven"], &report["recorded"]),
        (Some(0), &true.into(), &true.into()),
        "{report:#}\n{}",
        done.err
    );
    nothing_is_left(fixture);
    report
}

/// Panics unless no scratch instance is left.
#[track_caller]
pub fn nothing_is_left(fixture: &Fixture) {
    wait_until(
        "no scratch instance is left",
        Duration::from_secs(5),
        || match fixture.json(&["list"]).as_array().unwrap() {
            all if all
                .iter()
                .all(|i| !i["name"].as_str().unwrap().starts_with("prove-")) =>
            {
                Ok(())
            }
            all => Err(format!("{all:?}")),
        },
    );
    fixture.assert_no_trace_of("prove-");
}
