//! The base of the end-to-end tests and of the wake benchmark: a [`Fixture`] is one whole acc
//! installation in its own folder.
//!
//! Nothing here looks inside acc: it runs the binary, speaks HTTP to it and reads `/proc`. It never
//! waits for a fixed time, only for a condition with a deadline, and ends every process it started.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each test binary uses a part of it"
)]

/// Makes a test of each case on each of the four combinations, in a module named after the
/// combination: by these names `tests/run` chooses which tests to run.
macro_rules! suite {
    ($top:ident: $($file:ident { $($case:ident)+ })+) => {
        mod nginx_supervisord { $(mod $file { $(#[test] fn $case() { crate::$top::$file::$case(crate::support::Combination::ALL[0]); })+ })+ }
        mod nginx_builtin { $(mod $file { $(#[test] fn $case() { crate::$top::$file::$case(crate::support::Combination::ALL[1]); })+ })+ }
        mod builtin_supervisord { $(mod $file { $(#[test] fn $case() { crate::$top::$file::$case(crate::support::Combination::ALL[2]); })+ })+ }
        mod builtin_builtin { $(mod $file { $(#[test] fn $case() { crate::$top::$file::$case(crate::support::Combination::ALL[3]); })+ })+ }
    };
}

pub mod fixture;
pub mod http;
pub mod installed;
pub mod mount;
pub mod need;
pub mod processes;
pub mod run;
pub mod wait;
pub mod ws;

pub use fixture::{Combination, Fixture, Settings};
pub use http::Ask;
pub use mount::Mounted;
pub use run::Done;
pub use wait::{holds, now, wait_until};
