//! Limits that the kernel keeps for each process (`setrlimit(2)`): those an instance begins with,
//! and those acc was booted with. And limits of all processes of an instance together (cgroups(7)).
//!
//! It sets none: that is for the launcher, between acc and the program.

use std::io;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::fs::write_atomic;

/// Without a limit, as the kernel writes it.
pub const UNLIMITED: u64 = libc::RLIM_INFINITY;

/// How many files a process may have open: what it begins with, and how far it may raise that by
/// itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// In force.
    pub soft: u64,
    /// The most that the process may set.
    pub hard: u64,
}

impl OpenFiles {
    /// Those of this process.
    #[must_use]
    pub fn own() -> Self {
        let own = getrlimit(Resource::Nofile);
        Self {
            soft: own.current.unwrap_or(UNLIMITED),
            hard: own.maximum.unwrap_or(UNLIMITED),
        }
    }

    /// So many and no more.
    #[must_use]
    pub fn exactly(count: u64) -> Self {
        Self {
            soft: count,
            hard: count,
        }
    }

    /// Writes them down, for those that are started later by a process whose own limit was raised
    /// (supervisord's is).
    ///
    /// # Errors
    /// The file could not be written.
    pub fn note(self, file: &Path) -> io::Result<()> {
        write_atomic(
            file,
            format!("{} {}\n", self.soft, self.hard).as_bytes(),
            0o644,
        )
    }

    /// What was written down; `None`: nothing was.
    #[must_use]
    pub fn noted(file: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(file).ok()?;
        let (soft, hard) = text.trim_end().split_once(' ')?;
        Some(Self {
            soft: soft.parse().ok()?,
            hard: hard.parse().ok()?,
        })
    }
}

/// Limits of one instance. `None`: those of its parent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Open files, of each process.
    pub open_files: Option<OpenFiles>,
    /// Bytes in a file that it writes.
    pub file_size: Option<u64>,
    /// Bytes in a core file.
    pub core: Option<u64>,
}

/// Limits of all processes of one instance together, which its control group keeps. `None`: no
/// limit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    /// Processes and threads at once.
    pub processes: Option<u64>,
    /// Bytes of memory and swap.
    pub memory: Option<u64>,
}

impl ProcessLimits {
    /// Each as the launcher takes it: the resource, the limit in force, and the most that the
    /// process may set.
    #[must_use]
    pub fn list(&self) -> Vec<(Resource, u64, u64)> {
        let open_files = self
            .open_files
            .map(|limit| (Resource::Nofile, limit.soft, limit.hard));
        let file_size = self.file_size.map(|bytes| (Resource::Fsize, bytes, bytes));
        let core = self.core.map(|bytes| (Resource::Core, bytes, bytes));
        [open_files, file_size, core]
            .into_iter()
            .flatten()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_found_again_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("open-files");
        assert_eq!(OpenFiles::noted(&file), None);
        for limit in [
            OpenFiles {
                soft: 1000,
                hard: 4096,
            },
            OpenFiles::exactly(UNLIMITED),
            OpenFiles::own(),
        ] {
            limit.note(&file).unwrap();
            assert_eq!(OpenFiles::noted(&file), Some(limit));
        }
        for junk in ["", "1000", "1000 many", "1 2 3"] {
            std::fs::write(&file, junk).unwrap();
            assert_eq!(OpenFiles::noted(&file), None, "{junk:?}");
        }
    }
}
