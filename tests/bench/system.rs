//! The benchmark of the whole system as a program of its own: `tests/bench/run`, or `cargo bench
//! --bench system -- --help`.
//!
//! Everything is in `tests/bench/`, which `tests/bench.rs` runs too, in small, as one of the tests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark may panic and print"
)]
#![allow(
    unused_imports,
    dead_code,
    reason = "the tests beside the code are compiled here too, and run in tests/bench.rs"
)]

#[path = "../support/mod.rs"]
mod support;

#[path = "mod.rs"]
mod bench;

fn main() -> std::process::ExitCode {
    bench::main(std::env::args().skip(1).collect())
}
