//! Starts a process that outlives acc: own session, exact environment, nothing inherited but what is named here.
//!
//! It does not wait for the process and does not remember it: the caller has its pid, and so has the pid file, from before
//! the first instruction of the program, so that a crash of acc loses no process.

use std::ffi::{CString, c_char, c_void};
use std::fs::File;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::{io, iter, ptr};

use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, User, getgrouplist};
use rustix::io::fcntl_dupfd_cloexec;

use super::process;
use crate::domain::instance::Process;

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
    /// A unix socket to be made for the program: it listens there, as descriptor 3, and the program is told as
    /// `sd_listen_fds(3)` says. Nothing may be at this path.
    pub socket: Option<&'a Path>,
}

/// Starts it and says which process it is. A failure to execute the program is an error here, not an exit of the child.
///
/// As `vfork` does: the child borrows acc's memory until it has become the program, and this thread waits for that. A fork would
/// copy the page tables of a server with many threads, and make it pay for every page that it writes afterwards.
pub fn spawn(what: &Detached<'_>) -> io::Result<Process> {
    let text = |s: &[u8]| CString::new(s).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let program = text(what.program.as_os_str().as_bytes())?;
    let dir = text(what.dir.as_os_str().as_bytes())?;
    let args = what.args.iter().map(|arg| text(arg.as_bytes())).collect::<io::Result<Vec<_>>>()?;
    let env = what.env.iter().map(|(k, v)| text(format!("{k}={v}").as_bytes())).collect::<io::Result<Vec<_>>>()?;
    let argv: Vec<*const c_char> = iter::once(&program).chain(&args).map(|s| s.as_ptr()).chain([ptr::null()]).collect();
    let mut handed = what.socket.map(Handed::at).transpose()?;
    let told = handed.iter_mut().flat_map(Handed::variables);
    let envp: Vec<*const c_char> = env.iter().map(|s| s.as_ptr()).chain(told).chain([ptr::null()]).collect();
    let null = nothing()?;
    // Not where the socket goes: as long as it is open, the file is locked.
    let elsewhere = handed.is_some().then(|| fcntl_dupfd_cloexec(what.pid_file, HANDED_AT + 1)).transpose()?;
    let mut birth = Birth {
        program: program.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        dir: dir.as_ptr(),
        standard: [null.as_raw_fd(), what.log.as_raw_fd(), what.log.as_raw_fd()],
        pid_file: elsewhere.as_ref().map_or(what.pid_file.as_raw_fd(), |file| file.as_raw_fd()),
        user: what.user.map(|user| (user.uid, user.gid, user.groups.as_ptr(), user.groups.len())),
        ignored: ignored(),
        socket: handed.as_mut(),
        at_socket: false,
        born_ns: 0,
        errno: 0,
    };
    let before_ns = process::since_boot_ns();
    // A handler of acc's must not run in the child, which shares its memory; the child puts its own mask right.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let pid = borrow_memory(&mut birth);
    mask.thread_set_mask()?;
    let pid = pid?;
    if birth.errno == 0 {
        return Ok(Process { pid, start_time: process::start_time_of_child(pid, before_ns, birth.born_ns) });
    }
    // It never became the program.
    let _ = waitpid(Pid::from_raw(pid), None);
    let error = io::Error::from_raw_os_error(birth.errno);
    match what.socket.filter(|_| birth.at_socket) {
        Some(path) => Err(io::Error::new(error.kind(), format!("its socket `{}`: {error}", path.display()))),
        None => Err(error),
    }
}

/// What every process reads as its input. Opened once: each start needs it.
fn nothing() -> io::Result<&'static File> {
    static NOTHING: OnceLock<File> = OnceLock::new();
    match NOTHING.get() {
        Some(file) => Ok(file),
        None => {
            let file = File::open("/dev/null")?;
            Ok(NOTHING.get_or_init(|| file))
        }
    }
}

/// The first descriptor of `sd_listen_fds(3)`.
const HANDED_AT: RawFd = 3;
/// Room for a crowd, see `listen`; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// What the child needs to make a socket for its program: all of it laid out beforehand.
struct Handed {
    address: libc::sockaddr_un,
    /// `LISTEN_PID=` and zeros, in whose place the child puts its pid.
    pid: [u8; Self::PID.len() + 12],
}

impl Handed {
    const PID: &[u8] = b"LISTEN_PID=";

