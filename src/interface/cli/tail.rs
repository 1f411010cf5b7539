//! The end of a log file, and what is added to it: read from its end, followed across rotation and truncation.
//!
//! It never holds more than a block of the file and never writes to it.

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

const BLOCK: u64 = 64 * 1024;

/// A log file being read.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Up to here it has been handed out.
    at: u64,
    /// Device and inode: what tells a rotated file from its successor.
    id: (u64, u64),
}

impl Tail {
    /// Opens the log `lines` lines before its end. A log that is not there (yet) is no error: see [`Self::is_there`].
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub async fn open(path: &Path, lines: usize) -> io::Result<Self> {
        let open = match Open::new(path).await? {
            Some(mut open) => {
                open.at = start_of_last(&mut open.file, lines).await?;
                open.file.seek(SeekFrom::Start(open.at)).await?;
                Some(open)
            }
            None => None,
        };
        Ok(Self { path: path.to_owned(), open })
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
    pub async fn read(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(open) = &mut self.open {
                let piece = open.read().await?;
                if !piece.is_empty() {
                    return Ok(piece);
                }
            }
            // Only at the end of the old file is the new one looked for: nothing written before the rotation is missed.
            if !self.turn_over().await? {
                return Ok(Vec::new());
            }
        }
    }

    /// Goes on with what now stands under the path, from its beginning; `false`: it is still the same.
    async fn turn_over(&mut self) -> io::Result<bool> {
        let Some(next) = Open::new(&self.path).await? else { return Ok(false) };
        if let Some(open) = &mut self.open {
            let length = open.file.metadata().await?.len();
            if next.id == open.id && length >= open.at {
                return Ok(false);
            }
            // Between the last read and the rename the old file may have grown: then the next call reads it first.
            if next.id != open.id && length > open.at {
                return Ok(true);
            }
        }
        self.open = Some(next);
        Ok(true)
    }
}

impl Open {
    /// `None`: there is no such file.
    async fn new(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path).await {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let meta = file.metadata().await?;
        Ok(Some(Self { file, at: 0, id: (meta.dev(), meta.ino()) }))
    }

    async fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut piece = Vec::new();
        (&mut self.file).take(BLOCK).read_to_end(&mut piece).await?;
        self.at += piece.len() as u64;
        Ok(piece)
    }
}

/// Where the last `lines` lines begin. Reads backwards, block by block, no further than needed.
async fn start_of_last(file: &mut File, lines: usize) -> io::Result<u64> {
    let length = file.metadata().await?.len();
    let mut end = length;
    let mut wanted = lines;
    while end > 0 && lines > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start)).await?;
        let mut block = Vec::new();
        (&mut *file).take(end - start).read_to_end(&mut block).await?;
        for (index, byte) in block.iter().enumerate().rev() {
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
    Ok(if lines == 0 { length } else { 0 })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    async fn all(tail: &mut Tail) -> String {
        let mut bytes = Vec::new();
        loop {
            let piece = tail.read().await.unwrap();
            if piece.is_empty() {
                return String::from_utf8(bytes).unwrap();
            }
            bytes.extend(piece);
        }
    }

    fn append(path: &Path, text: &str) {
        fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn the_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "one\ntwo\nthree\n");
        for (lines, text) in [(0, ""), (1, "three\n"), (2, "two\nthree\n"), (3, "one\ntwo\nthree\n"), (99, "one\ntwo\nthree\n")] {
            assert_eq!(all(&mut Tail::open(&path, lines).await.unwrap()).await, text, "{lines}");
        }
        append(&path, "unended");
        assert_eq!(all(&mut Tail::open(&path, 2).await.unwrap()).await, "three\nunended");
    }

    #[tokio::test]
    async fn lines_longer_than_a_block_and_many_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let long = "x".repeat(200_000);
        append(&path, &format!("first\n{long}\nlast\n"));
        assert_eq!(all(&mut Tail::open(&path, 2).await.unwrap()).await, format!("{long}\nlast\n"));
        assert_eq!(all(&mut Tail::open(&path, 3).await.unwrap()).await.len(), 200_012);
        // A newline exactly at the edge of a block.
        let edge = dir.path().join("edge");
        append(&edge, &format!("a\n{}\n", "y".repeat(65_535)));
        assert_eq!(all(&mut Tail::open(&edge, 1).await.unwrap()).await.len(), 65_536);
    }

    #[tokio::test]
    async fn a_missing_log_may_come_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut tail = Tail::open(&path, 5).await.unwrap();
        assert!(!tail.is_there());
        assert_eq!(all(&mut tail).await, "");
        append(&path, "hello\n");
        assert_eq!(all(&mut tail).await, "hello\n");
    }

    #[tokio::test]
    async fn follows_rotation_without_a_gap_and_without_a_double() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "one\n");
        let mut tail = Tail::open(&path, 5).await.unwrap();
        assert_eq!(all(&mut tail).await, "one\n");
        append(&path, "two\n");
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        append(&dir.path().join("log.1"), "three\n");
        assert_eq!(all(&mut tail).await, "two\nthree\n");
        append(&path, "four\n");
        assert_eq!(all(&mut tail).await, "four\n");
        assert_eq!(all(&mut tail).await, "");
    }

    #[tokio::test]
    async fn follows_truncation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "a long first line\n");
        let mut tail = Tail::open(&path, 5).await.unwrap();
        all(&mut tail).await;
        fs::write(&path, "short\n").unwrap();
        assert_eq!(all(&mut tail).await, "short\n");
    }

    #[tokio::test]
    async fn a_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut tail = Tail::open(dir.path(), 0).await.unwrap();
        assert!(tail.read().await.is_err());
    }
}
