//! The steps of a launch: reads the request, becomes the program step by step, and reports why if
//! that fails.
//!
//! Started by supervisord, the launcher gets the path of the request, and writes the pid file.
//! Started by acc itself (`-`), its input is the request, its output the pid file, locked by acc,
//! and its errors a pipe, which acc reads to its end: if that is empty, the process has become its
//! program. The user is changed here and not earlier: while a process shares the memory of acc,
//! whose thread waits for it, no other user may be able to stop it.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::process::{Gid, Signal, Uid, getpid, kill_process};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};

use crate::confine;
use crate::process::{self, WordList, write};
use crate::request::{LaunchRequest, LaunchTextFault};

/// The exit code of a launcher that could not become its program, as in shells.
pub const CANNOT_START: u8 = 126;
/// The same if a file is missing.
const MISSING: u8 = 127;
/// The first descriptor of sd_listen_fds(3).
const HANDED_AT: i32 = 3;

/// What acc passes to a launcher that it started.
struct FromAcc {
    /// Locked until this process has become the program.
    _pid_file: OwnedFd,
    report: OwnedFd,
}

/// Everything that the steps need and that requires memory.
struct Prepared<'a> {
    request: &'a LaunchRequest,
    /// The text of the pid file, and the path where it is written first.
    note: Option<(CString, Vec<u8>)>,
    user: Option<(Uid, Gid, Vec<Gid>)>,
}

/// Why a launch failed.
enum LaunchFault<'a> {
    /// The step, its file if that is not the program, and the reason.
    Step(&'static str, Option<&'a CStr>, Errno),
    Request(LaunchTextFault),
}

impl From<Errno> for LaunchFault<'_> {
    fn from(errno: Errno) -> Self {
        Self::Step("", None, errno)
    }
}

impl fmt::Display for LaunchFault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(fault) => fault.fmt(f),
            Self::Step("", _, errno) => why(*errno, f),
            Self::Step(with, None, errno) => {
                write!(f, "{with}: ")?;
                why(*errno, f)
            }
            Self::Step(with, Some(path), errno) => {
                write!(f, "{with} `{}`: ", path.to_string_lossy())?;
                why(*errno, f)
            }
        }
    }
}

/// Becomes what the file says (`-`: standard input). Returns only if that failed, with the exit
/// code: 126, or 127 if a file is missing. The reason is written to the pipe if acc started the
/// launcher, otherwise to the instance's log, or to standard error while the log is unknown.
#[must_use]
pub fn launch(file: &OsStr) -> u8 {
    process::own_session();
    let acc = match (file == "-").then(take_over).transpose() {
        Ok(acc) => acc,
        Err(errno) => return report(stderr(), file, &errno.into()),
    };
    let acc = acc.as_ref().map(|acc| acc.report.as_fd());
    let early = acc.unwrap_or(stderr());
    let text = match contents(file) {
        Ok(text) => text,
        Err(error) => {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            return report(early, file, &errno.into());
        }
    };
    let request = match LaunchRequest::parse(&text) {
        Ok(request) => request,
        Err(fault) => return report(early, file, &LaunchFault::Request(fault)),
    };
    match open_log(&request.log) {
        Ok(log) => {
            let fault = become_program(&request, &log);
            let program = OsStr::from_bytes(request.program.to_bytes());
            report(acc.unwrap_or(log.as_fd()), program, &fault)
        }
        Err(errno) => {
            let log = OsStr::from_bytes(request.log.to_bytes());
            report(early, log, &errno.into())
        }
    }
}

/// Writes the pid file, and keeps two files open: the pid file, so that it stays locked until this
/// process has become the program, and the pipe to acc.
fn take_over() -> Result<FromAcc> {
    write(stdout(), getpid().to_string().as_bytes())?;
    Ok(FromAcc {
        _pid_file: process::keep(stdout())?,
        report: process::keep(stderr())?,
    })
}

/// Reads the whole file from its beginning.
fn contents(file: &OsStr) -> io::Result<Vec<u8>> {
    let mut file = if file == "-" {
        File::from(process::keep(stdin())?)
    } else {
        File::open(file)?
    };
    file.rewind()?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}

/// Opens a log at its end, or makes it. Does not follow a link.
fn open_log(path: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW;
    let log = rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o640))?;
    process::keep(log)
}

/// Returns only on failure.
fn become_program<'a>(request: &'a LaunchRequest, log: &OwnedFd) -> LaunchFault<'a> {
    let (listen_pid, prepared) = match prepare(request) {
        Ok(prepared) => prepared,
        Err(errno) => return errno.into(),
    };
    let words = |list: &'a [CString]| list.iter().map(CString::as_c_str);
    let handed = [c"LISTEN_FDS=1", c"LISTEN_FDNAMES=acc", &listen_pid];
    let handed = handed.into_iter().filter(|_| request.socket.is_some());
    let program = request.program.as_c_str();
    let argv = WordList::new([program].into_iter().chain(words(&request.args)));
    let envp = WordList::new(words(&request.env).chain(handed));
    if let Err(fault) = prepared.take_steps(log) {
        return fault;
    }
    if request.stop {
        let _ = kill_process(getpid(), Signal::STOP);
    }
    process::execute(program, &argv, &envp).into()
}

