//! Resource limits of a process (`setrlimit(2)`): those an instance starts with, and those acc was
//! booted with. And limits for all processes of an instance together (cgroups(7)).
//!
//! It sets none: the launcher does, before it becomes the program.

use std::io;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::fs::write_atomic;

/// No limit, in the kernel's encoding.
pub const UNLIMITED: u64 = libc::RLIM_INFINITY;

/// How many files a process may have open: the limit in force, and the highest that it may set
/// itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// The limit in force.
    pub soft: u64,
    /// The highest that the process may set.
    pub hard: u64,
}

impl OpenFiles {
    /// The limits of this process.
    #[must_use]
    pub fn own() -> Self {
        let own = getrlimit(Resource::Nofile);
        Self {
            soft: own.current.unwrap_or(UNLIMITED),
            hard: own.maximum.unwrap_or(UNLIMITED),
        }
    }

    /// Both limits the same.
    #[must_use]
    pub fn exactly(count: u64) -> Self {
        Self {
            soft: count,
            hard: count,
        }
    }

    /// Writes them to a file. A process whose own limit was raised (supervisord) starts instances
    /// with these.
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

    /// Reads them from that file; `None`: it is missing or invalid.
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

/// Limits of one instance. `None`: inherited.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Open files of each process.
    pub open_files: Option<OpenFiles>,
    /// Size of a file that it writes, in bytes.
    pub file_size: Option<u64>,
    /// Size of a core file, in bytes.
    pub core: Option<u64>,
}

/// Limits for all processes of one instance together, enforced by its control group. `None`: no
/// limit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    /// Processes and threads at once.
    pub processes: Option<u64>,
    /// Bytes of memory and swap.
    pub memory: Option<u64>,
}

impl ProcessLimits {
    /// The limits in the launcher's form: resource, soft limit, hard limit.
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
