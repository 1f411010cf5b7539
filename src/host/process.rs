//! Processes: whether one is still the same, how it ended, and signals to it and its group.
//!
//! A process is a pid and a start time ([`Process`]), held by a pidfd during a wait, so that acc
//! never waits for or signals a process that reuses the pid. It never starts a process: `spawn`
//! does.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::domain::instance::{Exit, Process};

pub use super::stat::{Stat, pids, stat};

/// How long to wait for another parent to reap its child, so that the kernel reports the exit
/// status.
const REAP_WAIT: Duration = Duration::from_millis(250);

/// Start time of a living process in clock ticks since boot; `None`: no such process, or a zombie.
pub fn start_time(pid: i32) -> io::Result<Option<u64>> {
    Ok(stat(pid)?.filter(|s| !s.zombie).map(|s| s.start_time))
}

/// A clock tick of `/proc`: `USER_HZ` is 100 on every architecture that acc supports.
const TICK_NS: u64 = 10_000_000;
/// How far the clock read here may differ from the kernel's.
const CLOCK_MARGIN_NS: u64 = 20_000;

/// Nanoseconds since boot on the clock of start times, read without a system call.
#[must_use]
pub fn since_boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// The start time in clock ticks of a process started between these times; `None`: a tick passed
/// meanwhile.
fn reckoned(before_ns: u64, after_ns: u64) -> Option<u64> {
    let first = before_ns.saturating_sub(CLOCK_MARGIN_NS) / TICK_NS;
    (first == (after_ns + CLOCK_MARGIN_NS) / TICK_NS).then_some(first)
}

/// The start time of a child that was forked between these times and not reaped yet. It is computed
/// from the clock, and read from `/proc` only if that is ambiguous: to open the folder of a new
/// process takes as long as a fork. The first child is used to compare both, because not every
/// Linux-compatible kernel computes start times like Linux.
#[must_use]
pub fn start_time_of_child(pid: i32, before_ns: u64, after_ns: u64) -> u64 {
    static CLOCK_TELLS: OnceLock<bool> = OnceLock::new();
    let reckoned = reckoned(before_ns, after_ns);
    if let Some(start_time) = reckoned.filter(|_| CLOCK_TELLS.get() == Some(&true)) {
        return start_time;
    }
    // Alive or zombie: its pid is not reused.
    let seen = stat(pid).ok().flatten().map(|s| s.start_time);
    if let (Some(reckoned), Some(seen)) = (reckoned, seen) {
        let _ = CLOCK_TELLS.set(reckoned == seen);
    }
    seen.unwrap_or(0)
}

/// The living process with this pid.
pub fn by_pid(pid: i32) -> io::Result<Option<Process>> {
    Ok(start_time(pid)?.map(|start_time| Process { pid, start_time }))
}

/// Pids of the children of a single-threaded process, zombies included: from the kernel's list, or
/// from the parent of every process.
///
/// # Errors
/// `/proc` cannot be read.
pub fn children(pid: i32) -> io::Result<Vec<i32>> {
    match fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")) {
        Ok(text) => Ok(text
            .split_whitespace()
            .filter_map(|p| p.parse().ok())
            .collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => children_by_parent(pid),
        Err(e) => Err(e),
    }
}

fn children_by_parent(parent: i32) -> io::Result<Vec<i32>> {
    Ok(pids()?
        .filter(|pid| matches!(stat(*pid), Ok(Some(seen)) if seen.parent == parent))
        .collect())
}

/// Whether it has the file of this path, as the kernel shows it, open. `false` also if that cannot
/// be read.
#[must_use]
pub fn has_open(pid: i32, path: &Path) -> bool {
    let Ok(links) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    links
        .flatten()
        .any(|link| fs::read_link(link.path()).is_ok_and(|to| to == path))
}

/// Whether this very process is alive.
pub fn is_same(process: Process) -> io::Result<bool> {
    Ok(start_time(process.pid)? == Some(process.start_time))
}

/// The id of this boot: start times of another boot mean nothing. Empty if it cannot be read.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// Sends the signal to the process group that this process leads. If the process is gone, that is
/// success; a zombie's group is still signalled, because it may have members. A process that leads
/// no group (it was just forked) is signalled alone: otherwise the signal would be lost without an
/// error.
pub fn signal_group(process: Process, signal: i32) -> io::Result<()> {
    match stat(process.pid)? {
        Some(seen) if seen.start_time == process.start_time && seen.group != process.pid => {
            signal_one(process, signal)
        }
        Some(seen) if seen.start_time == process.start_time => signal_members(process.pid, signal),
        _ => Ok(()),
    }
}

