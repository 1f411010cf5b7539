//! The file in the run folder that records that acc was booted, and how.
//!
//! It is read here; `app` writes and removes it.

use std::path::{Path, PathBuf};

use super::regular;

/// Whether acc was booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Booted {
    /// No, or it was halted.
    No,
    /// By `acc boot`: acc restarts what dies.
    InBackground,
    /// By `acc boot --foreground`, or its server was started by hand: the parent process (systemd)
    /// restarts the main process.
    InForeground,
}

impl Booted {
    /// The text of the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "",
            Self::InBackground => "background",
            Self::InForeground => "foreground",
        }
    }

    /// Reads how acc was booted with this run folder. An unreadable file was not written by acc.
    #[must_use]
    pub fn in_run(run: &Path) -> Self {
        match regular::read_to_string(&booted_file(run))
            .as_deref()
            .map(str::trim)
        {
            Ok("background") => Self::InBackground,
            Ok("foreground") => Self::InForeground,
            _ => Self::No,
        }
    }
}

/// The path of the file.
pub(super) fn booted_file(run: &Path) -> PathBuf {
    run.join("booted")
}