    fn at(path: &Path) -> io::Result<Self> {
        #[expect(unsafe_code, reason = "the structure is the kernel's")]
        // SAFETY: `sockaddr_un` is plain numbers, for which zero is a value.
        let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        #[expect(clippy::cast_possible_truncation, reason = "the constant is 1")]
        let family = libc::AF_UNIX as libc::sa_family_t;
        address.sun_family = family;
        let bytes = path.as_os_str().as_bytes();
        // One is for the closing zero.
        if bytes.is_empty() || bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("no socket can be at `{}`", path.display())));
        }
        for (to, from) in address.sun_path.iter_mut().zip(bytes) {
            *to = from.cast_signed();
        }
        let mut pid = [0; Self::PID.len() + 12];
        pid[..Self::PID.len()].copy_from_slice(Self::PID);
        Ok(Self { address, pid })
    }

    /// The variables of the protocol; that of the pid is completed by the child.
    fn variables(&mut self) -> [*const c_char; 3] {
        [c"LISTEN_FDS=1".as_ptr(), c"LISTEN_FDNAMES=acc".as_ptr(), self.pid.as_ptr().cast()]
    }

    /// In the child, as the program's user: file and listener are then that user's, as if the program had made them, and acc
    /// itself never has the socket. System calls only.
    fn make(&mut self) -> io::Result<()> {
        let mut digits = [0_u8; 12];
        #[expect(unsafe_code, reason = "raw system calls, as in `become_program`")]
        // SAFETY: plain system calls on integers and on `self`, which outlives them; each result is checked.
        unsafe {
            let text = decimal(libc::getpid(), &mut digits);
            for (to, from) in self.pid[Self::PID.len()..].iter_mut().zip(text) {
                *to = *from;
            }
            let socket = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            checked(socket)?;
            checked(libc::bind(socket, (&raw const self.address).cast(), size_of::<libc::sockaddr_un>() as libc::socklen_t))?;
            checked(libc::listen(socket, BACKLOG))?;
            if socket == HANDED_AT { checked(libc::fcntl(socket, libc::F_SETFD, 0)) } else { checked(libc::dup2(socket, HANDED_AT)) }
        }
    }
}

/// The signals that acc ignores. They survive exec (nohup, cron): the program shall begin with none ignored. acc itself ignores
/// none later than at its start.
fn ignored() -> &'static [i32] {
    static IGNORED: OnceLock<Vec<i32>> = OnceLock::new();
    IGNORED.get_or_init(|| {
        let is_ignored = |signal: &i32| {
            #[expect(unsafe_code, reason = "only the kernel knows")]
            // SAFETY: `sigaction` writes the current action to a structure on this stack, and changes nothing; one that could
            // not be asked for stays zero, which is the default.
            let action = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                libc::sigaction(*signal, ptr::null(), &raw mut action);
                action
            };
            action.sa_sigaction == libc::SIG_IGN
        };
        (1..=64).filter(is_ignored).collect()
    })
}

/// Room for the child to run on until it is the program.
const STACK: usize = 16 * 1024;

/// What the child is given: pointers to what its parent keeps alive, and the place for the reason of a failure.
struct Birth<'a> {
    program: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    dir: *const c_char,
    standard: [RawFd; 3],
    pid_file: RawFd,
    user: Option<(u32, u32, *const u32, usize)>,
    ignored: &'a [i32],
    socket: Option<&'a mut Handed>,
    /// It failed at the socket.
    at_socket: bool,
    /// When it was there, see [`process::since_boot_ns`].
    born_ns: u64,
    errno: i32,
}

/// Returns when the child has become the program or has failed to.
fn borrow_memory(birth: &mut Birth<'_>) -> io::Result<i32> {
    let mut stack = [0_u8; STACK];
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
        let birth = &mut *birth.cast::<Birth<'_>>();
        birth.born_ns = process::since_boot_ns();
        let error = become_program(birth).err().and_then(|e| e.raw_os_error());
        birth.errno = error.unwrap_or(libc::EIO);
        libc::_exit(127)
    }
}

/// Runs in the child, which has its own descriptors, signals and folder but acc's memory. System calls only, and raw ones where
/// the C library would tell the other threads of the process: they are acc's. Returns only with an error.
fn become_program(birth: &mut Birth<'_>) -> io::Result<()> {
    #[expect(unsafe_code, reason = "raw system calls: the safe wrappers do not promise to be async-signal-safe")]
    // SAFETY: plain system calls on integers, a buffer on this stack and pointers that the parent keeps valid (see
    // `borrow_memory`); each result is checked where a failure matters.
    unsafe {
        checked(libc::setsid())?;
        // The group of a socket it makes is that of the edge, which must be able to connect.
        libc::umask(if birth.user.is_some() { 0o007 } else { 0o022 });
        checked(libc::chdir(birth.dir))?;
        for signal in birth.ignored {
            libc::signal(*signal, libc::SIG_DFL);
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
        if let Some(socket) = &mut birth.socket {
            birth.at_socket = true;
            socket.make()?;
            birth.at_socket = false;
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
