//! The file of the settings in force: the server writes it into its run folder, commands go by it.
//!
//! Its first line names the boot of the host it is of; what follows is a config file. Here is its
//! format, both ways; whether a command goes by it is not decided here.

use std::path::{Path, PathBuf};

use super::booted::Booted;
use super::env::Env;
use super::load::parse;
use super::settings::Config;
use super::trust;
use crate::host::process;

/// The first line of the file, before the id of the boot of the host it is of.
const BOOT: &str = "# boot ";

/// The settings in force, as the server of this run folder has written them down; not there after
/// `halt`.
#[must_use]
pub fn file(run: &Path) -> PathBuf {
    run.join("in-force.toml")
}

/// What the file has in it.
#[must_use]
pub fn written(config: &Config) -> String {
    format!("{BOOT}{}\n{}", process::boot_id(), config.to_toml())
}

/// The settings of the server in this run folder; `None`: there is no server, or they are unknown.
#[must_use]
pub fn read(run: &Path, env: &Env) -> Option<Config> {
    // A stranger's folder is a trap.
    if !matches!(trust::distrust(run), Ok(None)) || Booted::in_run(run) == Booted::No {
        return None;
    }
    let text = trust::read_to_string(&file(run)).ok()?;
    let of_boot = text.lines().next()?.strip_prefix(BOOT)?;
    // The variables of this process say nothing about the server's.
    let config = parse(&text, None, &Env::bare(env.uid, "/")).ok()?;
    (of_boot == process::boot_id() && config.run == run).then_some(config)
}
