//! Builds the launcher (`crates/launch`), which acc carries within itself: a static program, since a
//! program as big as acc takes longer to begin. In a target folder of its own: cargo, which waits
//! for this, holds the lock of the other one. It decides with which C library, and nothing else
//! about the build.

#![allow(
    clippy::disallowed_methods,
    reason = "cargo speaks to it by the environment"
)]

use std::env;
use std::path::Path;
use std::process::Command;

/// Static, and nothing to be moved to another address before it can begin.
const RUSTFLAGS: &str = "-Ctarget-feature=+crt-static\x1f-Crelocation-model=static";

fn main() {
    for path in ["crates/launch", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Err(why) = build() {
        let why = why.replace('\n', " ");
        println!("cargo::error=could not build the launcher: {why}");
    }
}

fn build() -> Result<(), String> {
    let given = |name| env::var(name).map_err(|e| format!("{name}: {e}"));
    let (out, own) = (given("OUT_DIR")?, given("TARGET")?);
    let musl = own.replace("-linux-gnu", "-linux-musl");
    let target = if has(&given("RUSTC")?, &musl) {
        musl
    } else {
        own
    };
    let folder = Path::new(&out).join("launcher-target");
    let done = Command::new(given("CARGO")?)
        .args(["build", "--locked", "--quiet", "--package", "acc-launch"])
        .args(["--profile", "launcher", "--target", &target])
        .arg("--target-dir")
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS)
        // Where a user's configuration has one folder for all, cargo would wait for itself.
        .env("CARGO_BUILD_BUILD_DIR", &folder)
        // A lint of acc, say.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .output()
        .map_err(|e| e.to_string())?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(format!(
            "{said} (it needs a static C library: libc6-dev, glibc-static, or rustup's target for musl)"
        ));
    }
    let built = folder.join(target).join("launcher/acc-launch");
    std::fs::copy(built, Path::new(&out).join("launcher"))
        .map(drop)
        .map_err(|e| e.to_string())
}

/// Can this compiler build for the target? musl's is no part of every toolchain; its start asks the
/// processor nothing, which on a virtual machine is a trip to the host each time.
fn has(rustc: &str, target: &str) -> bool {
    let asked = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", target])
        .output();
    asked.is_ok_and(|said| Path::new(String::from_utf8_lossy(&said.stdout).trim()).is_dir())
}
