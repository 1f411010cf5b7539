//! Which processes belong together where there is no control group: by session and process group,
//! by a mark in the environment, and by descent from one of these.
//!
//! It reads every process of the host, which takes milliseconds: only at the end of a run, never
//! while a request waits. It does not find a process that has left the session, cleared its
//! environment and lost its parent. It never signals.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::stat::{Stat, pids, stat};
use crate::domain::instance::Process;

/// The environment variable that names the instance of a process.
pub const MARK: &str = "ACC_INSTANCE";

/// The living processes of the session and group of `first`, which may have ended, those of this
/// user with this mark, and the descendants of all of them. Never this process. Any user can set
/// the mark on their own processes, so on those of other users it means nothing.
pub fn members(first: Option<Process>, mark: &str, user: u32) -> io::Result<Vec<Process>> {
    let all = all()?;
    // The kernel does not reuse a pid while a session or group of that number has members: another
    // living process with this pid means that none are left.
    let first = first.filter(|first| {
        first.pid > 1
            && all
                .get(&first.pid)
                .is_none_or(|seen| seen.start_time == first.start_time)
    });
    let wanted = format!("{MARK}={mark}");
    let mut found: HashMap<i32, Stat> = HashMap::new();
    for (pid, seen) in &all {
        let together =
            first.is_some_and(|first| seen.session == first.pid || seen.group == first.pid);
        if together || (is_of(*pid, user) && has_in_environment(*pid, wanted.as_bytes())) {
            found.insert(*pid, *seen);
        }
    }
    loop {
        let more: Vec<(i32, Stat)> = all
            .iter()
            .filter(|(pid, seen)| {
                !found.contains_key(pid)
                    && found
                        .get(&seen.parent)
                        .is_some_and(|parent| parent.start_time <= seen.start_time)
            })
            .map(|(pid, seen)| (*pid, *seen))
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    found.remove(&own_pid());
    Ok(found
        .into_iter()
        .filter(|(_, seen)| !seen.zombie)
        .map(|(pid, seen)| Process {
            pid,
            start_time: seen.start_time,
        })
        .collect())
}

/// All marks with this prefix among living processes of this user, each once.
pub fn marks(begin: &str, user: u32) -> io::Result<Vec<String>> {
    let wanted = format!("{MARK}={begin}");
    let mut found: Vec<String> = all()?
        .iter()
        .filter(|(pid, seen)| !seen.zombie && **pid != own_pid() && is_of(**pid, user))
        .filter_map(|(pid, _)| {
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let line = environment
                .split(|byte| *byte == 0)
                .find(|line| line.starts_with(wanted.as_bytes()))?;
            Some(
                std::str::from_utf8(line)
                    .ok()?
                    .strip_prefix(MARK)?
                    .strip_prefix('=')?
                    .to_owned(),
            )
        })
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

fn all() -> io::Result<HashMap<i32, Stat>> {
    Ok(pids()?
        .filter_map(|pid| Some((pid, stat(pid).ok()??)))
        .collect())
}

/// Whether it runs as this user. The kernel shows root as the owner of the files of a process that
/// may not be inspected.
fn is_of(pid: i32, user: u32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok_and(|data| data.uid() == user)
}

/// `false` also if it cannot be read, because it belongs to another user.
fn has_in_environment(pid: i32, line: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
        environment
            .split(|byte| *byte == 0)
            .any(|found| found == line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    fn own_user() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    /// A shell that has started a process in a session of its own, whose parent has ended, and one
    /// beside it; their pids.
    fn family(mark: &str) -> (std::process::Child, Process, Vec<i32>) {
        let script = "(setsid sh -c 'echo $$; exec sleep 1000' &) ; sleep 1000 & echo $!; wait";
        let mut child = Command::new("/bin/sh")
            .args(["-c", script])
            .env(MARK, mark)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let pids = (0..2)
            .map(|_| lines.next().unwrap().unwrap().parse().unwrap())
            .collect();
        let first = super::super::process::by_pid(child.id().cast_signed())
            .unwrap()
            .unwrap();
        (child, first, pids)
    }

    #[test]
    fn a_family_is_found_also_without_its_first_process() {
        let mark = format!("test-{}/a", std::process::id());
        let (mut child, first, pids) = family(&mark);
        let (mut other, ..) = family(&format!("{mark}b"));
        let found = |first, mark: &str| {
            let mut found: Vec<i32> = members(first, mark, own_user())
                .unwrap()
                .iter()
                .map(|p| p.pid)
                .collect();
            found.sort_unstable();
            found
        };
        let mut wanted = pids.clone();
        wanted.sort_unstable();
        let mut whole = [wanted.clone(), vec![first.pid]].concat();
        whole.sort_unstable();
        assert_eq!(found(Some(first), &mark), whole);
        assert_eq!(found(None, &mark), whole);
        assert!(
            marks(&format!("test-{}/", std::process::id()), own_user())
                .unwrap()
                .contains(&mark)
        );
        assert!(
            members(None, &mark, own_user() + 1).unwrap().is_empty(),
            "of another user it says nothing"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found(Some(first), &mark), wanted);
        let reused = Process {
            pid: std::process::id().cast_signed(),
            start_time: 1,
        };
        assert!(found(Some(reused), "no-such-mark").is_empty());
        other.kill().unwrap();
        other.wait().unwrap();
        for mark in [mark.clone(), format!("{mark}b")] {
            for process in members(None, &mark, own_user()).unwrap() {
                super::super::process::signal_one(process, libc::SIGKILL).unwrap();
            }
        }
    }
}
