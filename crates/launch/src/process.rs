//! The other steps of a launch, each in this process: session, signals, files, user, socket, and the
//! program itself.
//!
//! Each decides nothing, and none needs memory: lists are made beforehand.

use std::ffi::{CStr, c_char};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};
use std::ptr;

use rustix::io::{Errno, Result, fcntl_dupfd_cloexec};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Gid, Uid, getsid, setpgid, setsid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Signals of the kernel.
const SIGNAL_MAX: libc::c_long = 64;
/// Bytes in the kernel's set of signals.
const SIGNAL_SET: libc::c_long = 8;
/// Room for a crowd; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Files from here on have no place of their own.
const OUT_OF_THE_WAY: RawFd = 10;

/// All of it in one call. Fewer bytes written is an error too.
pub(crate) fn write(file: impl AsFd, bytes: &[u8]) -> Result<()> {
    match rustix::io::write(file, bytes)? {
        written if written == bytes.len() => Ok(()),
        _ => Err(Errno::IO),
    }
}

/// Leads a session of its own from now on, without a terminal. A process that leads a group already
/// (supervisord has made it one) first goes back to the group of the session's leader; where that
/// is gone, it stays what it is.
pub(crate) fn own_session() {
    if setsid().is_err()
        && let Ok(session) = getsid(None)
        && setpgid(None, Some(session)).is_ok()
    {
        let _ = setsid();
    }
}

/// Every signal does again what it does by default, and none is blocked. KILL and STOP do in any
/// case, and refuse. By the kernel's own calls: the C library keeps two signals to itself.
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

/// The file under another number too, out of the way of all that has a place of its own; closed
/// when the program begins.
pub(crate) fn keep(file: impl AsFd) -> Result<OwnedFd> {
    fcntl_dupfd_cloexec(file, OUT_OF_THE_WAY)
}

/// The program has the file under this number, which belongs to none of this process's own.
pub(crate) fn hand_over(file: &OwnedFd, number: RawFd) -> Result<()> {
    #[expect(unsafe_code, reason = "whatever has that number is not ours")]
    // SAFETY: numbers. What is replaced was left open by who started this process.
    let done = unsafe { libc::dup2(file.as_raw_fd(), number) };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

/// Every file from this number on is closed when the program begins. A kernel before 5.11 has no
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

/// Becomes this user for good: this thread, which is the only one.
pub(crate) fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<()> {
    set_thread_groups(groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

/// A unix socket that listens at this path, out of the way, and is closed when the program begins.
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

/// Becomes this program; returns only with the reason why not.
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
