//! Starts a process that outlives acc: own session, exact environment, nothing inherited but what is named here.
//!
//! It does not wait for the process and does not remember it: the caller has its pid, and so has the pid file, from before
//! the first instruction of the program, so that a crash of acc loses no process.

use std::ffi::{CString, c_char, c_void};
use std::fs::File;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::{io, iter, ptr};

use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, User, getgrouplist};

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
///
/// As `vfork` does: the child borrows acc's memory until it has become the program, and this thread waits for that. A fork would
/// copy the page tables of a server with many threads, and make it pay for every page that it writes afterwards.
pub fn spawn(what: &Detached<'_>) -> io::Result<i32> {
    let text = |s: &[u8]| CString::new(s).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let program = text(what.program.as_os_str().as_bytes())?;
    let dir = text(what.dir.as_os_str().as_bytes())?;
    let args = what.args.iter().map(|arg| text(arg.as_bytes())).collect::<io::Result<Vec<_>>>()?;
    let env = what.env.iter().map(|(k, v)| text(format!("{k}={v}").as_bytes())).collect::<io::Result<Vec<_>>>()?;
    let argv: Vec<*const c_char> = iter::once(&program).chain(&args).map(|s| s.as_ptr()).chain([ptr::null()]).collect();
    let envp: Vec<*const c_char> = env.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
    let null = File::open("/dev/null")?;
    let mut birth = Birth {
        program: program.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        dir: dir.as_ptr(),
        standard: [null.as_raw_fd(), what.log.as_raw_fd(), what.log.as_raw_fd()],
        pid_file: what.pid_file.as_raw_fd(),
        user: what.user.map(|user| (user.uid, user.gid, user.groups.as_ptr(), user.groups.len())),
        errno: 0,
    };
    // A handler of acc's must not run in the child, which shares its memory; the child puts its own mask right.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let pid = borrow_memory(&mut birth);
    mask.thread_set_mask()?;
    let pid = pid?;
    if birth.errno == 0 {
        return Ok(pid);
    }
    // It never became the program.
    let _ = waitpid(Pid::from_raw(pid), None);
    Err(io::Error::from_raw_os_error(birth.errno))
}

/// Room for the child to run on until it is the program.
const STACK: usize = 64 * 1024;

/// What the child is given: pointers to what its parent keeps alive, and the place for the reason of a failure.
struct Birth {
    program: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    dir: *const c_char,
    standard: [RawFd; 3],
    pid_file: RawFd,
    user: Option<(u32, u32, *const u32, usize)>,
    errno: i32,
}

/// Returns when the child has become the program or has failed to.
fn borrow_memory(birth: &mut Birth) -> io::Result<i32> {
    let mut stack = vec![0_u8; STACK];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    #[expect(unsafe_code, reason = "std can only fork when something is to be done between fork and exec")]
    // SAFETY: with CLONE_VFORK this thread stands still until the child has called execve or _exit, so the stack and everything
    // `birth` points to outlive the child's use of them. The child runs `become_program`, which keeps to system calls.
    let pid = unsafe {
        // It grows downwards, and the C library aligns it.
        libc::clone(be_born, stack.as_mut_ptr().add(STACK).cast(), flags, ptr::from_mut(birth).cast())
    };
    checked(pid)?;
    Ok(pid)
}

extern "C" fn be_born(birth: *mut c_void) -> i32 {
    #[expect(unsafe_code, reason = "the other half of `borrow_memory`")]
    // SAFETY: `borrow_memory` gives a pointer to a `Birth` that nobody else touches until this process has another program
    // or has ended.
    unsafe {
        let birth = &mut *birth.cast::<Birth>();
        let error = become_program(birth).err().and_then(|e| e.raw_os_error());
        birth.errno = error.unwrap_or(libc::EIO);
        libc::_exit(127)
    }
}

/// Runs in the child, which has its own descriptors, signals and folder but acc's memory. System calls only, and raw ones where
/// the C library would tell the other threads of the process: they are acc's. Returns only with an error.
fn become_program(birth: &Birth) -> io::Result<()> {
    #[expect(unsafe_code, reason = "raw system calls: the safe wrappers do not promise to be async-signal-safe")]
    // SAFETY: plain system calls on integers, a buffer on this stack and pointers that the parent keeps valid (see
    // `borrow_memory`); each result is checked where a failure matters.
    unsafe {
        checked(libc::setsid())?;
        libc::umask(0o022);
        checked(libc::chdir(birth.dir))?;
        for signal in 1..=64 {
            // Ignored signals survive exec (nohup, cron): the program shall begin with none ignored. KILL and STOP refuse.
            libc::signal(signal, libc::SIG_DFL);
        }
        for (target, source) in (0..).zip(birth.standard) {
            if source == target {
                checked(libc::fcntl(target, libc::F_SETFD, 0))?;
            } else {
                checked(libc::dup2(source, target))?;
            }
        }
        // Everything above standard error closes itself at exec, also what acc was handed by whoever started it.
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        let mut digits = [0_u8; 12];
        let text = decimal(libc::getpid(), &mut digits);
        if libc::write(birth.pid_file, text.as_ptr().cast(), text.len()) < 0 {
            return Err(io::Error::last_os_error());
        }
        if let Some((uid, gid, groups, count)) = birth.user {
            succeeded(libc::syscall(libc::SYS_setgroups, count, groups))?;
            succeeded(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
            succeeded(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        libc::execve(birth.program, birth.argv, birth.envp);
    }
    Err(io::Error::last_os_error())
}

fn succeeded(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
