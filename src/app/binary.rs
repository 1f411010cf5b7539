//! The program of this process, and whether its file has been replaced since.
//!
//! It never decides to upgrade.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Identifies a file's content: another file, or a changed one, has another stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

fn stamp(path: &Path) -> Option<FileStamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some(FileStamp {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.len(),
        modified: (meta.mtime(), meta.mtime_nsec()),
    })
}

/// The program of this process.
#[derive(Debug, Clone)]
pub(super) struct Binary {
    path: PathBuf,
    running: Option<FileStamp>,
}

impl Binary {
    /// Records the file, at the start of the process.
    pub(super) fn own() -> Self {
        // This link leads to the running file even if it was removed or replaced.
        Self {
            path: own_binary(),
            running: stamp(Path::new("/proc/self/exe")),
        }
    }

    /// The path it was started from, where its successor is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether another program is at its path now. A missing file does not count: it may be about
    /// to be replaced.
    pub(super) fn is_outdated(&self) -> bool {
        match (self.running, stamp(&self.path)) {
            (Some(running), Some(present)) => running != present,
            _ => false,
        }
    }

    /// Whether this process runs another program than the one at the path.
    pub(super) fn is_older(&self, pid: i32) -> bool {
        let running = stamp(Path::new(&format!("/proc/{pid}/exe")));
        running.is_some_and(|running| stamp(&self.path).is_some_and(|there| there != running))
    }
}

/// The path of the running binary.
pub(super) fn own_binary() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("acc"));
    // If the file was replaced, the kernel marks the name; the new file is at the old path.
    match path.to_str().and_then(|p| p.strip_suffix(" (deleted)")) {
        Some(replaced) => PathBuf::from(replaced),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_another_one_and_a_missing_one_is_not() {
        assert!(!Binary::own().is_outdated());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acc");
        std::fs::write(&path, "one").unwrap();
        let binary = Binary {
            running: stamp(&path),
            path: path.clone(),
        };
        assert!(!binary.is_outdated());
        std::fs::write(dir.path().join("new"), "one").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        assert!(binary.is_outdated());
        std::fs::remove_file(&path).unwrap();
        assert!(!binary.is_outdated());
    }
}
