//! The benchmark in small, as a test: the code that evaluates figures, and one quick run whose
//! table and JSON are checked. No time is asserted: that is for `tests/bench/run` on a quiet
//! machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may panic and print"
)]

mod support;

#[path = "bench/mod.rs"]
mod bench;

#[test]
fn a_quick_run_makes_a_table_that_can_be_read() {
    if !support::need::programs(&["cc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("out.json");
    let arguments = ["--quick", "--json", json.to_str().unwrap()].map(str::to_owned);
    assert_eq!(
        bench::main(arguments.into()),
        std::process::ExitCode::SUCCESS
    );
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert!(report["machine"]["kernel"].is_string(), "{report}");
    let rows = report["rows"].as_array().unwrap();
    assert!(
        rows.iter()
            .any(|r| r["group"] == "wake" && r["reference"]["n"] == 3),
        "{report}"
    );
}
