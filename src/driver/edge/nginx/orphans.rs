//! Workers whose master was killed: they hold the port and go on serving with the configuration they had, so that the next nginx
//! cannot start. They are told to finish what they have; nobody else's nginx is touched.

use std::fs;
use std::io;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::master::{parent, title};

/// Tells all workers without a master that write to `log` to finish their connections and end, or with `now` to end at once.
/// Returns how many were told.
pub(super) fn end(log: &Path, now: bool) -> io::Result<usize> {
    let mut told = 0;
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        if is_orphan(pid, now)? && writes_to(pid, log) {
            let signal = if now { Signal::SIGTERM } else { Signal::SIGQUIT };
            match kill(Pid::from_raw(pid), signal) {
                Ok(()) => told += 1,
                Err(nix::errno::Errno::ESRCH) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(told)
}

/// A worker that has no nginx above it; one that is finishing already counts only when all must end now.
fn is_orphan(pid: i32, now: bool) -> io::Result<bool> {
    let Some(title) = title(pid)? else { return Ok(false) };
    if !title.starts_with("nginx: worker process") || (!now && title.contains("shutting down")) {
        return Ok(false);
    }
    let Some(parent) = parent(pid) else { return Ok(false) };
    Ok(super::master::title(parent)?.is_none_or(|t| !t.starts_with("nginx: master process")))
}

/// Has it this file open? Its name says nothing of its configuration, but no other nginx has our log.
fn writes_to(pid: i32, log: &Path) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| target == log)
}
