//! The system calls of the launcher, made directly: on the way of every wake the start-up of a C
//! library would cost more than all that the launcher does (it asks the processor what it can,
//! which on a virtual machine is a trip to the host each time).
//!
//! Each function is one call of the manual's section 2 and decides nothing; the numbers are those
//! of the kernel's tables.

#![allow(
    unsafe_code,
    reason = "there is no safe way to make a system call without a library"
)]

use core::arch::asm;
use core::ffi::{CStr, c_char};
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};

/// Why a call failed: a number of errno(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

/// An open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File(pub usize);

pub type Result<T> = core::result::Result<T, Errno>;

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
compile_error!("the launcher knows the system calls of x86-64, 64-bit ARM and 64-bit RISC-V only");

#[cfg(target_arch = "x86_64")]
pub mod number {
    pub const READ: usize = 0;
    pub const LSEEK: usize = 8;
    pub const MMAP: usize = 9;
    pub const MUNMAP: usize = 11;
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const WRITEV: usize = 20;
    pub const GETPID: usize = 39;
    pub const SOCKET: usize = 41;
    pub const BIND: usize = 49;
    pub const LISTEN: usize = 50;
    pub const EXECVE: usize = 59;
    pub const KILL: usize = 62;
    pub const FCNTL: usize = 72;
    pub const CHDIR: usize = 80;
    pub const UMASK: usize = 95;
    pub const SETPGID: usize = 109;
    pub const SETSID: usize = 112;
    pub const SETGROUPS: usize = 116;
    pub const SETRESUID: usize = 117;
    pub const SETRESGID: usize = 119;
    pub const GETSID: usize = 124;
    pub const CAPSET: usize = 126;
    pub const SETPRIORITY: usize = 141;
    pub const PRCTL: usize = 157;
    pub const OPENAT: usize = 257;
    pub const DUP3: usize = 292;
    pub const PRLIMIT64: usize = 302;
    pub const RENAMEAT2: usize = 316;
    pub const CLOSE: usize = 3;
}

/// The table that newer architectures share (`asm-generic/unistd.h`).
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
pub mod number {
    pub const DUP3: usize = 24;
    pub const FCNTL: usize = 25;
    pub const CHDIR: usize = 49;
    pub const OPENAT: usize = 56;
    pub const CLOSE: usize = 57;
    pub const LSEEK: usize = 62;
    pub const READ: usize = 63;
    pub const WRITEV: usize = 66;
    pub const CAPSET: usize = 91;
    pub const KILL: usize = 129;
    pub const RT_SIGACTION: usize = 134;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const SETPRIORITY: usize = 140;
    pub const SETRESUID: usize = 147;
    pub const SETRESGID: usize = 149;
    pub const SETPGID: usize = 154;
    pub const GETSID: usize = 156;
    pub const SETSID: usize = 157;
    pub const SETGROUPS: usize = 159;
    pub const UMASK: usize = 166;
    pub const PRCTL: usize = 167;
    pub const GETPID: usize = 172;
    pub const SOCKET: usize = 198;
    pub const BIND: usize = 200;
    pub const LISTEN: usize = 201;
    pub const MUNMAP: usize = 215;
    pub const EXECVE: usize = 221;
    pub const MMAP: usize = 222;
    pub const PRLIMIT64: usize = 261;
    pub const RENAMEAT2: usize = 276;
}

/// The same everywhere: calls since Linux 5.1 have one number.
const CLOSE_RANGE: usize = 436;

const AT_FDCWD: usize = (-100_isize).cast_unsigned();
const O_WRONLY: usize = 0o1;
const O_CREAT: usize = 0o100;
const O_TRUNC: usize = 0o1000;
const O_APPEND: usize = 0o2000;
const O_CLOEXEC: usize = 0o2_000_000;
#[cfg(not(target_arch = "aarch64"))]
const O_NOFOLLOW: usize = 0o400_000;
#[cfg(target_arch = "aarch64")]
const O_NOFOLLOW: usize = 0o100_000;
const SEEK_SET: usize = 0;
const SEEK_END: usize = 2;
const PROT_READ_WRITE: usize = 0b11;
const MAP_PRIVATE: usize = 0x2;
const MAP_ANONYMOUS: usize = 0x20;
const F_SETFD: usize = 2;
const F_DUPFD_CLOEXEC: usize = 1030;
const CLOEXEC: usize = 1;
const CLOSE_RANGE_CLOEXEC: usize = 1 << 2;
const AF_UNIX: u16 = 1;
const SOCK_STREAM: usize = 1;
const SOCK_CLOEXEC: usize = 0o2_000_000;
const SIGNAL_MAX: usize = 64;
const SIGSTOP: usize = 19;
const SIGNAL_SET: usize = 8;
const SIG_SETMASK: usize = 2;
const EIO: i32 = 5;
const EINVAL: i32 = 22;
const ENAMETOOLONG: i32 = 36;
/// Room for a crowd; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: usize = 4096;

