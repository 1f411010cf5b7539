//! Protects folders from cleaners of temporary files. `systemd-tmpfiles` skips a locked folder (BSD
//! lock, tmpfiles.d(5)); others (tmpreaper, tmpwatch, `find -mtime`) check the times of files.
//!
//! It makes and removes nothing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FlockOperation, Timespec, Timestamps, UTIME_NOW, flock, utimensat};

/// A locked folder; dropping it releases the lock.
#[derive(Debug)]
pub struct HeldFolder(File);

impl HeldFolder {
    /// Takes a shared lock on this folder.
    ///
    /// # Errors
    /// It cannot be opened, or a cleaner holds it exclusively.
    pub fn take(dir: &Path) -> io::Result<Self> {
        let file = File::open(dir)?;
        flock(&file, FlockOperation::NonBlockingLockShared)?;
        Ok(Self(file))
    }

    /// Whether this is the folder at that path.
    #[must_use]
    pub fn is_at(&self, dir: &Path) -> bool {
        let same = |one: &fs::Metadata, other: &fs::Metadata| {
            (one.dev(), one.ino()) == (other.dev(), other.ino())
        };
        matches!((self.0.metadata(), fs::symlink_metadata(dir)), (Ok(one), Ok(other)) if same(&one, &other))
    }
}

/// Sets the times of a folder and its entries (not below) to now, if they are older than this.
/// Skips what cannot be changed.
pub fn freshen(dir: &Path, older: Duration) {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    let entries = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    for path in std::iter::once(dir.to_owned()).chain(entries) {
        let modified = fs::symlink_metadata(&path).and_then(|found| found.modified());
        if modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > older)) {
            // Changes the link itself: its target may belong to any user.
            let _ = utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_folder_is_refused_to_a_cleaner_until_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        fs::create_dir(&path).unwrap();
        let held = HeldFolder::take(&path).unwrap();
        let _other = HeldFolder::take(&path).unwrap();
        let cleaner = File::open(&path).unwrap();
        assert!(flock(&cleaner, FlockOperation::NonBlockingLockExclusive).is_err());
        assert!(held.is_at(&path));
        fs::remove_dir(&path).unwrap();
        assert!(!held.is_at(&path));
        fs::create_dir(&path).unwrap();
        assert!(!held.is_at(&path) && HeldFolder::take(&path).unwrap().is_at(&path));
    }

    #[test]
    fn old_files_become_fresh_and_where_a_link_leads_nothing_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("run"), dir.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        let old = fs::metadata(&inside).unwrap().modified().unwrap() - Duration::from_secs(100_000);
        for path in [inside.join("old"), outside.clone()] {
            fs::write(&path, "").unwrap();
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let age = |path: &Path| {
            fs::metadata(path)
                .unwrap()
                .modified()
                .unwrap()
                .elapsed()
                .unwrap()
                .as_secs()
        };
        freshen(&inside, Duration::from_secs(200_000));
        assert!(age(&inside.join("old")) >= 100_000, "it was not old enough");
        freshen(&inside, Duration::ZERO);
        assert!(age(&inside.join("old")) < 1000 && age(&outside) >= 100_000);
    }
}
