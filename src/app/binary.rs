//! Which program this process runs, and whether the file it came from has been replaced since.
//!
//! It never decides to upgrade.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file as it was when it was looked at: another one, or a changed one, differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

fn mark(path: &Path) -> Option<Mark> {
    let meta = std::fs::metadata(path).ok()?;
    Some(Mark { device: meta.dev(), inode: meta.ino(), size: meta.len(), modified: (meta.mtime(), meta.mtime_nsec()) })
}

/// The program of this process.
#[derive(Debug, Clone)]
pub(super) struct Image {
    path: PathBuf,
    running: Option<Mark>,
}

impl Image {
    /// Looks at it; at the start of the process.
    pub(super) fn own() -> Self {
        // The link leads to the very file that runs, also when it has been removed or replaced.
        Self { path: super::own_binary(), running: mark(Path::new("/proc/self/exe")) }
    }

    /// Where it was started from, and where its successor is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Another program is in its place now. A missing one is not another one: it may be about to be replaced.
    pub(super) fn is_outdated(&self) -> bool {
        match (self.running, mark(&self.path)) {
            (Some(running), Some(present)) => running != present,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_another_one_and_a_missing_one_is_not() {
        assert!(!Image::own().is_outdated());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acc");
        std::fs::write(&path, "one").unwrap();
        let image = Image { running: mark(&path), path: path.clone() };
        assert!(!image.is_outdated());
        std::fs::write(dir.path().join("new"), "one").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        assert!(image.is_outdated());
        std::fs::remove_file(&path).unwrap();
        assert!(!image.is_outdated());
    }
}
