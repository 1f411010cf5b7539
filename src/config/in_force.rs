//! The file of the settings in force: the server writes it to its run folder, and commands use it.
//!
//! Its first line names the boot of the host; the rest is a config file. This module defines the
//! format. It does not decide whether a command uses it.

use std::path::{Path, PathBuf};

use super::booted::Booted;
use super::env::Env;
use super::load::parse;
use super::settings::Config;
use super::trust;
use crate::host::process;

/// The first line of the file, before the id of the boot.
const BOOT: &str = "# boot ";

/// The file of the settings in force, written by the server of this run folder; removed by `halt`.
#[must_use]
pub fn file(run: &Path) -> PathBuf {
    run.join("in-force.toml")
}

/// The text of the file.
#[must_use]
pub fn written(config: &Config) -> String {
    format!("{BOOT}{}\n{}", process::boot_id(), config.to_toml())
}

/// Reads the settings of the server in this run folder; `None`: there is no server, or they are
/// unknown.
#[must_use]
pub fn read(run: &Path, env: &Env) -> Option<Config> {
    // Never read from another user's folder: it may be a trap.
    if !matches!(trust::distrust(run), Ok(None)) {
        return None;
    }
    let text = trust::read_to_string(&file(run)).ok()?;
    let of_boot = text.lines().next()?.strip_prefix(BOOT)?;
    // The variables of this process say nothing about the server's.
    let config = parse(&text, None, &Env::bare(env.uid, "/")).ok()?;
    let is_in_force =
        of_boot == process::boot_id() && config.run == run && config.booted() != Booted::No;
    is_in_force.then_some(config)
}
