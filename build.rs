//! Compiles the launcher (`src/driver/supervisor/launcher`), which acc carries within itself: a
//! program of its own, small and without any library, since it is on the way of a wake. It decides
//! nothing else about the build.

#![allow(
    clippy::disallowed_methods,
    reason = "cargo speaks to it by the environment"
)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = "src/driver/supervisor/launcher";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("launcher");
    if let Err(why) = compile(&out) {
        println!(
            "cargo::error=could not compile the launcher: {}",
            why.replace('\n', " ")
        );
    }
}

fn compile(out: &Path) -> Result<(), String> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args([
        "--edition",
        "2024",
        "--crate-name",
        "launcher",
        "--crate-type",
        "bin",
    ]);
    rustc.args([
        "-C",
        "opt-level=s",
        "-C",
        "panic=abort",
        "-C",
        "lto=fat",
        "-C",
        "codegen-units=1",
        "-C",
        "strip=symbols",
    ]);
    // No library, and nothing to be moved to another address before it can begin.
    rustc.args([
        "-C",
        "target-feature=+crt-static",
        "-C",
        "relocation-model=static",
    ]);
    rustc.args(
        [
            "-nostartfiles",
            "-nostdlib",
            "-static",
            "-Wl,--build-id=none",
        ]
        .map(|arg| format!("-Clink-arg={arg}")),
    );
    if let Some(target) =
        env::var_os("TARGET").filter(|target| env::var_os("HOST").as_ref() != Some(target))
    {
        rustc.arg("--target").arg(target);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    let done = rustc
        .arg(Path::new(SOURCE).join("main.rs"))
        .arg("-o")
        .arg(out)
        .output()
        .map_err(|e| e.to_string())?;
    if done.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&done.stderr).into_owned())
    }
}
