//! The launcher as a program: it reads what to become from a file, and becomes it. It asks nobody anything, and keeps nothing.
//!
//! Compiled twice: into acc, and by `build.rs` as a small static program of its own, since a program as big as acc takes longer
//! to begin than many instances. So it knows only the standard library.
//!
//! The file is a sequence of `KEY=VALUE`, each ended by a zero byte: neither arguments nor environments can hold one. A key that
//! is not known is an error: the launcher in place was made together with the server that writes the file.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::{iter, ptr};

/// `O_NOFOLLOW`, the same on all of Linux that Rust runs on but a few; see the C library's `fcntl.h`.
#[cfg(not(any(target_arch = "aarch64", target_arch = "arm", target_arch = "powerpc64")))]
const NO_FOLLOW: i32 = 0o400_000;
#[cfg(any(target_arch = "aarch64", target_arch = "arm", target_arch = "powerpc64"))]
const NO_FOLLOW: i32 = 0o100_000;

/// close_range(2), since Linux 5.9 with this number everywhere; and its flag.
const CLOSE_RANGE: std::ffi::c_long = 436;
const CLOSE_AT_EXEC: u32 = 1 << 2;
/// Sets the flags of a descriptor, see fcntl(2).
const SET_FLAGS: i32 = 2;
/// The first descriptor of sd_listen_fds(3).
const HANDED_AT: i32 = 3;

#[allow(unsafe_code, reason = "what the standard library leaves out; declared as the C library declares them")]
mod c {
    use std::ffi::c_char;

    unsafe extern "C" {
        pub(super) fn signal(number: i32, handler: usize) -> usize;
        pub(super) fn umask(mode: u32) -> u32;
        pub(super) fn dup2(file: i32, number: i32) -> i32;
        pub(super) fn fcntl(file: i32, command: i32, ...) -> i32;
        pub(super) fn syscall(number: std::ffi::c_long, ...) -> std::ffi::c_long;
        pub(super) fn setgroups(count: usize, groups: *const u32) -> i32;
        pub(super) fn setresgid(real: u32, effective: u32, saved: u32) -> i32;
        pub(super) fn setresuid(real: u32, effective: u32, saved: u32) -> i32;
        pub(super) fn execve(program: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> i32;
    }
}

/// What to become, as far as it has been read.
#[derive(Default)]
struct Wanted {
    program: CString,
    args: Vec<CString>,
    /// `NAME=VALUE`
    env: Vec<CString>,
    dir: PathBuf,
    log: PathBuf,
    /// User, group, all groups.
    user: Option<(u32, u32, Vec<u32>)>,
    /// To listen there, and to hand that over.
    socket: Option<PathBuf>,
    /// The pid file, in the form of `driver::supervisor::record`.
    pid: PathBuf,
    /// Which boot of this host it is.
    boot: String,
}

/// Becomes what the file says, and returns only with the exit code of a launcher that could not: 126, or 127 when something is
/// missing, as with shells. The reason is in the instance's log, or on standard error while that is not known.
#[must_use]
pub fn launch(file: &Path) -> u8 {
    let wanted = match fs::read(file).and_then(|text| read(&text)) {
        Ok(wanted) => wanted,
        Err(e) => return told(&mut io::stderr(), file, &e),
    };
    let mut log = match OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(NO_FOLLOW).open(&wanted.log) {
        Ok(log) => log,
        Err(e) => return told(&mut io::stderr(), &wanted.log, &e),
    };
    let why = turn_into(&wanted, &log).err().unwrap_or_else(|| io::ErrorKind::Other.into());
    told(&mut log, Path::new(OsStr::from_bytes(wanted.program.as_bytes())), &why)
}

fn read(text: &[u8]) -> io::Result<Wanted> {
    // Only the key: a value may be a secret.
    let wrong = |line: &[u8]| {
        let key = line.split(|byte| *byte == b'=').next().unwrap_or_default();
        io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is not understood", key.escape_ascii()))
    };
    let mut wanted = Wanted::default();
    let body = text.strip_suffix(&[0]).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is not complete"))?;
    for line in body.split(|byte| *byte == 0) {
        let (key, value) = halves(line).ok_or_else(|| wrong(line))?;
        let (text, path) = (|| CString::new(value), || PathBuf::from(OsStr::from_bytes(value)));
        match key {
            b"program" => wanted.program = text()?,
            b"arg" => wanted.args.push(text()?),
            b"env" => wanted.env.push(text()?),
            b"dir" => wanted.dir = path(),
            b"log" => wanted.log = path(),
            b"user" => wanted.user = Some(ids(value).ok_or_else(|| wrong(line))?),
            b"socket" => wanted.socket = Some(path()),
            b"pid" => wanted.pid = path(),
            b"boot" => wanted.boot = String::from_utf8_lossy(value).into_owned(),
            _ => return Err(wrong(line)),
        }
    }
    if wanted.socket.is_some() {
        // The program will be this process.
        let pid = format!("LISTEN_PID={}", std::process::id());
        wanted.env.extend([c"LISTEN_FDS=1".into(), c"LISTEN_FDNAMES=acc".into(), CString::new(pid)?]);
    }
    Ok(wanted)
}

/// The parts before and after the first `=`.
fn halves(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == b'=')?;
    Some((&line[..at], &line[at + 1..]))
}

