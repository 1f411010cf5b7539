//! Third-party applications, installed once from PyPI and npm into a cached folder below `target`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use super::{need, run};

/// Longest time an installation may take.
const INSTALL: Duration = Duration::from_secs(240);

/// Installs once: `make` fills the folder, and a marker file records that this is complete.
fn installed(
    name: &str,
    make: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("apps");
    fs::create_dir_all(&cache).unwrap();
    let lock = fs::File::create(cache.join(format!("{name}.lock"))).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, e)| e)
        .unwrap();
    let dir = cache.join(name);
    if !dir.join("complete").exists() {
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        make(&dir)?;
        fs::write(dir.join("complete"), "").unwrap();
    }
    Ok(dir)
}

/// One step of an installation; the error is what the step printed.
fn step(command: &mut Command) -> Result<(), String> {
    let done = run::run(command, INSTALL);
    if done.code == Some(0) {
        Ok(())
    } else {
        Err(format!("could not be installed: {}", done.err.trim()))
    }
}

/// A virtual environment with httpbin, Flask and gunicorn. An error says what is missing.
pub fn flask() -> Result<PathBuf, String> {
    if need::find("python3").is_none() {
        return Err("not installed: python3".to_owned());
    }
    if run::run(
        Command::new("/usr/bin/python3").args(["-c", "import ensurepip, venv"]),
        INSTALL,
    )
    .code
        != Some(0)
    {
        return Err("not installed: python3-venv".to_owned());
    }
    let dir = installed("python", |dir| {
        step(
            Command::new("/usr/bin/python3")
                .args(["-m", "venv"])
                .arg(dir.join("venv")),
        )?;
        let mut pip = Command::new(dir.join("venv/bin/pip"));
        step(pip.args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "gunicorn==23.0.0",
            "httpbin==0.10.2",
        ]))
    })?;
    Ok(dir.join("venv"))
}

/// A folder with json-server below `node_modules`. An error says what is missing.
pub fn json_server() -> Result<PathBuf, String> {
    if need::find("node").is_none() || need::find("npm").is_none() {
        return Err("not installed: node or npm".to_owned());
    }
    installed("node", |dir| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
            .arg(dir)
            .arg("json-server@0.17.4")
            .current_dir(dir);
        step(&mut npm)
    })
}
