//! Reads a process's state from `/proc/PID/stat`, see proc(5).
//!
//! The text contains the name of the program, which the program chooses and which may be any bytes.
//! So it is parsed as bytes: a name can neither hide a process nor imitate another field. It
//! changes nothing.

use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sys::signal;

/// What acc reads of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// All its threads have ended, and its parent has not reaped it. If only the first thread has
    /// ended (by itself, or because a kill reached that thread first) this is false: the kernel
    /// shows `Z` too, but the process still runs and holds its sockets.
    pub zombie: bool,
    /// Its first thread has ended.
    first_thread_ended: bool,
    /// A signal or a debugger has stopped it.
    pub stopped: bool,
    /// Its parent.
    pub parent: i32,
    /// Process group.
    pub group: i32,
    /// Session.
    pub session: i32,
    /// Clock ticks since boot.
    pub start_time: u64,
    /// Wait status of a zombie; 0 otherwise, and 0 without permission to read it.
    pub wait_status: i32,
}

/// Reads the state of a process, alive or zombie; `None`: there is none with this pid.
pub fn stat(pid: i32) -> io::Result<Option<Stat>> {
    if pid <= 0 {
        return Ok(None);
    }
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => {
            let mut seen = parse_stat(&text).ok_or_else(|| {
                io::Error::other(format!("`/proc/{pid}/stat` is not as expected"))
            })?;
            seen.zombie = seen.zombie || seen.first_thread_ended && all_threads_ended(pid);
            Ok(Some(seen))
        }
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => hidden_or_gone(pid),
        Err(e) => Err(e),
    }
}

/// Whether all threads have ended. A debugger keeps an ended thread in the count. `false` also if
/// it cannot be read.
fn all_threads_ended(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    threads.flatten().all(|thread| {
        let text = fs::read(thread.path().join("stat"));
        text.is_ok_and(|text| parse_stat(&text).is_some_and(|seen| seen.first_thread_ended))
    })
}

/// `/proc` can hide the processes of other users (`hidepid`): a missing folder does not prove that
/// the process is gone.
fn hidden_or_gone(pid: i32) -> io::Result<Option<Stat>> {
    match signal::kill(nix::unistd::Pid::from_raw(pid), None) {
        Err(Errno::EPERM) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("process {pid} is hidden in /proc"),
        )),
        _ => Ok(None),
    }
}

/// Parses the text of `/proc/PID/stat`; `None`: it is invalid.
#[must_use]
pub fn parse_stat(text: &[u8]) -> Option<Stat> {
    // The name in parentheses may contain anything, including parentheses, blanks and newlines: the
    // fields begin after the last parenthesis.
    let after_name = text.iter().rposition(|byte| *byte == b')')? + 1;
    let fields = std::str::from_utf8(text.get(after_name..)?).ok()?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let first_thread_ended = matches!(field(3)?, "Z" | "X" | "x");
    Some(Stat {
        zombie: first_thread_ended && field(20)?.parse::<u32>().ok()? <= 1,
        first_thread_ended,
        stopped: matches!(field(3)?, "T" | "t"),
        parent: field(4)?.parse().ok()?,
        group: field(5)?.parse().ok()?,
        session: field(6)?.parse().ok()?,
        start_time: field(22)?.parse().ok()?,
        wait_status: field(52).and_then(|f| f.parse().ok()).unwrap_or(0),
    })
}

/// All pids in `/proc` now, in no order.
pub fn pids() -> io::Result<impl Iterator<Item = i32>> {
    Ok(fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_bytes_does_not_confuse() {
        let tail = "S 1 42 43 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 777 9 9";
        let with =
            |name: &[u8], tail: &str| parse_stat(&[b"42 (", name, b") ", tail.as_bytes()].concat());
        for name in [
            &b"a"[..],
            b"",
            b"a) b) (c",
            b") Z (",
            b"x) Z 1 1 1",
            b"\xff\xfe",
            b"\n) Z 9 9 9 \n",
            b"\xe2\x82",
            b"0) \xff) (",
        ] {
            let seen = with(name, tail).unwrap();
            assert_eq!(
                (seen.parent, seen.group, seen.session, seen.start_time),
                (1, 42, 43, 777),
                "{name:?}"
            );
            assert!(!seen.zombie, "{name:?}");
            assert!(
                with(name, &tail.replacen('S', "Z", 1)).unwrap().zombie,
                "{name:?}"
            );
        }
        assert!(
            !with(
                b"a",
                &tail.replacen('S', "Z", 1).replace(" 1 0 777", " 2 0 777")
            )
            .unwrap()
            .zombie,
            "another thread lives"
        );
        for broken in [&b""[..], b"42 (a", b"42 (a) S 1", b"42 (a) \xff"] {
            assert_eq!(parse_stat(broken), None);
        }
    }
}
