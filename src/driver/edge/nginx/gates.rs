//! Gates as files: a link to the socket of the application, or a plain file for an instance on TCP.
//!
//! nginx derives the link's name from the instance's name, so opening and closing is one file
//! operation and never a reload. The name of a TCP gate includes the address: a worker whose map
//! still has a former port finds no gate for it and asks the wake server. Another program may have
//! that port by now.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::domain::gate::Gate;
use crate::domain::instance::Listen;
use crate::domain::name::InstanceName;
use crate::driver::edge::EdgeError;
use crate::host::fs::{make_dir, remove_file, write_atomic};
use crate::host::users::share_with;

/// The folder of all gates.
#[derive(Debug, Clone)]
pub struct Gates {
    dir: PathBuf,
    /// The group of nginx's workers, when acc is root and they run as another user.
    group: Option<u32>,
}

/// Whether the removed gate was one that nginx checks before it connects, instead of connecting
/// through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// No new connection arrives from now on.
    AtOnce,
    /// A worker may have passed the check already and be about to connect.
    AfterAMoment,
}

impl Gates {
    /// Keeps gates in `dir`, for workers of this group (`None`: they run as acc's user).
    #[must_use]
    pub fn new(dir: PathBuf, group: Option<u32>) -> Self {
        Self { dir, group }
    }

    /// Makes the folder. Workers need to enter it, not to list it.
    pub fn make(&self) -> Result<(), EdgeError> {
        if !self.dir.is_dir() {
            make_dir(&self.dir, 0o711).map_err(|e| failed("make", &self.dir, e))?;
            self.repair_access()?;
        }
        Ok(())
    }

    /// Makes the folder accessible to nginx's workers and to no instance. Returns `true` if it was
    /// not.
    pub fn repair_access(&self) -> Result<bool, EdgeError> {
        match self.group {
            Some(group) => share_with(&self.dir, group, 0o710)
                .map_err(|e| failed("give access for nginx's workers to", &self.dir, e)),
            None => Ok(false),
        }
    }

    fn link(&self, name: &InstanceName) -> PathBuf {
        self.dir.join(format!("{name}.sock"))
    }

    fn file(&self, name: &InstanceName, address: SocketAddr) -> PathBuf {
        self.dir.join(format!("{name}.{address}.tcp"))
    }

    /// All gate files of a TCP instance, also those for other addresses and those that an older acc
    /// made without an address.
    fn files(&self, name: &InstanceName) -> Result<Vec<PathBuf>, EdgeError> {
        let is_its = |file: &str| {
            file.strip_suffix(".tcp")
                .is_some_and(|stem| stem.split('.').next() == Some(name.as_str()))
        };
        let files = self.entries()?.into_iter().filter(|file| is_its(file));
        Ok(files.map(|file| self.dir.join(file)).collect())
    }

    /// Names in the folder; none if the folder is missing.
    fn entries(&self) -> Result<Vec<String>, EdgeError> {
        let read = || -> io::Result<Vec<String>> {
            fs::read_dir(&self.dir)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect()
        };
        match read() {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries.map_err(|e| failed("read", &self.dir, e)),
        }
    }

    /// Opens the gate. A name keeps its kind of gate for life; a TCP gate replaces those for other
    /// addresses.
    pub fn open(&self, gate: &Gate) -> Result<(), EdgeError> {
        self.make()?;
        match &gate.listen {
            Listen::Unix(socket) => {
                let path = self.link(&gate.name);
                self.relink(&gate.name, socket, &path)
                    .map_err(|e| failed("link", &path, e))
            }
            Listen::Tcp(address) => {
                let (path, link) = (self.file(&gate.name, *address), self.link(&gate.name));
                let others = self
                    .files(&gate.name)?
                    .into_iter()
                    .filter(|file| *file != path);
                others.chain([link]).try_for_each(|other| {
                    remove_file(&other).map_err(|e| failed("remove", &other, e))
                })?;
                write_atomic(&path, format!("{address}\n").as_bytes(), 0o644)
                    .map_err(|e| failed("write", &path, e))
            }
        }
    }

    /// Replaces the link by a rename, so that an open gate is never missing.
    fn relink(&self, name: &InstanceName, socket: &Path, path: &Path) -> io::Result<()> {
        if fs::read_link(path).is_ok_and(|target| target == socket) {
            return Ok(());
        }
        let beside = self.dir.join(format!(".{name}.new-{}", std::process::id()));
        remove_file(&beside)?;
        std::os::unix::fs::symlink(socket, &beside)?;
        fs::rename(&beside, path)
    }