/// `UID GID GROUP…`
fn ids(value: &[u8]) -> Option<(u32, u32, Vec<u32>)> {
    let mut numbers = std::str::from_utf8(value).ok()?.split(' ').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.collect::<Result<_, _>>().ok()?))
}

/// Returns only with an error.
fn turn_into(wanted: &Wanted, log: &File) -> io::Result<()> {
    let null = File::open("/dev/null")?;
    let pointers = |texts: &[CString]| texts.iter().map(|t| t.as_ptr()).chain([ptr::null()]).collect::<Vec<*const c_char>>();
    let argv: Vec<_> = iter::once(CStr::as_ptr(&wanted.program)).chain(pointers(&wanted.args)).collect();
    let envp = pointers(&wanted.env);
    let started = started().map_err(|e| io::Error::new(e.kind(), format!("`/proc/self/stat`: {e}")))?;
    note(wanted, &started).map_err(|e| io::Error::new(e.kind(), format!("`{}`: {e}", wanted.pid.display())))?;
    std::env::set_current_dir(&wanted.dir)?;
    #[allow(unsafe_code, reason = "system calls that the standard library leaves out")]
    // SAFETY: integers, and pointers to what lives until the end of this function, lists with the length or the end that the
    // call wants; this process has one thread and no handlers.
    unsafe {
        c::umask(0o022);
        for number in 1..=64 {
            // Python ignores SIGPIPE, and what is ignored stays so: the program shall begin with none ignored.
            c::signal(number, 0);
        }
        for (number, file) in [(0, &null), (1, log), (2, log)] {
            checked(c::dup2(file.as_raw_fd(), number))?;
        }
        // Python's own files close themselves; what supervisord was handed by whoever started it would not.
        c::syscall(CLOSE_RANGE, 3_u32, u32::MAX, CLOSE_AT_EXEC);
        if let Some((uid, gid, groups)) = &wanted.user {
            checked(c::setgroups(groups.len(), groups.as_ptr()))?;
            checked(c::setresgid(*gid, *gid, *gid))?;
            checked(c::setresuid(*uid, *uid, *uid))?;
        }
        if let Some(path) = &wanted.socket {
            hand_over(path).map_err(|e| io::Error::new(e.kind(), format!("its socket `{}`: {e}", path.display())))?;
        }
        checked(c::execve(wanted.program.as_ptr(), argv.as_ptr(), envp.as_ptr()))
    }
}

/// Leaves the pid file, whole or not at all: from before the first instruction of the program it can be found, also when
/// supervisord dies before it has said which process it is.
fn note(wanted: &Wanted, started: &str) -> io::Result<()> {
    let beside = wanted.pid.with_extension("launched");
    fs::write(&beside, format!("{} {started} {} {}\n", std::process::id(), wanted.boot, wanted.log.display()))?;
    fs::rename(&beside, &wanted.pid)
}

/// When this process was started, in the kernel's ticks: what tells it from a later one of the same number (proc(5), field 22).
fn started() -> io::Result<String> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let field = after_name.split_ascii_whitespace().nth(19);
    field.map(str::to_owned).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Listens there, as the user that this process has become, so that file and listener are that user's.
fn hand_over(path: &Path) -> io::Result<()> {
    // Never closed: it is the program's.
    let socket = UnixListener::bind(path)?.into_raw_fd();
    #[allow(unsafe_code, reason = "as in `turn_into`")]
    // SAFETY: integers alone.
    unsafe {
        // Either way it is one that exec leaves open.
        checked(if socket == HANDED_AT { c::fcntl(socket, SET_FLAGS, 0) } else { c::dup2(socket, HANDED_AT) })
    }
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn told(log: &mut impl Write, what: &Path, why: &io::Error) -> u8 {
    let _ = writeln!(log, "acc: could not start `{}`: {why}", what.display());
    if why.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
}
