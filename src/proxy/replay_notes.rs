//! Behind nginx: records which requests were sent to an application, in files that outlive the
//! process. If this process is killed, nginx asks the next one, and that knows whether the
//! application may have read the request.
//!
//! Only requests that must not be sent twice are recorded, before their first byte is sent. The
//! files need not survive a power cut, which ends the applications too. `receive` decides what
//! follows from them.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::fs as host_fs;

/// nginx no longer repeats requests as old as this.
const OLD: Duration = Duration::from_secs(2 * 3600);

/// A response has reached nginx within this time.
const ANSWER_ARRIVES: Duration = Duration::from_secs(10);

/// A request's id, as nginx made it: 32 hexadecimal digits.
pub type RequestId = Box<str>;

/// Parses an id.
#[must_use]
pub fn request_id(text: &str) -> Option<RequestId> {
    (text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())).then(|| text.into())
}

/// The folder with the notes of all processes: an empty file for each request.
#[derive(Debug)]
pub struct ReplayNotes {
    dir: PathBuf,
}

impl ReplayNotes {
    /// Uses `dir`, which is created if it is missing, and removes old notes from it.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn begin(dir: &Path) -> io::Result<Self> {
        host_fs::make_dir(dir, 0o700)?;
        for entry in fs::read_dir(dir)?.flatten() {
            let age = entry
                .metadata()
                .and_then(|m| m.modified())
                .map(|at| at.elapsed().unwrap_or_default());
            if age.is_ok_and(|age| age > OLD) {
                let _ = fs::remove_file(entry.path());
            }
        }
        let dir = dir.to_owned();
        Ok(Self { dir })
    }

    /// Records that this request is about to be sent.
    ///
    /// # Errors
    /// It could not be recorded, so it must not be sent.
    pub(super) fn note(&self, id: &RequestId) -> io::Result<ReplayNote> {
        let path = self.dir.join(&**id);
        let make = || {
            let mut file = OpenOptions::new();
            file.append(true).create(true).mode(0o600).open(&path)
        };
        match make() {
            // A cleaner has removed the folder.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                host_fs::make_dir(&self.dir, 0o700)?;
                make()?;
            }
            made => drop(made?),
        }
        Ok(ReplayNote { path, seen: true })
    }

    /// Whether it was recorded, by this process or by one that was killed since. `true` if that
    /// cannot be determined.
    #[must_use]
    pub fn was_noted(&self, id: &RequestId) -> bool {
        match fs::symlink_metadata(self.dir.join(&**id)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => !self.dir.is_dir(),
            _ => true,
        }
    }
}

/// Marks a request that must not be sent twice as sent to an instance; dropped when its response is
/// on the way back.
pub(super) struct ReplayNote {
    path: PathBuf,
    seen: bool,
}

impl ReplayNote {
    /// The instance was not reached: removes the record.
    pub(super) fn unseen(mut self) {
        self.seen = false;
    }
}

impl Drop for ReplayNote {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        if !self.seen {
            let _ = fs::remove_file(path);
            return;
        }
        tokio::spawn(async move {
            // Not before nginx certainly has the response.
            tokio::time::sleep(ANSWER_ARRIVES).await;
            let _ = fs::remove_file(path);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_whole_or_not_at_all() {
        let id = "00ff000000000000000000000000000a";
        assert_eq!(request_id(id).as_deref(), Some(id));
        for wrong in [
            "",
            "00ff",
            "00ff00000000000000000000000000zz",
            "+0ff000000000000000000000000000a",
            "é0ff00000000000000000000000000a",
        ] {
            assert_eq!(request_id(wrong), None, "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn notes_are_there_until_the_answer_is_and_others_find_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sent");
        let (notes, other) = (
            ReplayNotes::begin(&path).unwrap(),
            ReplayNotes::begin(&path).unwrap(),
        );
        let [one, two] = ["1", "2"].map(|digit| request_id(&digit.repeat(32)).unwrap());
        assert!(!other.was_noted(&one));
        let note = notes.note(&one).unwrap();
        assert!(other.was_noted(&one) && !other.was_noted(&two));
        // It was not reached, and is asked again.
        note.unseen();
        assert!(!other.was_noted(&one));
        drop(notes.note(&one).unwrap());
        assert!(other.was_noted(&one), "its answer may not have arrived");
        tokio::time::sleep(ANSWER_ARRIVES * 2).await;
        assert!(!other.was_noted(&one));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        // What cannot be read may hold it, and what is to be sent is noted.
        fs::remove_dir(&path).unwrap();
        assert!(other.was_noted(&one));
        let _note = notes.note(&two).unwrap();
        assert!(other.was_noted(&two) && !other.was_noted(&one));
    }

    #[test]
    fn old_notes_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        for (name, age) in [("old", OLD * 2), ("new", OLD / 2)] {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            let made = file.metadata().unwrap().modified().unwrap();
            file.set_modified(made - age).unwrap();
        }
        ReplayNotes::begin(dir.path()).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].file_name(), "new");
    }
}
