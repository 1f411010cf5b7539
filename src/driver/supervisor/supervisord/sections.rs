//! Folders of sections: one file for each service and each instance that is or recently was awake,
//! and the folder of requests for launchers. It handles files only: `reread` decides their order
//! and keeps track of what supervisord has read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::SupervisorError;
use super::super::pid_file::{remove, replace};
use crate::host::fs::make_dir;

/// A folder of sections, or of requests for launchers.
#[derive(Debug)]
pub(super) struct Sections {
    dir: PathBuf,
    extension: &'static str,
}

/// How the text on disk compares with the desired one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SectionMatch {
    /// The same.
    Same,
    /// It differs.
    Other,
    /// There is none.
    Missing,
}

impl Sections {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            extension: "conf",
        }
    }

    /// A folder of requests for launchers.
    pub(super) fn of_specs(dir: PathBuf) -> Self {
        Self {
            dir,
            extension: "spec",
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of this name's file.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.{}", self.extension))
    }

    /// Compares the file with this text. Comments of a section do not count: a service whose
    /// comments alone another version of acc has reworded is not restarted.
    pub(super) fn compare(
        &self,
        name: &str,
        text: impl AsRef<[u8]>,
    ) -> Result<SectionMatch, SupervisorError> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(found) if self.is_same(&found, text.as_ref()) => Ok(SectionMatch::Same),
            Ok(_) => Ok(SectionMatch::Other),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(SectionMatch::Missing),
            Err(source) => Err(SupervisorError::File {
                action: "read",
                path,
                source,
            }),
        }
    }

    fn is_same(&self, found: &[u8], text: &[u8]) -> bool {
        fn settings(text: &[u8]) -> impl Iterator<Item = &[u8]> {
            text.split(|byte| *byte == b'\n')
                .filter(|line| !line.starts_with(b";"))
        }
        found == text || self.extension == "conf" && settings(found).eq(settings(text))
    }

    /// Writes the file, readable by acc and supervisord only: it may contain secrets.
    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<(), SupervisorError> {
        self.make()?;
        replace(&self.path(name), text.as_ref(), 0o600)
    }

    /// Makes the folder.
    pub(super) fn make(&self) -> Result<(), SupervisorError> {
        make_dir(&self.dir, 0o700).map_err(|source| SupervisorError::File {
            action: "make",
            path: self.dir.clone(),
            source,
        })
    }

    /// Whether there is a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Removes the file; a missing one is success.
    pub(super) fn remove(&self, name: &str) -> Result<(), SupervisorError> {
        remove(&self.path(name))
    }

    /// Moves the file to another folder of the same file system.
    pub(super) fn move_to(&self, name: &str, other: &Self) -> Result<(), SupervisorError> {
        other.make()?;
        let (from, to) = (self.path(name), other.path(name));
        fs::rename(&from, &to).map_err(|source| SupervisorError::File {
            action: "rename",
            path: from,
            source,
        })
    }

    /// All names, the least recently written first.
    pub(super) fn names(&self) -> Result<Vec<String>, SupervisorError> {
        let failed = |source| SupervisorError::File {
            action: "read",
            path: self.dir.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            if path.extension().is_some_and(|e| e == self.extension)
                && let Some(name) = path.file_stem().and_then(|s| s.to_str())
            {
                found.push((
                    entry.metadata().and_then(|m| m.modified()).ok(),
                    name.to_owned(),
                ));
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, name)| name).collect())
    }

    /// Removes every other file.
    pub(super) fn keep_only(&self, names: &[String]) -> Result<(), SupervisorError> {
        self.names()?
            .iter()
            .filter(|name| !names.contains(name))
            .try_for_each(|name| self.remove(name))
    }

    /// The section whose file this message of supervisord complains about.
    pub(super) fn culprit(&self, message: &str) -> Option<String> {
        self.names()
            .ok()?
            .into_iter()
            .find(|name| message.contains(&*self.path(name).to_string_lossy()))
    }
}

/// The name of a service's section: no instance can have an underscore in its name.
pub(super) fn group_name(service: &str) -> String {
    format!("acc_{service}")
}

/// Writes a file of the daemon if its text differs; returns `true` if it did.
pub(super) fn write_if_other(path: &Path, text: &str) -> Result<bool, SupervisorError> {
    if fs::read(path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(false);
    }
    crate::host::fs::write_atomic(path, text.as_bytes(), 0o600).map_err(|source| {
        SupervisorError::File {
            action: "write",
            path: path.to_owned(),
            source,
        }
    })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_compared_written_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let sections = Sections::new(dir.path().join("programs"));
        assert_eq!(sections.names().unwrap(), Vec::<String>::new());
        assert_eq!(sections.compare("a", "x").unwrap(), SectionMatch::Missing);
        sections.write("a", "x").unwrap();
        sections.write("b", "y").unwrap();
        assert_eq!(sections.compare("a", "x").unwrap(), SectionMatch::Same);
        assert_eq!(sections.compare("a", "z").unwrap(), SectionMatch::Other);
        assert_eq!(
            sections.compare("a", "; why\nx").unwrap(),
            SectionMatch::Same,
            "a comment is no setting"
        );
        assert_eq!(sections.compare("a", "x\ny").unwrap(), SectionMatch::Other);
        // A request for a launcher has no comments.
        let specs = Sections::of_specs(dir.path().join("launch"));
        specs.write("a", "x").unwrap();
        assert_eq!(specs.compare("a", ";\nx").unwrap(), SectionMatch::Other);
        assert_eq!(sections.names().unwrap(), ["a", "b"]);
        let message = format!(
            "CANT_REREAD: Invalid user name x in section 'program:b' (file: '{}')",
            dir.path().join("programs/b.conf").display()
        );
        assert_eq!(sections.culprit(&message), Some("b".to_owned()));
        assert_eq!(sections.culprit("something else"), None);
        sections.keep_only(&["b".to_owned()]).unwrap();
        assert!(!sections.has("a") && sections.has("b"));
        sections.remove("a").unwrap();
        let other = Sections::new(dir.path().join("other"));
        sections.move_to("b", &other).unwrap();
        assert!(!sections.has("b") && other.compare("b", "y").unwrap() == SectionMatch::Same);
        assert!(sections.move_to("b", &other).is_err());
    }
}
