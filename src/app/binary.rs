//! Which program this process runs, and whether the file it came from has been replaced since.
//!
//! It never decides to upgrade.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file as it was when it was checked: another one, or a changed one, differs.
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
    /// Records the file; at the start of the process.
    pub(super) fn own() -> Self {
        // The link leads to the very file that runs, also when it has been removed or replaced.
        Self {
            path: own_binary(),
            running: stamp(Path::new("/proc/self/exe")),
        }
    }

    /// Where it was started from, and where its successor is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Another program is in its place now. A missing one is not another one: it may be about to be
    /// replaced.
    pub(super) fn is_outdated(&self) -> bool {
        match (self.running, stamp(&self.path)) {
            (Some(running), Some(present)) => running != present,
            _ => false,
        }
    }

    /// Does this process run another program than the one in place?
    pub(super) fn is_older(&self, pid: i32) -> bool {
        let running = stamp(Path::new(&format!("/proc/{pid}/exe")));
        running.is_some_and(|running| stamp(&self.path).is_some_and(|there| there != running))
    }
}

/// The running binary.
pub(super) fn own_binary() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("acc"));
    // Replaced while it runs: the kernel says so in the name; the new one is at the old place.
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
