//! The database contains secret parameters: no other user may read it, from the start. A process
//! that has a file open can still read it after its mode was changed.
//!
//! It never opens an existing database: closing it would release SQLite's locks in this process.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::store::error::StoreError;

/// Only acc's user has access.
const MODE: u32 = 0o600;

/// Makes the database's file, empty, before SQLite would; removes other users' permissions from an
/// existing one. The log and the index beside it get the same mode.
pub(super) fn make(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path);
    let done = match made {
        // The umask may have cleared more bits.
        Ok(file) => file.set_permissions(Permissions::from_mode(MODE)),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => restrict(path, true),
        Err(e) => Err(e),
    };
    let beside = ["-wal", "-shm"].map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    });
    done.and_then(|()| beside.iter().try_for_each(|file| restrict(file, false)))
        .map_err(|e| match e.kind() {
            ErrorKind::PermissionDenied => StoreError::Forbidden(path.to_owned()),
            ErrorKind::StorageFull => StoreError::Full(path.to_owned()),
            _ => StoreError::Unusable {
                path: path.to_owned(),
                why: e.to_string(),
            },
        })
}

fn restrict(path: &Path, needed: bool) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            fs::set_permissions(path, Permissions::from_mode(MODE))
        }
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound && !needed => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::SqliteStore;
    use super::*;

    fn modes(path: &Path) -> Vec<u32> {
        let all = ["", "-wal", "-shm"].map(|end| PathBuf::from(format!("{}{end}", path.display())));
        all.iter()
            .filter_map(|path| fs::metadata(path).ok())
            .map(|found| found.permissions().mode() & 0o777)
            .collect()
    }

    #[test]
    fn nobody_else_can_open_it_from_its_first_moment_on() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..20 {
            let path = dir.path().join(format!("{n}.db"));
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let spy = scope.spawn(|| {
                    let mut seen = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        seen.extend(modes(&path));
                        seen.dedup();
                    }
                    seen
                });
                let store = SqliteStore::open(&path).unwrap();
                assert_eq!(modes(&path), [MODE; 3]);
                drop(store);
                over.store(true, Ordering::Relaxed);
                assert!(spy.join().unwrap().iter().all(|mode| *mode == MODE));
            });
        }
    }

    #[test]
    fn one_that_others_could_open_is_closed_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let before = SqliteStore::open(&path).unwrap();
        for end in ["", "-wal", "-shm"] {
            fs::set_permissions(
                format!("{}{end}", path.display()),
                Permissions::from_mode(0o644),
            )
            .unwrap();
        }
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(modes(&path), [MODE; 3]);
        drop((before, store));
        let link = dir.path().join("link.db");
        std::os::unix::fs::symlink(dir.path().join("nothing"), &link).unwrap();
        assert!(matches!(
            SqliteStore::open(&link),
            Err(StoreError::Unusable { .. })
        ));
        assert!(!dir.path().join("nothing").exists());
    }
}
