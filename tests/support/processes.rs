//! Finds the processes of one fixture by its folder, which no other process on the machine
//! mentions, and ends them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process as `/proc` shows it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Process id.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Its arguments, joined with spaces.
    pub command: String,
}

/// All live processes (no zombies).
fn all() -> Vec<Seen> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(look).collect()
}

/// One process; `None` if it has ended or is a zombie.
pub fn look(pid: i32) -> Option<Seen> {
    // Lossy: the name of a process may be any bytes.
    let stat = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned();
    let mut after_name = stat.rsplit_once(") ")?.1.split(' ');
    let state = after_name.next()?;
    let parent = after_name.next()?.parse().ok()?;
    // While other threads of a killed process are left, the process still holds its files: its
    // sockets accept connections.
    if state == "Z" && after_name.nth(15)?.parse::<u32>().ok()? <= 1 {
        return None;
    }
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(Seen {
        pid,
        parent,
        command: String::from_utf8_lossy(&command)
            .replace('\0', " ")
            .trim()
            .to_owned(),
    })
}

/// Does this process belong to the fixture in `dir`: by its arguments, folder, environment or open
/// files?
fn belongs(process: &Seen, dir: &Path) -> bool {
    let text = dir.to_str().unwrap();
    let at = |name: &str| {
        fs::read_link(format!("/proc/{}/{name}", process.pid)).is_ok_and(|p| p.starts_with(dir))
    };
    let open = || {
        let files = fs::read_dir(format!("/proc/{}/fd", process.pid))
            .into_iter()
            .flatten()
            .flatten();
        files
            .filter_map(|f| fs::read_link(f.path()).ok())
            .any(|p| p.starts_with(dir))
    };
    let environment = || {
        let bytes = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        bytes
            .windows(text.len())
            .any(|w| w == dir.as_os_str().as_bytes())
    };
    process.command.contains(text) || at("cwd") || open() || environment()
}

/// Every process of the fixture in `dir`, with all their descendants; never the calling process and
/// its ancestors.
pub fn of(dir: &Path) -> Vec<Seen> {
    let all: BTreeMap<i32, Seen> = all().into_iter().map(|p| (p.pid, p)).collect();
    let mut spared = BTreeSet::new();
    let mut pid = std::process::id().cast_signed();
    while let Some(process) = all.get(&pid) {
        spared.insert(pid);
        pid = process.parent;
    }
    let mut found: BTreeSet<i32> = all
        .values()
        .filter(|p| !spared.contains(&p.pid) && belongs(p, dir))
        .map(|p| p.pid)
        .collect();
    loop {
        let more: Vec<i32> = all
            .values()
            .filter(|p| found.contains(&p.parent) && !found.contains(&p.pid))
            .map(|p| p.pid)
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    found
        .iter()
        .filter(|p| !spared.contains(p))
        .filter_map(|p| all.get(p).cloned())
        .collect()
}

/// The one process of the fixture whose arguments contain all these words.
pub fn find(dir: &Path, words: &[&str]) -> Option<Seen> {
    of(dir).into_iter().find(|p| {
        words.iter().all(|w| {
            p.command
                .split(' ')
                .any(|part| part == *w || part.rsplit('/').next() == Some(w))
        })
    })
}

/// Does this process live?
pub fn alive(pid: i32) -> bool {
    look(pid).is_some()
}

/// Sends a signal; it is no error if the process has ended.
pub fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Stops all processes of the fixture with SIGSTOP, also those started meanwhile; returns their
/// ids.
pub fn stop_all(dir: &Path) -> Vec<i32> {
    let mut stopped = Vec::new();
    loop {
        let more: Vec<i32> = of(dir)
            .iter()
            .map(|p| p.pid)
            .filter(|pid| !stopped.contains(pid))
            .collect();
        if more.is_empty() {
            return stopped;
        }
        more.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
        stopped.extend(more);
    }
}

/// As in a power cut: no process sees another one die, and none is replaced.
pub fn cut_power(dir: &Path) {
    let stopped = stop_all(dir);
    stopped.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
    end(dir, stopped);
}

/// Kills all processes of the fixture, repeatedly until none is left (a supervisor may start new
/// ones meanwhile).
pub fn end_all(dir: &Path) {
    end(dir, Vec::new());
}

/// As [`end_all`], when the processes in `killed` were killed already. A process that is ending
/// shows neither its folder nor its files, and its sockets still accept connections: the end is
/// awaited by process id.
fn end(dir: &Path, mut killed: Vec<i32>) {
    for _ in 0..500 {
        for process in of(dir) {
            signal(process.pid, Signal::SIGKILL);
            killed.push(process.pid);
        }
        killed.retain(|pid| alive(*pid));
        if killed.is_empty() {
            return;
        }
        super::wait::pause(std::time::Duration::from_millis(20));
    }
}
