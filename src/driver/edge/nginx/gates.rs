//! Gates as files: a link to the socket of the application, or a plain file for one that listens on TCP.
//!
//! nginx finds the link by the instance's name alone, so opening and closing is one file operation and never a reload.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::domain::instance::Listen;
use crate::domain::name::InstanceName;
use crate::driver::edge::{EdgeError, Gate};
use crate::driver::host::fs::{make_dir, remove_file, write_atomic};

/// The folder of all gates.
#[derive(Debug, Clone)]
pub struct Gates {
    dir: PathBuf,
}

/// Whether a gate was there that nginx checks before it connects, rather than by connecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// From now on nobody comes in.
    AtOnce,
    /// A worker may have made the check already and be about to connect.
    AfterAMoment,
}

impl Gates {
    /// Gates live in `dir`.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Makes the folder. Workers need to pass through it, not to read it.
    pub fn make(&self) -> Result<(), EdgeError> {
        make_dir(&self.dir, 0o711).map_err(|e| failed("make", &self.dir, e))
    }

    fn link(&self, name: &InstanceName) -> PathBuf {
        self.dir.join(format!("{name}.sock"))
    }

    fn file(&self, name: &InstanceName) -> PathBuf {
        self.dir.join(format!("{name}.tcp"))
    }

    /// Opens the gate; one of the other kind, left from an earlier life of the name, goes away first.
    pub fn open(&self, gate: &Gate) -> Result<(), EdgeError> {
        self.make()?;
        match &gate.listen {
            Listen::Unix(socket) => {
                let (path, other) = (self.link(&gate.name), self.file(&gate.name));
                remove_file(&other).map_err(|e| failed("remove", &other, e))?;
                self.relink(&gate.name, socket, &path).map_err(|e| failed("link", &path, e))
            }
            Listen::Tcp(address) => {
                let (path, other) = (self.file(&gate.name), self.link(&gate.name));
                remove_file(&other).map_err(|e| failed("remove", &other, e))?;
                write_atomic(&path, format!("{address}\n").as_bytes(), 0o644).map_err(|e| failed("write", &path, e))
            }
        }
    }

    /// Puts the link in place by renaming, so that there is no moment without it when it was open already.
    fn relink(&self, name: &InstanceName, socket: &Path, path: &Path) -> io::Result<()> {
        if fs::read_link(path).is_ok_and(|target| target == socket) {
            return Ok(());
        }
        let beside = self.dir.join(format!(".{name}.new-{}", std::process::id()));
        remove_file(&beside)?;
        std::os::unix::fs::symlink(socket, &beside)?;
        fs::rename(&beside, path)
    }

    /// Closes the gate of whichever kind.
    pub fn close(&self, name: &InstanceName) -> Result<Closed, EdgeError> {
        let link = self.link(name);
        remove_file(&link).map_err(|e| failed("remove", &link, e))?;
        let file = self.file(name);
        match fs::remove_file(&file) {
            Ok(()) => Ok(Closed::AfterAMoment),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Closed::AtOnce),
            Err(e) => Err(failed("remove", &file, e)),
        }
    }

    /// Names of all open gates, in order. A folder that is not there holds none.
    pub fn list(&self) -> Result<Vec<InstanceName>, EdgeError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed("read", &self.dir, e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| failed("read", &self.dir, e))?;
            let file_name = entry.file_name();
            let stem = file_name.to_str().and_then(|n| n.strip_suffix(".sock").or_else(|| n.strip_suffix(".tcp")));
            names.extend(stem.and_then(|s| InstanceName::parse(s).ok()));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
}

fn failed(deed: &'static str, path: &Path, source: io::Error) -> EdgeError {
    EdgeError::File { deed, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(listen: Listen) -> Gate {
        Gate { name: InstanceName::parse("a").unwrap(), listen, run: 1 }
    }

    #[test]
    fn opening_again_leads_to_the_new_socket_and_never_to_both() {
        let dir = tempfile::tempdir().unwrap();
        let gates = Gates::new(dir.path().join("gate"));
        assert!(gates.list().unwrap().is_empty());
        gates.open(&gate(Listen::Unix("/x/one".into()))).unwrap();
        gates.open(&gate(Listen::Unix("/x/two".into()))).unwrap();
        assert_eq!(fs::read_link(dir.path().join("gate/a.sock")).unwrap(), Path::new("/x/two"));
        gates.open(&gate(Listen::Tcp("127.0.0.1:9".parse().unwrap()))).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("gate")).unwrap().count(), 1);
        assert_eq!(gates.close(&gate(Listen::Unix("/x".into())).name).unwrap(), Closed::AfterAMoment);
        assert_eq!(gates.close(&gate(Listen::Unix("/x".into())).name).unwrap(), Closed::AtOnce);
        assert!(gates.list().unwrap().is_empty());
    }

    #[test]
    fn what_is_no_gate_is_not_listed_and_a_folder_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let gates = Gates::new(dir.path().to_owned());
        for odd in [".a.12", "A.sock", "acc.sock", "a.txt", "-.tcp"] {
            fs::write(dir.path().join(odd), "").unwrap();
        }
        assert!(gates.list().unwrap().is_empty());
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(Gates::new(dir.path().join("file")).list().is_err());
    }
}
