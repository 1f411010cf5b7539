//! What a test needs of this machine: if something is missing the test prints `skipped: why` and
//! passes, but with `CI` set it fails.

use std::io::Write;
use std::path::Path;

/// The path of a program in the usual folders and `PATH`.
#[expect(
    clippy::disallowed_methods,
    reason = "tests look for tools where the shell would"
)]
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs = path
        .split(':')
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"]);
    dirs.map(|dir| Path::new(dir).join(program))
        .find(|p| p.is_file())
}

/// Do the tests run as root?
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Reports that the calling test cannot run here; with `CI` set that is a failure.
#[expect(
    clippy::disallowed_methods,
    reason = "CI and ACC_TEST_SKIPS are for tests alone"
)]
#[track_caller]
pub fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "not skipped in CI: {why}");
    eprintln!("skipped: {why}");
    if let Some(list) = std::env::var_os("ACC_TEST_SKIPS") {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(list)
            .unwrap();
        writeln!(file, "skipped: {why}").unwrap();
    }
}

/// True if all of these programs are installed; else the test is [`skipped`].
#[track_caller]
pub fn programs(names: &[&str]) -> bool {
    let missing: Vec<&str> = names
        .iter()
        .copied()
        .filter(|n| find(n).is_none())
        .collect();
    if !missing.is_empty() {
        skipped(&format!("not installed: {}", missing.join(", ")));
    }
    missing.is_empty()
}

/// True if the tests run as root; else the test is [`skipped`].
#[track_caller]
pub fn root(what_for: &str) -> bool {
    if !is_root() {
        skipped(&format!("needs root: {what_for}"));
    }
    is_root()
}
