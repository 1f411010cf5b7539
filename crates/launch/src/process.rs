//! Further steps of a launch, each within this process: session, signals, files, user, socket, and
//! the program itself.
//!
//! They decide nothing and need no memory: lists are made beforehand.

use std::ffi::{CStr, c_char};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};
use std::ptr;

use rustix::io::{Errno, Result, fcntl_dupfd_cloexec};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Gid, Uid, getsid, setpgid, setsid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Number of the kernel's signals.
const SIGNAL_MAX: libc::c_long = 64;
/// Bytes of the kernel's signal set.
const SIGNAL_SET: libc::c_long = 8;
/// Room for many simultaneous clients; the kernel limits it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Descriptors from here on have no fixed use.
const OUT_OF_THE_WAY: RawFd = 10;

/// Writes all bytes in one call. A short write is an error.
pub(crate) fn write(file: impl AsFd, bytes: &[u8]) -> Result<()> {
    match rustix::io::write(file, bytes)? {
        written if written == bytes.len() => Ok(()),
        _ => Err(Errno::IO),
    }
}

/// Starts a session of its own, without a terminal. A process that leads a group already
/// (supervisord has made it one) first returns to the group of its session's leader. If that is
/// gone, nothing changes.
pub(crate) fn own_session() {
    if setsid().is_err()
        && let Ok(session) = getsid(None)
        && setpgid(None, Some(session)).is_ok()
    {
        let _ = setsid();
    }
}

/// Resets every signal to its default action and unblocks all. KILL and STOP cannot be changed and
/// return errors. Uses the kernel's own calls, because the C library reserves two signals.
pub(crate) fn reset_signals() {
    // Handler, flags, restorer and mask, or without the restorer: zeros in any order.
    let default = [0_usize; 4];
    let none = 0_u64;
    #[expect(unsafe_code, reason = "no safe call sets a signal's action")]
    // SAFETY: structures of zeros, at least as long as the kernel's, and a set of as many bytes as
    // are said; no old ones are asked for.
    unsafe {
        let nowhere = ptr::null::<u64>();
        for signal in 1..=SIGNAL_MAX {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                nowhere,
                SIGNAL_SET,
            );
        }
        let how = libc::c_long::from(libc::SIG_SETMASK);
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            how,
            &raw const none,
            nowhere,
            SIGNAL_SET,
        );
    }
}

/// Duplicates the file to a number without a fixed use; it is closed when the program starts.
pub(crate) fn keep(file: impl AsFd) -> Result<OwnedFd> {
    fcntl_dupfd_cloexec(file, OUT_OF_THE_WAY)
}

/// Passes the file to the program under this number, which no file of this process uses.
pub(crate) fn hand_over(file: &OwnedFd, number: RawFd) -> Result<()> {
    #[expect(unsafe_code, reason = "whatever has that number is not ours")]
    // SAFETY: numbers. What is replaced was left open by who started this process.
    let done = unsafe { libc::dup2(file.as_raw_fd(), number) };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

/// Makes every file from this number on close when the program starts. A kernel before 5.11 has no
/// call for all at once.
pub(crate) fn close_at_exec(from: RawFd) {
    #[expect(unsafe_code, reason = "files that are not ours")]
    // SAFETY: numbers; one that is not open is an error and nothing else.
    unsafe {
        let (first, last) = (libc::c_long::from(from), libc::c_long::from(u32::MAX));
        let flags = libc::c_long::from(libc::CLOSE_RANGE_CLOEXEC);
        if libc::syscall(libc::SYS_close_range, first, last, flags) < 0 {
            for number in from..4096 {
                libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}

/// Becomes this user permanently. This is the only thread.
pub(crate) fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<()> {
    set_thread_groups(groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

/// Makes a unix socket that listens at this path, on a number without a fixed use; it is closed
/// when the program starts.
pub(crate) fn listen(path: &CStr) -> Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let kind = (
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
    );
    let socket = rustix::net::socket_with(kind.0, kind.1, kind.2, None)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    keep(socket)
}

/// C strings as execve(2) takes them: pointers, and a null pointer after the last.
pub(crate) struct WordList<'a> {
    pointers: Vec<*const c_char>,
    words: PhantomData<&'a CStr>,
}

impl<'a> WordList<'a> {
    pub(crate) fn new(words: impl Iterator<Item = &'a CStr>) -> Self {
        let pointers = words.map(CStr::as_ptr).chain([ptr::null()]).collect();
        Self {
            pointers,
            words: PhantomData,
        }
    }
}

/// Becomes this program; returns only on failure, with the reason.
pub(crate) fn execute(program: &CStr, argv: &WordList<'_>, envp: &WordList<'_>) -> Errno {
    #[expect(unsafe_code, reason = "lists of pointers are what the call takes")]
    // SAFETY: both lists end with a null pointer, and borrow the C strings in them.
    unsafe {
        libc::execve(
            program.as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
        );
    }
    last_error()
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
