//! What processes cost, as the kernel counts it: memory, wake-ups, processor time.

use std::fs;
use std::path::Path;

use crate::support::{Fixture, processes};

/// The processes of one fixture that exist whether instances are awake or not.
pub struct Standing {
    /// acc's master and worker.
    pub server: Vec<i32>,
    /// nginx's master and workers; none with the builtin edge.
    pub nginx: Vec<i32>,
}

impl Standing {
    pub fn of(fixture: &Fixture) -> Self {
        let found = processes::of(&fixture.dir);
        let pids = |holds: &dyn Fn(&str) -> bool| {
            found
                .iter()
                .filter(|p| holds(&p.command))
                .map(|p| p.pid)
                .collect()
        };
        Self {
            server: pids(&|c| {
                c.split(' ').any(|w| w == "server" || w == "worker") && !c.starts_with("nginx:")
            }),
            nginx: pids(&|c| c.starts_with("nginx: ")),
        }
    }
}

/// Memory of the process in MiB: anonymous pages and shared memory, with its share of pages used by
/// several processes. Pages of programs and other files are left out, because the kernel can drop
/// them and read them again.
pub fn own_mib(pid: i32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let share = |key| {
        text.lines()
            .find_map(|l| l.strip_prefix(key)?.split_whitespace().next())
            .and_then(|kib| kib.parse::<f64>().ok())
    };
    ["Pss_Anon:", "Pss_Shmem:"]
        .into_iter()
        .filter_map(share)
        .sum::<f64>()
        / 1024.0
}

/// How often its threads have gone to sleep voluntarily: each time causes a wake-up of the
/// processor later.
pub fn switches(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let of = |path: &Path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"))
            .unwrap_or("0");
        line.trim().parse::<u64>().unwrap_or(0)
    };
    tasks.map(|t| of(&t.path().join("status"))).sum()
}

/// Time on a processor, in milliseconds.
pub fn busy(pid: i32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let of = |path: &Path| {
        fs::read_to_string(path)
            .ok()?
            .split(' ')
            .next()?
            .parse::<f64>()
            .ok()
    };
    tasks
        .filter_map(|t| of(&t.path().join("schedstat")))
        .sum::<f64>()
        / 1e6
}
