//! The launcher as a program: it reads what to become from a file, and becomes it. It asks no other
//! process, and keeps nothing.
//!
//! Compiled twice: into acc, and by `build.rs` as a small static program of its own, since a
//! program as big as acc takes longer to begin than many instances. So it knows only the language's
//! core and its own `sys` and `confine`.
//!
//! Started by supervisord, it is given the path of the file, and notes in the pid file which
//! process it is. Started by acc itself (`-`), its input is the file, its output the pid file,
//! locked by acc, and its errors a pipe, which acc reads to its end: when nothing came, the process
//! has become its program. The user is changed here and not before: while a process shares the
//! memory of acc, whose thread waits for it, no other user may be able to stop it.
//!
//! The file is a sequence of `KEY=VALUE`, each ended by a zero byte: neither arguments nor
//! environments can hold one, and every value in it is a C string as it stands. A key that is not
//! known is an error: the launcher in place was made together with the server that writes the file.

use core::ffi::{CStr, c_char};
use core::str::FromStr;

use super::confine::{self, Limit};
use super::sys::{self, Allocation, Errno, File};

/// The first descriptor of sd_listen_fds(3).
const HANDED_AT: usize = 3;
const STANDARD_INPUT: File = File(0);
const STANDARD_OUTPUT: File = File(1);
const STANDARD_ERROR: File = File(2);
/// No such file or directory.
const ENOENT: Errno = Errno(2);
const EINVAL: Errno = Errno(22);

/// A list of C strings as execve(2) takes it: in room that was made for all that can come, and zero
/// after the last.
pub(super) struct List {
    words: Allocation<*const c_char>,
    used: usize,
}

impl List {
    /// Room for `most`, and the null pointer after them.
    fn of(most: usize) -> Result<Self, LaunchFault<'static>> {
        Ok(Self {
            words: Allocation::of(most + 1)?,
            used: 0,
        })
    }

    fn add(&mut self, word: &CStr) -> Result<(), Errno> {
        if self.used + 1 >= self.words.len() {
            return Err(EINVAL);
        }
        if let Some(place) = self.words.get_mut(self.used) {
            *place = word.as_ptr();
            self.used += 1;
        }
        Ok(())
    }

    /// With the null pointer.
    pub(super) fn ended(&self) -> &[*const c_char] {
        self.words.get(..=self.used).unwrap_or_default()
    }
}

/// Resources with their limits, as many as can be set.
pub(super) type LimitList = [Option<(usize, Limit)>; 16];

/// What to become, as far as it has been read.
pub(super) struct LaunchRequest<'a> {
    pub(super) program: &'a CStr,
    pub(super) argv: List,
    /// `NAME=VALUE`
    pub(super) envp: List,
    pub(super) dir: &'a CStr,
    pub(super) log: &'a CStr,
    /// User, group, all groups.
    pub(super) user: Option<(u32, u32, Allocation<u32>)>,
    /// Files of control groups that are joined by a `0`.
    pub(super) join: [Option<&'a CStr>; 2],
    /// To listen there, and to hand that over.
    pub(super) socket: Option<&'a CStr>,
    pub(super) umask: usize,
    pub(super) limits: LimitList,
    /// It is an instance, without any right but its user's: how readily it is killed when memory
    /// runs out.
    pub(super) instance: Option<&'a CStr>,
    /// A test wants it to be stopped right before it becomes the program.
    stop: bool,
    /// The pid file, in the form of `driver::supervisor::record`, and where it is written first.
    pub(super) pid: &'a CStr,
    pub(super) beside: &'a CStr,
    /// Which boot of this host it is.
    pub(super) boot: &'a CStr,
}

/// What went wrong.
pub(super) enum LaunchFault<'a> {
    /// With what, if that is not the program, and why.
    System(&'static str, &'a [u8], Errno),
    /// This key of the file.
    NotUnderstood(&'a [u8]),
    NotComplete,
}

impl From<Errno> for LaunchFault<'_> {
    fn from(errno: Errno) -> Self {
        Self::System("", b"", errno)
    }
}

