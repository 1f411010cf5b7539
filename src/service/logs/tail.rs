//! The end of a log file, and what is added to it: read from its end, followed across rotation and
//! truncation.
//!
//! It never holds more than a block of the file and never writes to it. The file may be an
//! instance's own: a link or a pipe in its place is refused, and a hole in it is skipped.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};

use crate::host::untrusted;

const BLOCK: u64 = 64 * 1024;
/// How far back the beginning of the last lines is searched: a log of acc's is shorter.
const BACK_MAX: u64 = 16 * 1024 * 1024;

/// A log file being read.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    open: Option<OpenLog>,
}

#[derive(Debug)]
struct OpenLog {
    file: File,
    /// Up to here it has been handed out.
    at: u64,
    /// Device and inode: what tells a rotated file from its successor.
    id: (u64, u64),
}

impl Tail {
    /// Opens the log `lines` lines before its end. A log that is not there (yet) is no error: see
    /// [`Self::is_there`].
    ///
    /// # Errors
    /// When it is there and cannot be read, or is not a file of its own.
    pub fn open(path: &Path, lines: usize) -> io::Result<Self> {
        let open = match OpenLog::new(path)? {
            Some(mut open) => {
                open.at = start_of_last(&open.file, lines)?;
                Some(open)
            }
            None => None,
        };
        Ok(Self {
            path: path.to_owned(),
            open,
        })
    }

    /// Is there a log?
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.open.is_some()
    }

    /// The next piece, at most a block; empty: that is all for now.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(open) = &mut self.open {
                let piece = open.read()?;
                if !piece.is_empty() {
                    return Ok(piece);
                }
            }
            // The new file is opened only at the end of the old one: nothing written before the
            // rotation is missed.
            if !self.turn_over()? {
                return Ok(Vec::new());
            }
        }
    }

    /// Goes on with what now stands under the path, from its beginning; `false`: it is still the
    /// same.
    fn turn_over(&mut self) -> io::Result<bool> {
        let Some(next) = OpenLog::new(&self.path)? else {
            return Ok(false);
        };
        if let Some(open) = &mut self.open {
            let length = open.file.metadata()?.len();
            if next.id == open.id && length >= open.at {
                return Ok(false);
            }
            // Between the last read and the rename the old file may have grown: then the next call
            // reads it first.
            if next.id != open.id && length > open.at {
                return Ok(true);
            }
        }
        self.open = Some(next);
        Ok(true)
    }
}

impl OpenLog {
    /// `None`: there is no such file.
    fn new(path: &Path) -> io::Result<Option<Self>> {
        match untrusted::open(path, untrusted::To::Read) {
            Ok((file, found)) => Ok(Some(Self {
                file,
                at: 0,
                id: (found.st_dev, found.st_ino),
            })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        match seek(&self.file, SeekFrom::Data(self.at)) {
            Ok(data) => self.at = data,
            // No more data: what is left, if anything, is a hole.
            Err(rustix::io::Errno::NXIO) => {
                self.at = self.at.max(self.file.metadata()?.len());
                return Ok(Vec::new());
            }
            // A file system that knows of no holes.
            Err(_) => {}
        }
        let piece = block(&self.file, self.at, BLOCK)?;
        self.at += piece.len() as u64;
        Ok(piece)
    }
}

/// So many bytes from there on, or what there is of them.
fn block(file: &File, from: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], from + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Where the last `lines` lines begin. Reads backwards, block by block, no further than needed or
/// than [`BACK_MAX`].
fn start_of_last(file: &File, lines: usize) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let first = length.saturating_sub(BACK_MAX);
    let mut end = length;
    let mut wanted = lines;
    while end > first && lines > 0 {
        let start = end.saturating_sub(BLOCK).max(first);
        for (index, byte) in block(file, start, end - start)?.iter().enumerate().rev() {
            let position = start + index as u64;
            // The newline that ends the last line begins no other.
            if *byte == b'\n' && position + 1 != length {
                wanted -= 1;
                if wanted == 0 {
                    return Ok(position + 1);
                }
            }
        }
        end = start;
    }
    Ok(if lines == 0 { length } else { first })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn all(tail: &mut Tail) -> String {
        let mut bytes = Vec::new();
        loop {
            let piece = tail.read().unwrap();
            if piece.is_empty() {
                return String::from_utf8(bytes).unwrap();
            }
            bytes.extend(piece);
        }
    }

    fn append(path: &Path, text: &str) {
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    #[test]
    fn the_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "one\ntwo\nthree\n");
        for (lines, text) in [
            (0, ""),
            (1, "three\n"),
            (2, "two\nthree\n"),
            (3, "one\ntwo\nthree\n"),
            (99, "one\ntwo\nthree\n"),
        ] {
            assert_eq!(all(&mut Tail::open(&path, lines).unwrap()), text, "{lines}");
        }
        append(&path, "unended");
        assert_eq!(all(&mut Tail::open(&path, 2).unwrap()), "three\nunended");
    }

    #[test]
    fn lines_longer_than_a_block_and_many_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let long = "x".repeat(200_000);
        append(&path, &format!("first\n{long}\nlast\n"));
        assert_eq!(
            all(&mut Tail::open(&path, 2).unwrap()),
            format!("{long}\nlast\n")
        );
        assert_eq!(all(&mut Tail::open(&path, 3).unwrap()).len(), 200_012);
        // A newline exactly at the edge of a block.
        let edge = dir.path().join("edge");
        append(&edge, &format!("a\n{}\n", "y".repeat(65_535)));
        assert_eq!(all(&mut Tail::open(&edge, 1).unwrap()).len(), 65_536);
    }

    #[test]
    fn a_missing_log_may_come_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut tail = Tail::open(&path, 5).unwrap();
        assert!(!tail.is_there());
        assert_eq!(all(&mut tail), "");
        append(&path, "hello\n");
        assert_eq!(all(&mut tail), "hello\n");
    }

    #[test]
    fn follows_rotation_without_a_gap_and_without_a_double() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "one\n");
        let mut tail = Tail::open(&path, 5).unwrap();
        assert_eq!(all(&mut tail), "one\n");
        append(&path, "two\n");
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        append(&dir.path().join("log.1"), "three\n");
        assert_eq!(all(&mut tail), "two\nthree\n");
        append(&path, "four\n");
        assert_eq!(all(&mut tail), "four\n");
        assert_eq!(all(&mut tail), "");
    }

    #[test]
    fn follows_truncation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "a long first line\n");
        let mut tail = Tail::open(&path, 5).unwrap();
        all(&mut tail);
        fs::write(&path, "short\n").unwrap();
        assert_eq!(all(&mut tail), "short\n");
    }

    #[test]
    fn what_is_not_a_file_of_its_own_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        append(&secret, "for root only\n");
        std::os::unix::fs::symlink(&secret, dir.path().join("link")).unwrap();
        assert!(Tail::open(dir.path(), 0).is_err());
        assert!(Tail::open(&dir.path().join("link"), 9).is_err());
    }

    #[test]
    fn a_hole_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "one\n");
        let mut tail = Tail::open(&path, 5).unwrap();
        all(&mut tail);
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(40 << 30).unwrap();
        assert!(all(&mut tail).len() <= 64 * 1024);
        append(&path, "two\n");
        assert!(all(&mut tail).ends_with("two\n"));
        let last = all(&mut Tail::open(&path, 5).unwrap());
        assert!(
            last.ends_with("two\n") && last.len() <= 128 * 1024,
            "{}",
            last.len()
        );
    }
}