/// A call as the kernel takes it: a number and up to six words.
///
/// # Safety
/// The words must be what the call with this number takes, and pointers among them good for what it
/// does with them.
pub unsafe fn call(number: usize, words: [usize; 6]) -> Result<usize> {
    let [a, b, c, d, e, f] = words;
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the convention of syscall(2) for this architecture; the caller answers for the words.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
             options(nostack));
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: as above.
    unsafe {
        asm!("ecall", in("a7") number, inlateout("a0") a => result, in("a1") b, in("a2") c, in("a3") d, in("a4") e, in("a5") f,
             options(nostack));
    }
    // Errors are the numbers from -4095 to -1.
    match i32::try_from(result) {
        Ok(error @ -4095..=-1) => Err(Errno(-error)),
        _ => Ok(result.cast_unsigned()),
    }
}

fn open(path: &CStr, flags: usize, mode: usize) -> Result<File> {
    // SAFETY: a path that ends with a zero byte, and numbers.
    unsafe {
        call(
            number::OPENAT,
            [AT_FDCWD, path.as_ptr() as usize, flags, mode, 0, 0],
        )
    }
    .map(File)
}

/// Opens a file for reading.
pub fn open_to_read(path: &CStr) -> Result<File> {
    open(path, 0, 0)
}

/// Opens a file that is there for writing; it is closed when the program begins.
pub fn open_to_write(path: &CStr) -> Result<File> {
    open(path, O_WRONLY | O_CLOEXEC, 0)
}

/// Opens a log at its end, making it when it is not there. A link is not followed.
pub fn open_log(path: &CStr) -> Result<File> {
    open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0o640)
}

/// Makes a file that only its owner may read, or empties it.
pub fn make(path: &CStr) -> Result<File> {
    open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600)
}

pub fn close(file: File) {
    // SAFETY: a number; a file that is not open is an error and nothing else.
    let _ = unsafe { call(number::CLOSE, [file.0, 0, 0, 0, 0, 0]) };
}

/// As many bytes as there are, up to the length of the buffer.
pub fn read(file: File, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes within the buffer.
    unsafe {
        call(
            number::READ,
            [file.0, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0],
        )
    }
}

/// All parts one after the other. Fewer than all of them written is an error too (EIO).
pub fn write(file: File, parts: &[&[u8]]) -> Result<()> {
    let mut vector = [const {
        IoVec {
            at: ptr::null(),
            length: 0,
        }
    }; 16];
    let used = vector.get_mut(..parts.len()).ok_or(Errno(EINVAL))?;
    for (to, part) in used.iter_mut().zip(parts) {
        *to = IoVec {
            at: part.as_ptr(),
            length: part.len(),
        };
    }
    // SAFETY: each pair is the address and the length of a slice that outlives the call.
    let written = unsafe {
        call(
            number::WRITEV,
            [file.0, used.as_ptr() as usize, parts.len(), 0, 0, 0],
        )
    }?;
    if written == parts.iter().map(|part| part.len()).sum::<usize>() {
        Ok(())
    } else {
        Err(Errno(EIO))
    }
}

/// `struct iovec`
#[repr(C)]
struct IoVec {
    at: *const u8,
    length: usize,
}