/// Becomes what the file says, and returns only with the exit code of a launcher that could not:
/// 126, or 127 when something is missing, as with shells. The reason is told to acc, if that has
/// started it; else it is in the instance's log, or on standard error while that is not known.
#[must_use]
pub fn launch(file: &CStr) -> u8 {
    sys::own_session();
    let by_acc = file == c"-";
    let acc = match by_acc.then(take_over).transpose() {
        Ok(acc) => acc,
        Err(errno) => return report(STANDARD_ERROR, file, &errno.into()),
    };
    let early = acc.unwrap_or(STANDARD_ERROR);
    let opened = if by_acc {
        Ok(STANDARD_INPUT)
    } else {
        sys::open_to_read(file)
    };
    let text = match opened.and_then(sys::contents) {
        Ok(text) => text,
        Err(errno) => return report(early, file, &errno.into()),
    };
    let mut wanted = match read(&text) {
        Ok(wanted) => wanted,
        Err(fault) => return report(early, file, &fault),
    };
    match sys::open_log(wanted.log) {
        Ok(log) => report(
            acc.unwrap_or(log),
            wanted.program,
            &become_program(&mut wanted, log, by_acc),
        ),
        Err(errno) => report(early, wanted.log, &errno.into()),
    }
}

/// Says in the pid file which process this is, keeps the file, so that it stays locked until this
/// has become the program, and the pipe to acc.
fn take_over() -> Result<File, Errno> {
    let mut digits = Digits::default();
    sys::write(STANDARD_OUTPUT, &[digits.of(sys::getpid())])?;
    sys::keep(STANDARD_OUTPUT)?;
    sys::keep(STANDARD_ERROR)
}

impl LaunchRequest<'_> {
    /// Before anything was read.
    fn empty(argv: List, envp: List) -> Self {
        Self {
            program: c"",
            argv,
            envp,
            dir: c"/",
            log: c"",
            user: None,
            join: [None; 2],
            socket: None,
            umask: 0o022,
            limits: [None; 16],
            instance: None,
            stop: false,
            pid: c"",
            beside: c"",
            boot: c"",
        }
    }
}

/// What the text says: nothing but what stands in it, each value up to its zero byte.
pub(super) fn read(text: &[u8]) -> Result<LaunchRequest<'_>, LaunchFault<'_>> {
    if text.last() != Some(&0) {
        return Err(LaunchFault::NotComplete);
    }
    let lines = text.iter().filter(|byte| **byte == 0).count();
    // The program itself is the first argument; the variables of a socket come to those that were
    // given.
    let (argv, envp) = (List::of(lines + 1)?, List::of(lines + 3)?);
    let mut wanted = LaunchRequest::empty(argv, envp);
    for line in text.split_inclusive(|byte| *byte == 0) {
        let at = line.iter().position(|byte| *byte == b'=');
        // Only the key is ever shown: a value may be a secret.
        let key = line.get(..at.unwrap_or(line.len() - 1)).unwrap_or_default();
        let value = at
            .and_then(|at| CStr::from_bytes_with_nul(line.get(at + 1..)?).ok())
            .ok_or(LaunchFault::NotUnderstood(key))?;
        match key {
            b"program" => {
                wanted.program = value;
                wanted.argv.add(value)?;
            }
            b"arg" => wanted.argv.add(value)?,
            b"env" => wanted.envp.add(value)?,
            b"dir" => wanted.dir = value,
            b"log" => wanted.log = value,
            b"user" => {
                wanted.user = Some(ids(value.to_bytes()).ok_or(LaunchFault::NotUnderstood(key))?)
            }
            b"join" => *free(&mut wanted.join)? = Some(value),
            b"socket" => wanted.socket = Some(value),
            b"umask" => {
                wanted.umask = number(value.to_bytes()).ok_or(LaunchFault::NotUnderstood(key))?
            }
            b"limit" => {
                *free(&mut wanted.limits)? =
                    Some(limit(value.to_bytes()).ok_or(LaunchFault::NotUnderstood(key))?)
            }
            b"instance" => wanted.instance = Some(value),
            b"stop" => wanted.stop = true,
            b"pid" => wanted.pid = value,
            b"beside" => wanted.beside = value,
            b"boot" => wanted.boot = value,
            _ => return Err(LaunchFault::NotUnderstood(key)),
        }
    }
    Ok(wanted)
}

/// `UID GID GROUP…`
fn ids(value: &[u8]) -> Option<(u32, u32, Allocation<u32>)> {
    let numbers = || value.split(|byte| *byte == b' ').map(number);
    let (uid, gid) = (numbers().next()??, numbers().nth(1)??);
    let mut groups = Allocation::of(numbers().count() - 2).ok()?;
    for (place, group) in groups.iter_mut().zip(numbers().skip(2)) {
        *place = group?;
    }
    Some((uid, gid, groups))
}

