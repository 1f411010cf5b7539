//! Starts a process that outlives acc: own session, exact environment, nothing inherited but what is named here.
//!
//! It does not wait for the process and does not remember it: the caller has its pid, and so has the pid file, from before
//! the first instruction of the program, so that a crash of acc loses no process.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, User, getgrouplist};

/// A user to run as, looked up beforehand: the child may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserIds {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

/// Looks up a user and its groups; `None`: there is no such user.
pub fn user_ids(name: &str) -> io::Result<Option<UserIds>> {
    let Some(user) = User::from_name(name).map_err(io::Error::from)? else { return Ok(None) };
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let groups = getgrouplist(&name, user.gid).map_err(io::Error::from)?;
    Ok(Some(UserIds { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups: groups.into_iter().map(Gid::as_raw).collect() }))
}

/// Only root can start a process as somebody else.
#[must_use]
pub fn may_change_user() -> bool {
    Uid::effective().is_root()
}

/// What to start and with what.
#[derive(Debug)]
pub struct Detached<'a> {
    /// The program: a path; it is also its own argument 0.
    pub program: &'a Path,
    /// Arguments after argument 0.
    pub args: &'a [String],
    /// The whole environment.
    pub env: &'a [(String, String)],
    /// Working directory.
    pub dir: &'a Path,
    /// Standard output and error.
    pub log: &'a File,
    /// The child writes its pid into this file before it becomes the program.
    pub pid_file: &'a File,
    /// Whom to become; `None`: stay who we are.
    pub user: Option<&'a UserIds>,
}

/// Starts it and returns its pid. A failure to execute the program is an error here, not an exit of the child.
pub fn spawn(what: &Detached<'_>) -> io::Result<i32> {
    let mut command = Command::new(what.program);
    command.args(what.args).env_clear().envs(what.env.iter().map(|(k, v)| (k, v))).current_dir(what.dir);
    command.stdin(Stdio::null()).stdout(what.log.try_clone()?).stderr(what.log.try_clone()?);
    let user = what.user.cloned();
    let pid_file = what.pid_file.as_raw_fd();
    #[expect(unsafe_code, reason = "a session of its own and a pid written before exec are only possible between fork and exec")]
    // SAFETY: between fork and exec of a process with threads only async-signal-safe calls are allowed. `become_program` makes
    // system calls on values captured here (an open descriptor, and ids in memory that the fork copied); it does not
    // allocate, lock, or touch anything that another thread could have left half done.
    unsafe {
        command.pre_exec(move || become_program(pid_file, user.as_ref()));
    }
    let child = command.spawn()?;
    // Not waited for here: dropping the handle leaves the child alone, `process::ended` reaps it.
    i32::try_from(child.id()).map_err(io::Error::other)
}

/// Runs in the child, after fork and before exec. Async-signal-safe: system calls only.
fn become_program(pid_file: RawFd, user: Option<&UserIds>) -> io::Result<()> {
    #[expect(unsafe_code, reason = "raw system calls: the safe wrappers do not promise to be async-signal-safe")]
    // SAFETY: plain system calls on integers, a buffer on this stack and a slice that lives in the closure; each result is
    // checked where a failure matters.
    unsafe {
        checked(libc::setsid())?;
        libc::umask(0o022);
        for signal in 1..=31 {
            // Ignored signals survive exec (nohup, cron): the program shall begin with none ignored. KILL and STOP refuse.
            libc::signal(signal, libc::SIG_DFL);
        }
        // Everything above standard error closes itself at exec, also what acc was handed by whoever started it.
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        let mut digits = [0_u8; 12];
        let text = decimal(libc::getpid(), &mut digits);
        let written = libc::write(pid_file, text.as_ptr().cast(), text.len());
        if written < 0 {
            return Err(io::Error::last_os_error());
        }
        if let Some(user) = user {
            checked(libc::setgroups(user.groups.len(), user.groups.as_ptr()))?;
            checked(libc::setresgid(user.gid, user.gid, user.gid))?;
            checked(libc::setresuid(user.uid, user.uid, user.uid))?;
        }
    }
    Ok(())
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A positive number in decimal, without allocating.
fn decimal(number: i32, buffer: &mut [u8; 12]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            return &buffer[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_need_no_allocation() {
        for number in [0, 7, 10, 4_194_304, i32::MAX] {
            assert_eq!(decimal(number, &mut [0; 12]), number.to_string().as_bytes());
        }
    }

    #[test]
    fn users_are_looked_up_with_their_groups() {
        assert_eq!(user_ids("no-such-user-of-acc").unwrap(), None);
        let root = user_ids("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0));
    }
}