/// The whole file from its beginning, copied into memory.
pub fn contents(file: File) -> Result<Allocation<u8>> {
    // SAFETY: numbers.
    let length = unsafe { call(number::LSEEK, [file.0, 0, SEEK_END, 0, 0, 0]) }?;
    // SAFETY: numbers.
    unsafe { call(number::LSEEK, [file.0, 0, SEEK_SET, 0, 0, 0]) }?;
    let mut all = Allocation::of(length)?;
    let mut had = 0;
    while let Some(rest) = all.get_mut(had..).filter(|rest| !rest.is_empty()) {
        match read(file, rest)? {
            // It was cut meanwhile.
            0 => return Err(Errno(EIO)),
            more => had += more,
        }
    }
    Ok(all)
}

/// Memory for values of its own, given back when it is dropped.
pub struct Allocation<T> {
    at: NonNull<T>,
    count: usize,
}

impl<T: Copy + Zero> Allocation<T> {
    /// For so many values, all zero bytes.
    pub fn of(count: usize) -> Result<Self> {
        let length = count
            .max(1)
            .checked_mul(size_of::<T>())
            .ok_or(Errno(EINVAL))?;
        // SAFETY: a new mapping at a place of the kernel's choice, of this process alone.
        let at = unsafe {
            call(
                number::MMAP,
                [
                    0,
                    length,
                    PROT_READ_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS,
                    usize::MAX,
                    0,
                ],
            )
        }?;
        Ok(Self {
            at: NonNull::new(at as *mut T).ok_or(Errno(EINVAL))?,
            count,
        })
    }
}

impl<T> Deref for Allocation<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: so many values are mapped there, to be read and written, by nobody else and until
        // this is dropped; the kernel gives whole pages of zeros, and `Zero` says that these are
        // values of the type.
        unsafe { core::slice::from_raw_parts(self.at.as_ptr(), self.count) }
    }
}

impl<T> DerefMut for Allocation<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts_mut(self.at.as_ptr(), self.count) }
    }
}

impl<T> Drop for Allocation<T> {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which nothing borrows any more.
        let _ = unsafe {
            call(
                number::MUNMAP,
                [
                    self.at.as_ptr() as usize,
                    self.count.max(1) * size_of::<T>(),
                    0,
                    0,
                    0,
                    0,
                ],
            )
        };
    }
}

/// Types of which zero bytes are a value.
pub trait Zero {}
impl Zero for u8 {}
impl Zero for u32 {}
impl Zero for *const c_char {}

pub fn rename(from: &CStr, to: &CStr) -> Result<()> {
    // SAFETY: paths that end with a zero byte.
    unsafe {
        call(
            number::RENAMEAT2,
            [
                AT_FDCWD,
                from.as_ptr() as usize,
                AT_FDCWD,
                to.as_ptr() as usize,
                0,
                0,
            ],
        )
    }
    .map(drop)
}

pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: a path that ends with a zero byte.
    unsafe { call(number::CHDIR, [path.as_ptr() as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

pub fn umask(mask: usize) {
    // SAFETY: a number.
    let _ = unsafe { call(number::UMASK, [mask, 0, 0, 0, 0, 0]) };
}

pub fn getpid() -> usize {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { call(number::GETPID, [0; 6]) }.unwrap_or(0)
}

/// Leads a session of its own from now on, without a terminal. A process that leads a group already
/// (supervisord has made it one) first goes back to the group of the session's leader; where that
/// is gone, it stays what it is.
pub fn own_session() {
    // SAFETY: numbers.
    unsafe {
        if call(number::SETSID, [0; 6]).is_err()
            && let Ok(session) = call(number::GETSID, [0; 6])
            && call(number::SETPGID, [0, session, 0, 0, 0, 0]).is_ok()
        {
            let _ = call(number::SETSID, [0; 6]);
        }
    }
}

/// Every signal does again what it does by default, and none is blocked. KILL and STOP do in any
/// case, and refuse.
pub fn reset_signals() {
    // Handler, flags, restorer and mask, or without the restorer: zeros in any order.
    let default = [0_usize; 4];
    for signal in 1..=SIGNAL_MAX {
        // SAFETY: a structure of zeros, at least as long as the kernel's; no old one is asked for.
        let _ = unsafe {
            call(
                number::RT_SIGACTION,
                [signal, default.as_ptr() as usize, 0, SIGNAL_SET, 0, 0],
            )
        };
    }
    let none = 0_u64;
    // SAFETY: a set of as many bytes as are said; no old one is asked for.
    let _ = unsafe {
        call(
            number::RT_SIGPROCMASK,
            [
                SIG_SETMASK,
                ptr::from_ref(&none) as usize,
                0,
                SIGNAL_SET,
                0,
                0,
            ],
        )
    };
}

/// Stops this process, as a process that may signal it could.
pub fn stop() {
    // SAFETY: numbers.
    let _ = unsafe { call(number::KILL, [getpid(), SIGSTOP, 0, 0, 0, 0]) };
}

/// The file under another number too, which stays open.
pub fn give(file: File, number: usize) -> Result<()> {
    // SAFETY: numbers.
    let done = unsafe {
        if file.0 == number {
            call(number::FCNTL, [number, F_SETFD, 0, 0, 0, 0])
        } else {
            call(number::DUP3, [file.0, number, 0, 0, 0, 0])
        }
    };
    done.map(drop)
}

/// The file under another number too, out of the way of all that has a place of its own; closed
/// when the program begins.
pub fn keep(file: File) -> Result<File> {
    // SAFETY: numbers.
    unsafe { call(number::FCNTL, [file.0, F_DUPFD_CLOEXEC, 10, 0, 0, 0]) }.map(File)
}

/// Every file from this number on is closed when the program begins. A kernel before 5.11 has no
/// call for all at once.
pub fn close_at_exec(from: usize) {
    // SAFETY: numbers; one that is not open is an error and nothing else.
    unsafe {
        if call(
            CLOSE_RANGE,
            [from, u32::MAX as usize, CLOSE_RANGE_CLOEXEC, 0, 0, 0],
        )
        .is_err()
        {
            for number in from..4096 {
                let _ = call(number::FCNTL, [number, F_SETFD, CLOEXEC, 0, 0, 0]);
            }
        }
    }
}

/// Becomes this user for good.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<()> {
    let (uid, gid) = (uid as usize, gid as usize);
    // SAFETY: a list with its length, and numbers.
    unsafe {
        call(
            number::SETGROUPS,
            [groups.len(), groups.as_ptr() as usize, 0, 0, 0, 0],
        )?;
        call(number::SETRESGID, [gid, gid, gid, 0, 0, 0])?;
        call(number::SETRESUID, [uid, uid, uid, 0, 0, 0])?;
    }
    Ok(())
}

/// `struct sockaddr_un`
#[repr(C)]
struct UnixAddress {
    family: u16,
    path: [u8; 108],
}

/// A unix socket that listens at this path, and is closed when the program begins.
pub fn listen(path: &CStr) -> Result<File> {
    let mut address = UnixAddress {
        family: AF_UNIX,
        path: [0; 108],
    };
    let bytes = path.to_bytes();
    // One is for the closing zero.
    if bytes.len() >= address.path.len() {
        return Err(Errno(ENAMETOOLONG));
    }
    for (to, from) in address.path.iter_mut().zip(bytes) {
        *to = *from;
    }
    // SAFETY: numbers, and a structure of the kernel's form with its length.
    unsafe {
        let socket = call(
            number::SOCKET,
            [usize::from(AF_UNIX), SOCK_STREAM | SOCK_CLOEXEC, 0, 0, 0, 0],
        )?;
        call(
            number::BIND,
            [
                socket,
                ptr::from_ref(&address) as usize,
                size_of::<UnixAddress>(),
                0,
                0,
                0,
            ],
        )?;
        call(number::LISTEN, [socket, BACKLOG, 0, 0, 0, 0])?;
        Ok(File(socket))
    }
}

/// Becomes this program; returns only with the reason why not. Both lists must end with a null
/// pointer, and what is in them with a zero byte.
///
/// # Safety
/// The pointers must be good.
pub unsafe fn execve(program: &CStr, argv: &[*const c_char], envp: &[*const c_char]) -> Errno {
    let ended = |list: &[*const c_char]| list.last().is_some_and(|last| last.is_null());
    if !ended(argv) || !ended(envp) {
        return Errno(EINVAL);
    }
    // SAFETY: lists that end with a null pointer; the caller answers for what is in them.
    let done = unsafe {
        call(
            number::EXECVE,
            [
                program.as_ptr() as usize,
                argv.as_ptr() as usize,
                envp.as_ptr() as usize,
                0,
                0,
                0,
            ],
        )
    };
    done.err().unwrap_or(Errno(EINVAL))
}