/// `RESOURCE SOFT HARD`
fn limit(value: &[u8]) -> Option<(usize, Limit)> {
    let mut numbers = value.split(|byte| *byte == b' ');
    let (resource, soft, hard) = (
        number(numbers.next()?)?,
        number(numbers.next()?)?,
        number(numbers.next()?)?,
    );
    numbers
        .next()
        .is_none()
        .then_some((resource, Limit { soft, hard }))
}

/// The first place that is not taken.
fn free<T>(places: &mut [Option<T>]) -> Result<&mut Option<T>, Errno> {
    places
        .iter_mut()
        .find(|place| place.is_none())
        .ok_or(EINVAL)
}

fn number<T: FromStr>(digits: &[u8]) -> Option<T> {
    core::str::from_utf8(digits).ok()?.parse().ok()
}

/// Returns only with what went wrong.
fn become_program<'a>(wanted: &mut LaunchRequest<'a>, log: File, noted: bool) -> LaunchFault<'a> {
    // The program of a socket will be this process. Here, since it must be there until the end.
    let mut listen_pid = *b"LISTEN_PID=\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut digits = Digits::default();
    for (place, digit) in listen_pid
        .iter_mut()
        .skip("LISTEN_PID=".len())
        .zip(digits.of(sys::getpid()))
    {
        *place = *digit;
    }
    if let Err(fault) = prepare(wanted, log, &listen_pid, noted) {
        return fault;
    }
    if wanted.stop {
        sys::stop();
    }
    #[allow(unsafe_code, reason = "lists of pointers are what the call takes")]
    // SAFETY: every pointer is to a C string in the file's text, in this frame or in this program,
    // which all outlive the call.
    let errno = unsafe { sys::execve(wanted.program, wanted.argv.ended(), wanted.envp.ended()) };
    errno.into()
}

/// Everything but becoming the program.
fn prepare<'a>(
    wanted: &mut LaunchRequest<'a>,
    log: File,
    listen_pid: &[u8],
    noted: bool,
) -> Result<(), LaunchFault<'a>> {
    let null = sys::open_to_read(c"/dev/null")?;
    for path in wanted.join.into_iter().flatten() {
        // Before anybody else is told of this process, and before anything runs that could start
        // another one.
        let joined = sys::open_to_write(path).and_then(|file| sys::write(file, &[b"0"]));
        joined.map_err(|errno| LaunchFault::System("its control group", path.to_bytes(), errno))?;
    }
    if !noted {
        note(wanted)
            .map_err(|errno| LaunchFault::System("its pid file", wanted.pid.to_bytes(), errno))?;
    }
    sys::chdir(wanted.dir)
        .map_err(|errno| LaunchFault::System("its folder", wanted.dir.to_bytes(), errno))?;
    sys::umask(wanted.umask);
    // Python ignores SIGPIPE, and others block signals in their threads. What is ignored or blocked
    // stays so: the program shall begin with none.
    sys::reset_signals();
    for (number, file) in [(0, null), (1, log), (2, log)] {
        sys::give(file, number)?;
    }
    // Python's and acc's own files close themselves; what their parent handed to them would not.
    sys::close_at_exec(3);
    for (resource, limit) in wanted.limits.iter().flatten() {
        confine::limit(*resource, *limit)
            .map_err(|errno| LaunchFault::System("its limits", b"", errno))?;
    }
    if let Some(oom_score_adj) = wanted.instance {
        confine::settle(oom_score_adj);
        confine::drop_bounding_set();
    }
    if let Some((uid, gid, groups)) = &wanted.user {
        sys::become_user(*uid, *gid, groups)?;
    }
    if wanted.instance.is_some() {
        confine::drop_rights().map_err(|errno| LaunchFault::System("its rights", b"", errno))?;
    }
    if let Some(path) = wanted.socket {
        // As the user that this process has become, so that file and listener are that user's.
        // Never closed: it is the program's.
        let listening = sys::listen(path).and_then(|socket| sys::give(socket, HANDED_AT));
        listening.map_err(|errno| LaunchFault::System("its socket", path.to_bytes(), errno))?;
        let pid = CStr::from_bytes_until_nul(listen_pid).map_err(|_| EINVAL)?;
        for variable in [c"LISTEN_FDS=1", c"LISTEN_FDNAMES=acc", pid] {
            wanted.envp.add(variable)?;
        }
    }
    Ok(())
}

