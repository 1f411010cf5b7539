//! The faults of a file, each on a line of its own: key, reason, value, line.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// The key with its tables (`idle.timeout`), or the environment variable; empty if the fault is
    /// not about one key.
    pub key: String,
    /// Line in the file, from 1; `None` if the value is not from the file.
    pub line: Option<usize>,
    /// What is wrong with it.
    pub reason: String,
    /// The value in the file, shortened.
    pub found: Option<String>,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)?;
        match (&self.found, self.line) {
            (Some(found), Some(line)) => write!(f, " (found {found}, line {line})"),
            (Some(found), None) => write!(f, " (found {found})"),
            (None, Some(line)) => write!(f, " (line {line})"),
            (None, None) => Ok(()),
        }
    }
}

/// All faults of the settings; its text has one line for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.faults, "\n"))]
pub struct ConfigErrors {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// In the order of the file; never empty.
    pub faults: Vec<ConfigFault>,
}

impl ConfigErrors {
    /// One line to put above the faults.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.file {
            Some(file) => format!("invalid settings in `{}`", file.display()),
            None => "invalid settings".to_owned(),
        }
    }
}

/// The faults as text.
pub(crate) fn lines(faults: &[ConfigFault], between: &str) -> String {
    faults
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(between)
}
