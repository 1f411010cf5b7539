//! The logs of an instance: which files they are, and their last lines.
//!
//! It never writes to one.

mod merged;
mod tail;

use std::io;
use std::path::PathBuf;

pub use merged::{LogFault, Merged};

use crate::config::Config;
use crate::service::error::ServiceError;

/// At most so many lines are an answer; more is read from the files, piece by piece.
pub const LINES_MAX: usize = 1_000;

/// At most so many bytes of them; the first lines are left out.
const BYTES_MAX: usize = 512 * 1024;

/// At most so many pieces are read: more than lie between the first of the last lines and the end.
const PIECES_MAX: usize = 1_000;

/// What an instance prints, or the requests to it. What does not count as use is a request, too.
#[must_use]
pub fn paths(config: &Config, name: &str, access: bool) -> Vec<PathBuf> {
    match access {
        true => vec![config.access_log(name), config.uncounted_log(name)],
        false => vec![config.app_log(name)],
    }
}

/// The last lines, oldest first, without their ends; a log that is not there has none.
pub(super) fn last(paths: Vec<PathBuf>, lines: usize) -> Result<Vec<String>, ServiceError> {
    let lines = lines.min(LINES_MAX);
    let mut log = Merged::open(paths, lines).map_err(unreadable)?;
    let mut text = Vec::new();
    // It may be written as fast as it is read.
    for _ in 0..PIECES_MAX {
        let piece = log.read().map_err(unreadable)?;
        if piece.is_empty() {
            break;
        }
        text.extend_from_slice(&piece);
        text.drain(..text.len().saturating_sub(BYTES_MAX));
    }
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let last = all.len().saturating_sub(lines);
    Ok(all[last..].iter().map(|line| (*line).to_owned()).collect())
}

/// A log cannot be read.
#[must_use]
pub fn unreadable((path, error): LogFault) -> ServiceError {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => "run this command as root or as the user who booted acc",
        _ => "check what is at that path; the next start of the instance creates a new log",
    };
    ServiceError::because(format!("could not read `{}`", path.display()), &error, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("app.log");
        let last = |lines| last(vec![log.clone()], lines).unwrap();
        assert!(last(5).is_empty());
        std::fs::write(&log, b"one\ntwo\n\xff\nend").unwrap();
        assert_eq!(last(3), ["two", "\u{fffd}", "end"]);
        std::fs::write(&log, "x\n".repeat(LINES_MAX + 5)).unwrap();
        assert_eq!(last(usize::MAX).len(), LINES_MAX);
        std::fs::write(&log, "x".repeat(2 * BYTES_MAX) + "\nend\n").unwrap();
        let lines = last(2);
        assert_eq!((lines.len(), lines[1].as_str()), (2, "end"));
        assert!(lines[0].len() < BYTES_MAX);
    }
}