/// Leaves the pid file, whole or not at all: from before the first instruction of the program it
/// can be found, also when supervisord dies before it has said which process it is.
fn note(wanted: &LaunchRequest<'_>) -> Result<(), Errno> {
    let mut stat = [0; 1024];
    let started = started(&mut stat)?;
    let mut digits = Digits::default();
    let [boot, log] = [wanted.boot, wanted.log].map(CStr::to_bytes);
    let file = sys::make(wanted.beside)?;
    sys::write(
        file,
        &[
            digits.of(sys::getpid()),
            b" ",
            started,
            b" ",
            boot,
            b" ",
            log,
            b"\n",
        ],
    )?;
    sys::close(file);
    sys::rename(wanted.beside, wanted.pid)
}

/// When this process was started, in the kernel's ticks: what tells it from a later one of the same
/// number (proc(5), field 22).
fn started(buffer: &mut [u8]) -> Result<&[u8], Errno> {
    let file = sys::open_to_read(c"/proc/self/stat")?;
    let length = sys::read(file, buffer)?;
    sys::close(file);
    let text = buffer.get(..length).unwrap_or_default();
    // The second field is the name in parentheses, which may hold anything.
    let after_name = text.rsplit(|byte| *byte == b')').next().unwrap_or_default();
    after_name
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty())
        .nth(19)
        .ok_or(EINVAL)
}

/// A number in decimal.
#[derive(Default)]
struct Digits([u8; 20]);

impl Digits {
    fn of(&mut self, number: usize) -> &[u8] {
        let (mut rest, mut first) = (number, self.0.len());
        for place in self.0.iter_mut().rev() {
            // A remainder of ten.
            *place = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            (rest, first) = (rest / 10, first - 1);
            if rest == 0 {
                break;
            }
        }
        self.0.get(first..).unwrap_or_default()
    }
}

fn report(to: File, what: &CStr, fault: &LaunchFault<'_>) -> u8 {
    let mut digits = Digits::default();
    let begin: &[&[u8]] = &[b"acc: could not start `", what.to_bytes(), b"`: "];
    let _ = match fault {
        LaunchFault::NotComplete => {
            sys::write(to, &[begin[0], begin[1], begin[2], b"it is not complete\n"])
        }
        LaunchFault::NotUnderstood(key) => sys::write(
            to,
            &[
                begin[0],
                begin[1],
                begin[2],
                b"`",
                key,
                b"` is not understood\n",
            ],
        ),
        LaunchFault::System(with, path, errno) => {
            let (open, close): (&[u8], &[u8]) = match (with.is_empty(), path.is_empty()) {
                (true, _) => (b"", b""),
                (false, true) => (b"", b": "),
                (false, false) => (b" `", b"`: "),
            };
            let number = digits.of(usize::try_from(errno.0).unwrap_or(0));
            let why = [meaning(*errno).as_bytes(), b" (os error ", number, b")\n"];
            sys::write(
                to,
                &[
                    begin[0],
                    begin[1],
                    begin[2],
                    with.as_bytes(),
                    open,
                    path,
                    close,
                    why[0],
                    why[1],
                    why[2],
                    why[3],
                ],
            )
        }
    };
    if matches!(fault, LaunchFault::System(_, _, ENOENT)) {
        127
    } else {
        126
    }
}

/// The usual words for what can go wrong here.
fn meaning(errno: Errno) -> &'static str {
    match errno.0 {
        1 => "Operation not permitted",
        2 => "No such file or directory",
        5 => "Input/output error",
        7 => "Argument list too long",
        8 => "Exec format error",
        12 => "Cannot allocate memory",
        13 => "Permission denied",
        20 => "Not a directory",
        21 => "Is a directory",
        22 => "Invalid argument",
        23 | 24 => "Too many open files",
        26 => "Text file busy",
        28 => "No space left on device",
        30 => "Read-only file system",
        36 => "File name too long",
        40 => "Too many levels of symbolic links",
        98 => "Address already in use",
        122 => "Disk quota exceeded",
        _ => "It failed",
    }
}