/// Makes everything that the steps need, including the variable that tells the program that the
/// socket is meant for its pid.
fn prepare(request: &LaunchRequest) -> Result<(CString, Prepared<'_>)> {
    let c_string = |text: Vec<u8>| CString::new(text).map_err(|_| Errno::INVAL);
    let note = request.pid_file.as_ref().map(|path| {
        let path = PathBuf::from(OsString::from_vec(path.as_bytes().to_vec()));
        let beside = path.with_extension("launched").into_os_string();
        Ok((c_string(beside.into_vec())?, note(request)?))
    });
    let user = request.user.as_ref().map(|user| {
        let groups = user.groups.iter().copied().map(Gid::from_raw).collect();
        (Uid::from_raw(user.uid), Gid::from_raw(user.gid), groups)
    });
    let prepared = Prepared {
        request,
        note: note.transpose()?,
        user,
    };
    let listen_pid = c_string(format!("LISTEN_PID={}", getpid()).into_bytes())?;
    Ok((listen_pid, prepared))
}

impl<'a> Prepared<'a> {
    /// Takes every step except the last one, becoming the program.
    fn take_steps(&self, log: &OwnedFd) -> std::result::Result<(), LaunchFault<'a>> {
        let request = self.request;
        let with = |what, path: &'a CStr| move |errno| LaunchFault::Step(what, Some(path), errno);
        for path in &request.join {
            // First of all: no other process knows this one yet, and nothing has run that could
            // start another.
            join(path).map_err(with("its control group", path))?;
        }
        if let (Some((beside, text)), Some(path)) = (&self.note, &request.pid_file) {
            leave_note(beside, path, text).map_err(with("its pid file", path))?;
        }
        rustix::process::chdir(request.dir.as_c_str()).map_err(with("its folder", &request.dir))?;
        rustix::process::umask(Mode::from_raw_mode(request.umask));
        // Python ignores SIGPIPE, and other programs block signals in their threads. Both are
        // inherited, so reset them.
        process::reset_signals();
        give_files(log)?;
        // Python's and acc's own files close at the exec; those that their parent passed on would
        // not.
        process::close_at_exec(HANDED_AT);
        for (resource, soft, hard) in &request.limits {
            confine::limit(*resource, *soft, *hard)
                .map_err(|errno| LaunchFault::Step("its limits", None, errno))?;
        }
        if let Some(oom_score_adj) = &request.instance {
            confine::settle(oom_score_adj);
            confine::drop_bounding_set();
        }
        if let Some((uid, gid, groups)) = &self.user {
            process::become_user(*uid, *gid, groups)?;
        }
        if request.instance.is_some() {
            confine::drop_rights().map_err(|errno| LaunchFault::Step("its rights", None, errno))?;
        }
        if let Some(path) = &request.socket {
            // As the user that this process has become, so that file and listener belong to it.
            let listening = process::listen(path);
            listening
                .and_then(|socket| process::hand_over(&socket, HANDED_AT))
                .map_err(with("its socket", path))?;
        }
        Ok(())
    }
}

fn join(group: &CStr) -> Result<()> {
    let file = rustix::fs::open(group, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write(file, b"0")
}

/// Gives it an empty input, and the log as output.
fn give_files(log: &OwnedFd) -> Result<()> {
    let null = rustix::fs::open(
        c"/dev/null",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    dup2_stdin(null)?;
    dup2_stdout(log)?;
    dup2_stderr(log)
}

/// Writes the pid file atomically: so the program can be found from before its first instruction,
/// even if supervisord dies before it has reported the pid.
fn leave_note(beside: &CStr, path: &CStr, text: &[u8]) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(beside, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))?;
    write(file, text)?;
    rustix::fs::rename(beside, path)
}

/// The text of the pid file, in the format of acc's `driver::supervisor::pid_file`. It includes the
/// start time in the kernel's ticks, which distinguishes this process from a later one with the
/// same pid (proc(5), field 22).
fn note(request: &LaunchRequest) -> Result<Vec<u8>> {
    let file = rustix::fs::open(
        c"/proc/self/stat",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // In one call, because the kernel generates the text anew for each read.
    let mut stat = [0; 1024];
    let length = rustix::io::read(file, &mut stat)?;
    let stat = String::from_utf8_lossy(stat.get(..length).unwrap_or_default());
    // The second field is the name in parentheses, which may contain anything.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let started = after_name.split_whitespace().nth(19).ok_or(Errno::INVAL)?;
    let head = format!("{} {started} ", getpid());
    let [boot, log] = [&request.boot, &request.log].map(|word| word.to_bytes());
    Ok([head.as_bytes(), boot, b" ", log, b"\n"].concat())
}

fn report(to: impl std::os::fd::AsFd, what: &OsStr, fault: &LaunchFault<'_>) -> u8 {
    let text = format!("acc: could not start `{}`: {fault}\n", what.display());
    // If this fails, only the exit code is left.
    let _ = write(to, text.as_bytes());
    match fault {
        LaunchFault::Step(_, _, Errno::NOENT) => MISSING,
        _ => CANNOT_START,
    }
}

/// In glibc's wording, like the rest of acc, whatever C library this is linked with.
fn why(errno: Errno, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let words = match errno {
        Errno::IO => "Input/output error",
        Errno::NOMEM => "Cannot allocate memory",
        Errno::MFILE => "Too many open files",
        Errno::NFILE => "Too many open files in system",
        Errno::NAMETOOLONG => "File name too long",
        Errno::LOOP => "Too many levels of symbolic links",
        Errno::ADDRINUSE => "Address already in use",
        Errno::DQUOT => "Disk quota exceeded",
        other => return write!(f, "{other}"),
    };
    write!(f, "{words} (os error {})", errno.raw_os_error())
}