    /// Closes the gate.
    pub fn close(&self, gate: &Gate) -> Result<Closed, EdgeError> {
        match &gate.listen {
            Listen::Unix(_) => self.unlink(&gate.name).map(|()| Closed::AtOnce),
            Listen::Tcp(_) => self.forget(&gate.name),
        }
    }

    fn unlink(&self, name: &InstanceName) -> Result<(), EdgeError> {
        let link = self.link(name);
        remove_file(&link).map_err(|e| failed("remove", &link, e))
    }

    /// Removes every gate of this name, of any kind and address.
    pub fn forget(&self, name: &InstanceName) -> Result<Closed, EdgeError> {
        self.unlink(name)?;
        let files = self.files(name)?;
        files
            .iter()
            .try_for_each(|file| remove_file(file).map_err(|e| failed("remove", file, e)))?;
        Ok(if files.is_empty() {
            Closed::AtOnce
        } else {
            Closed::AfterAMoment
        })
    }

    /// Names of all open gates, in order.
    pub fn list(&self) -> Result<Vec<InstanceName>, EdgeError> {
        let name_of = |file: &str| match file.strip_suffix(".tcp") {
            // A gate without an address leads nowhere.
            Some(stem) => stem
                .split_once('.')
                .and_then(|(name, _)| InstanceName::parse(name).ok()),
            None => file
                .strip_suffix(".sock")
                .and_then(|name| InstanceName::parse(name).ok()),
        };
        let mut names: Vec<InstanceName> = self
            .entries()?
            .iter()
            .filter_map(|file| name_of(file))
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> EdgeError {
    EdgeError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::Account;

    fn gate(listen: Listen) -> Gate {
        Gate {
            name: InstanceName::parse("a").unwrap(),
            listen,
            run: 1,
            process: None,
            account: Account::SameAsAcc,
        }
    }

    fn tcp(port: u16) -> Gate {
        gate(Listen::Tcp(([127, 0, 0, 1], port).into()))
    }

    #[test]
    fn opening_again_leads_to_the_new_place_and_never_to_both() {
        let dir = tempfile::tempdir().unwrap();
        let gates = Gates::new(dir.path().join("gate"), None);
        let files = || fs::read_dir(dir.path().join("gate")).unwrap().count();
        assert!(gates.list().unwrap().is_empty());
        gates.open(&gate(Listen::Unix("/x/one".into()))).unwrap();
        gates.open(&gate(Listen::Unix("/x/two".into()))).unwrap();
        assert_eq!(
            fs::read_link(dir.path().join("gate/a.sock")).unwrap(),
            Path::new("/x/two")
        );
        gates.open(&tcp(9)).unwrap();
        gates.open(&tcp(10)).unwrap();
        assert!(dir.path().join("gate/a.127.0.0.1:10.tcp").exists());
        assert_eq!((files(), gates.list().unwrap().len()), (1, 1));
        assert_eq!(gates.close(&tcp(10)).unwrap(), Closed::AfterAMoment);
        assert_eq!(gates.close(&tcp(10)).unwrap(), Closed::AtOnce);
        assert!(gates.list().unwrap().is_empty());
    }

    #[test]
    fn every_gate_of_a_name_is_forgotten_and_none_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let gates = Gates::new(dir.path().to_owned(), None);
        for file in [
            "a.127.0.0.1:9.tcp",
            "a.127.0.0.1:10.tcp",
            "a.tcp",
            "a.sock",
            "aa.127.0.0.1:9.tcp",
            "b.a.tcp",
        ] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        gates.forget(&tcp(1).name).unwrap();
        let mut left = gates.entries().unwrap();
        left.sort();
        assert_eq!(left, ["aa.127.0.0.1:9.tcp", "b.a.tcp"]);
    }

    #[test]
    fn what_is_no_gate_is_not_listed_and_a_folder_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let gates = Gates::new(dir.path().to_owned(), None);
        for odd in [".a.12", "A.sock", "acc.sock", "a.txt", "-.1.tcp", "a.tcp"] {
            fs::write(dir.path().join(odd), "").unwrap();
        }
        assert!(gates.list().unwrap().is_empty());
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(Gates::new(dir.path().join("file"), None).list().is_err());
    }
}
