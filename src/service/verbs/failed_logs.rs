//! Logs of instances that could not be created: all else of them is removed, and what they said
//! last is all there is to go by.
//!
//! The newest few are kept, below `home/log/failed`.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::host::fs::{last_lines, make_dir, make_file};
use crate::host::rotate::LOG_MAX;
use crate::host::untrusted;

/// So many logs are kept.
const KEPT: usize = 20;
/// So many lines are shown.
const SHOWN: usize = 30;

/// Keeps the log of this instance, which is about to be removed. For people: its last lines and
/// where it is, in lines of their own.
pub(in crate::service) fn keep(config: &Config, name: &str) -> String {
    let log = config.app_log(name);
    let last = last_lines(&log, SHOWN);
    if last.is_empty() {
        return String::new();
    }
    let place = match copy(&log, &config.failed_logs().join(format!("{name}.log"))) {
        Ok(kept) => format!("the complete log is `{}`; it ends with", kept.display()),
        Err(error) => {
            tracing::warn!(instance = name, %error, "could not keep a copy of its log");
            "the log could not be kept; it ends with".to_owned()
        }
    };
    tidy(&config.failed_logs());
    last.iter()
        .fold(format!("\n{place}:"), |text, line| text + "\n  " + line)
}

/// What an application writes may hold secrets: only acc's user reads it.
fn copy(log: &Path, to: &Path) -> io::Result<PathBuf> {
    make_dir(to.parent().unwrap_or(to), 0o700)?;
    let (from, _) = untrusted::open(log, untrusted::To::Read)?;
    io::copy(&mut from.take(LOG_MAX), &mut make_file(to, 0o600)?)?;
    Ok(to.to_owned())
}

/// Removes the oldest.
fn tidy(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    all.sort();
    for (_, path) in all.iter().rev().skip(KEPT) {
        let _ = fs::remove_file(path);
    }
}
