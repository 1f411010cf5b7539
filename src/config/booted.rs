//! The record that acc was booted, and how. It is in the home folder with the boot of the host and
//! the run folder it is valid for, where no cleaner of temporary folders removes it, and in the run
//! folder, where earlier versions look.
//!
//! It is read here; `app` writes and removes it.

use std::path::{Path, PathBuf};

use super::regular;
use crate::host::process;

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

    /// Reads how acc was booted with these folders since the start of the host. A file that cannot
    /// be read was not written by acc.
    #[must_use]
    pub fn in_folders(home: &Path, run: &Path) -> Self {
        let read = |path: PathBuf| regular::read_to_string(&path).unwrap_or_default();
        let in_run = Self::named(read(booted_file(run)).trim());
        if in_run != Self::No {
            return in_run;
        }
        let text = read(booted_file(home));
        match text.split_once('\n') {
            Some((how, valid_for)) if valid_for == validity(run) => Self::named(how),
            _ => Self::No,
        }
    }

    fn named(word: &str) -> Self {
        match word {
            "background" => Self::InBackground,
            "foreground" => Self::InForeground,
            _ => Self::No,
        }
    }

    /// The text of the file in the home folder.
    #[must_use]
    pub fn text_for_home(self, run: &Path) -> String {
        format!("{}\n{}", self.as_str(), validity(run))
    }
}

/// What the file in the home folder is valid for.
fn validity(run: &Path) -> String {
    format!("{}\n{}\n", process::boot_id(), run.display())
}

/// The path of the file in the home or run folder.
pub(super) fn booted_file(folder: &Path) -> PathBuf {
    folder.join("booted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_outlives_its_run_folder_but_not_the_boot_of_the_host() {
        let (home, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let booted = || Booted::in_folders(home.path(), run.path());
        let write = |text: &str| std::fs::write(booted_file(home.path()), text).unwrap();
        assert_eq!(booted(), Booted::No);
        let text = Booted::InBackground.text_for_home(run.path());
        write(&text);
        assert_eq!(booted(), Booted::InBackground);
        write(&text.replace(&process::boot_id(), "another-boot"));
        assert_eq!(booted(), Booted::No);
        write(&Booted::InBackground.text_for_home(Path::new("/another/run")));
        assert_eq!(booted(), Booted::No);
        // An earlier version writes the one in the run folder only.
        std::fs::write(booted_file(run.path()), "foreground").unwrap();
        assert_eq!(booted(), Booted::InForeground);
    }
}