/// Sends the signal to the process only. If it is gone, that is success.
pub fn signal_one(process: Process, signal: i32) -> io::Result<()> {
    if !is_same(process)? {
        return Ok(());
    }
    let signal = Signal::try_from(signal).map_err(io::Error::from)?;
    match signal::kill(nix::unistd::Pid::from_raw(process.pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn signal_members(group: i32, signal: i32) -> io::Result<()> {
    // To the kernel, 0 is our own group and 1 is every process.
    if group <= 1 {
        return Ok(());
    }
    let signal = Signal::try_from(signal).map_err(io::Error::from)?;
    match signal::killpg(nix::unistd::Pid::from_raw(group), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Kills the group that a dead leader left. The kernel does not reuse a pid while a group of that
/// number has members, so a living process with this pid and another start time means that none are
/// left.
fn kill_leftovers(process: Process) {
    let reused =
        matches!(stat(process.pid), Ok(Some(seen)) if seen.start_time != process.start_time);
    if !reused && let Err(error) = signal_members(process.pid, libc::SIGKILL) {
        tracing::warn!(pid = process.pid, %error, "could not kill the rest of a process group");
    }
}

/// Resolves when the process has ended, or at once if it has already. Kills the rest of its group
/// and reaps a child of ours. [`Exit::Unknown`]: the kernel no longer has the exit status.
pub async fn ended(process: Process) -> io::Result<Exit> {
    hold(process)?.ended().await
}

/// A process, alive or not, held by a pidfd: the kernel then keeps the exit status even after the
/// parent has reaped it (Linux 6.15).
#[derive(Debug)]
pub struct HeldProcess {
    process: Process,
    pidfd: Option<OwnedFd>,
}

/// Holds a process; one that is gone counts as ended.
pub fn hold(process: Process) -> io::Result<HeldProcess> {
    let Some(pid) = rustix::process::Pid::from_raw(process.pid).filter(|_| process.pid > 0) else {
        return Ok(HeldProcess {
            process,
            pidfd: None,
        });
    };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        // Open the pidfd first, then check: what is read now belongs to that pidfd, or the process
        // has ended.
        Ok(pidfd) => stat(process.pid)?
            .filter(|seen| seen.start_time == process.start_time)
            .map(|_| pidfd),
        Err(rustix::io::Errno::SRCH) => None,
        Err(e) => return Err(e.into()),
    };
    Ok(HeldProcess { process, pidfd })
}

impl HeldProcess {
    /// The process.
    #[must_use]
    pub fn process(&self) -> Process {
        self.process
    }

    /// Duplicates the hold.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            process: self.process,
            pidfd: self.pidfd.as_ref().map(OwnedFd::try_clone).transpose()?,
        })
    }

    /// See [`ended`].
    pub async fn ended(self) -> io::Result<Exit> {
        self.over(kill_leftovers).await
    }

    /// The same, but the rest of its group continues.
    pub async fn exited(self) -> io::Result<Exit> {
        self.over(|_| {}).await
    }

    async fn over(self, then: impl Fn(Process)) -> io::Result<Exit> {
        let process = self.process;
        let Some(pidfd) = self.pidfd else {
            then(process);
            return Ok(Exit::Unknown);
        };
        #[expect(unsafe_code, reason = "tokio registers descriptors only unsafely")]
        // SAFETY: `OwnedFd` returns the same descriptor every time and keeps it open until the
        // `AsyncFd` that owns it is dropped.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
        drop(pidfd.readable().await?);
        if let Some(exit) = ended_child(pidfd.get_ref().as_fd())? {
            // Reap only afterwards: until then the zombie keeps the number of the group.
            then(process);
            let _ = waitid(
                WaitId::PidFd(pidfd.get_ref().as_fd()),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            );
            return Ok(exit);
        }
        let seen = zombie_exit(process);
        then(process);
        match seen {
            Some(exit) => Ok(exit),
            None => Ok(reaped_exit(pidfd.get_ref().as_fd()).await),
        }
    }
}

/// How a child of ours ended, without reaping it; `None`: it is not our child.
fn ended_child(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::PidFd(pidfd), options) {
        Ok(Some(status)) => Ok(Some(
            match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            },
        )),
        Ok(None) => Ok(Some(Exit::Unknown)),
        Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A zombie of another parent shows its wait status in `/proc` (to root and its own user).
fn zombie_exit(process: Process) -> Option<Exit> {
    let seen = stat(process.pid).ok()??;
    let may_read = seen.wait_status != 0 || rustix::process::geteuid().is_root();
    (seen.zombie && seen.start_time == process.start_time && may_read)
        .then(|| decode(seen.wait_status))
}

/// Converts a wait status.
fn decode(status: i32) -> Exit {
    if libc::WIFEXITED(status) {
        Exit::Code(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Unknown
    }
}

/// Reads the exit status from the pidfd: Linux 6.15 has it once the parent has reaped the process.
async fn reaped_exit(pidfd: BorrowedFd<'_>) -> Exit {
    let mut pause = Duration::from_millis(1);
    let mut waited = Duration::ZERO;
    loop {
        match pidfd_exit(pidfd) {
            Ok(Some(exit)) => return exit,
            Err(_) => return Exit::Unknown,
            Ok(None) if waited >= REAP_WAIT => return Exit::Unknown,
            Ok(None) => {
                tokio::time::sleep(pause).await;
                waited += pause;
                pause = (pause * 2).min(Duration::from_millis(16));
            }
        }
    }
}

/// `struct pidfd_info` of `<linux/pidfd.h>` in its first published size; acc uses only its first
/// and last fields.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;

// The request has no wrapper in rustix, nix or libc.
mod raw {
    use super::PidfdInfo;
    nix::ioctl_readwrite!(
        /// `PIDFD_GET_INFO`: fills the struct from a pidfd.
        get_info, 0xFF, 11, PidfdInfo);
}

/// How the process ended; `None`: its parent has not reaped it yet. An error: this kernel does not
/// support the request.
fn pidfd_exit(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    #[expect(unsafe_code, reason = "the ioctl has no safe wrapper")]
    // SAFETY: `info` is a live, exclusively borrowed struct of exactly the size that the request
    // number carries; the kernel writes no more than that size, and every bit pattern is a valid
    // value of its integers.
    let answer = unsafe { raw::get_info(pidfd.as_raw_fd(), &raw mut info) };
    match answer {
        Ok(_) if info.mask & PIDFD_INFO_EXIT != 0 => Ok(Some(decode(info.exit_code))),
        // A kernel that knows the request but not the exit status never returns it: the caller's
        // time limit ends the wait.
        Ok(_) => Ok(None),
        // ESRCH: reaped already, and this kernel did not keep the exit status.
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    fn spawn(script: &str) -> (std::process::Child, Process) {
        let child = Command::new("/bin/sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start_time = stat(pid).unwrap().unwrap().start_time;
        (child, Process { pid, start_time })
    }

    #[test]
    fn our_own_process_is_alive_and_nobody_is_not() {
        let me = i32::try_from(std::process::id()).unwrap();
        let start = start_time(me).unwrap().unwrap();
        assert!(
            is_same(Process {
                pid: me,
                start_time: start
            })
            .unwrap()
        );
        assert!(
            !is_same(Process {
                pid: me,
                start_time: start + 1
            })
            .unwrap()
        );
        for pid in [i32::MAX, 0, -1] {
            assert_eq!(start_time(pid).unwrap(), None, "{pid}");
        }
        assert_eq!(boot_id().len(), 36);
    }

    #[test]
    fn the_clock_tells_when_a_child_was_started() {
        let mut ended = 0;
        for _ in 0..40 {
            let before = since_boot_ns();
            let (mut child, process) = spawn("exit 0");
            let after = since_boot_ns();
            assert_eq!(
                start_time_of_child(process.pid, before, after),
                process.start_time
            );
            if let Some(start_time) = reckoned(before, after) {
                assert_eq!(start_time, process.start_time);
                ended += 1;
            }
            child.wait().unwrap();
        }
        assert!(ended > 0, "every one of them met the end of a tick");
        assert_eq!(reckoned(19_990_000, 19_991_000), None);
        assert_eq!(reckoned(15_000_000, 20_010_000), None);
        assert_eq!(reckoned(20_030_000, 20_090_000), Some(2));
    }

    #[test]
    fn nobody_is_signalled_under_a_wrong_start_time() {
        let me = i32::try_from(std::process::id()).unwrap();
        signal_group(
            Process {
                pid: me,
                start_time: 1,
            },
            libc::SIGKILL,
        )
        .unwrap();
        signal_group(
            Process {
                pid: 1,
                start_time: 999_999_999,
            },
            libc::SIGKILL,
        )
        .unwrap();
        signal_members(0, libc::SIGKILL).unwrap();
        signal_members(1, libc::SIGKILL).unwrap();
    }

    #[tokio::test]
    async fn a_child_ends_with_its_code_or_signal() {
        let (_child, process) = spawn("exit 7");
        assert_eq!(ended(process).await.unwrap(), Exit::Code(7));
        let (_child, process) = spawn("kill -9 $$");
        assert_eq!(ended(process).await.unwrap(), Exit::Signal(9));
        assert_eq!(stat(process.pid).unwrap(), None, "it was reaped");
        assert_eq!(ended(process).await.unwrap(), Exit::Unknown);
    }

    #[tokio::test]
    async fn a_zombie_counts_as_ended() {
        let (mut child, process) = spawn("exit 0");
        while start_time(process.pid).unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(stat(process.pid).unwrap().unwrap().zombie);
        assert!(!is_same(process).unwrap());
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_process_whose_first_thread_has_ended_lives() {
        let dir = tempfile::tempdir().unwrap();
        let go = dir.path().join("go");
        let script = "import ctypes, os, sys, threading, time\n\
            def rest():\n    \
                while not os.path.exists(sys.argv[1]): time.sleep(0.005)\n    \
                os._exit(9)\n\
            threading.Thread(target=rest).start()\n\
            ctypes.CDLL(None).pthread_exit(None)\n";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(&go)
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = by_pid(pid).unwrap().unwrap();
        for _ in 0..2000 {
            if fs::read_to_string(format!("/proc/{pid}/stat"))
                .unwrap()
                .contains(") Z ")
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(
            fs::read_to_string(format!("/proc/{pid}/stat"))
                .unwrap()
                .contains(") Z ")
        );
        assert!(is_same(process).unwrap(), "its other thread runs");
        fs::write(&go, "").unwrap();
        assert_eq!(ended(process).await.unwrap(), Exit::Code(9));
        assert!(!is_same(process).unwrap());
        // Reaped already.
        let _ = child.wait();
    }

    #[tokio::test]
    async fn leftovers_of_the_group_are_killed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let (_child, process) = spawn(&format!(
            "sleep 1000 & echo $! > {}; exit 3",
            file.display()
        ));
        assert_eq!(ended(process).await.unwrap(), Exit::Code(3));
        let left: i32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        for _ in 0..2000 {
            if start_time(left).unwrap().is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the grandchild {left} still runs");
    }

    #[tokio::test]
    async fn a_process_that_is_not_our_child_tells_too() {
        for (end, exit) in [
            ("exit 5", Exit::Code(5)),
            ("kill -TERM $$", Exit::Signal(15)),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (file, go) = (dir.path().join("pid"), dir.path().join("go"));
            // The shell in the middle stays its parent and reaps it.
            let script = format!(
                "sh -c 'while [ ! -e {} ]; do read x < /proc/uptime; done; {end}' & echo $! > {}; wait; sleep 1000",
                go.display(),
                file.display()
            );
            let (_child, middle) = spawn(&script);
            let pid = loop {
                if let Some(pid) = fs::read_to_string(&file)
                    .ok()
                    .and_then(|t| t.trim().parse().ok())
                {
                    break pid;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            };
            let process = by_pid(pid).unwrap().unwrap();
            let waiting = tokio::spawn(ended(process));
            tokio::task::yield_now().await;
            fs::write(&go, "").unwrap();
            let seen = waiting.await.unwrap().unwrap();
            signal_group(middle, libc::SIGKILL).unwrap();
            assert_eq!(ended(middle).await.unwrap(), Exit::Signal(9));
            assert_eq!(seen, exit);
        }
    }

    #[test]
    fn children_are_found_either_way() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let by_parent = children_by_parent(me).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(by_parent.contains(&i32::try_from(child.id()).unwrap()));
    }
}
