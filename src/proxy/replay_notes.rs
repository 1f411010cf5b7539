//! Behind nginx: which requests have been sent on to an application, in a file that outlives the
//! process. When this process is killed, nginx asks the next one about them, and that knows whether
//! the application may have seen them.
//!
//! Only what may not be sent twice is noted, before its first byte is sent. It is written for the
//! death of the process, not of the host: a power cut ends the applications too. It decides
//! nothing: `receive` does, by the notes of others.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::host::fs as host_fs;

/// Bytes of an id.
const ID: usize = 16;
/// A file that has grown to this many notes is written anew with those that still count.
const NOTES_MAX: usize = 4096;
/// nginx no longer asks about requests as old as this.
const OLD: Duration = Duration::from_secs(2 * 3600);

/// Within this, an answer has reached nginx.
const ANSWER_ARRIVES: Duration = Duration::from_secs(10);

/// A request's id, as nginx made it.
pub type RequestId = [u8; ID];

/// Reads an id of 32 hexadecimal digits.
#[must_use]
pub fn request_id(text: &str) -> Option<RequestId> {
    if text.len() != ID * 2 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut id = [0; ID];
    for (place, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(place * 2..place * 2 + 2)?, 16).ok()?;
    }
    Some(id)
}

/// The notes of this process, and the folder with those of others.
#[derive(Debug)]
pub struct ReplayNotes {
    dir: PathBuf,
    path: PathBuf,
    notes: Mutex<NotesFile>,
}

#[derive(Debug)]
struct NotesFile {
    file: File,
    written: usize,
    open: HashSet<RequestId>,
}

impl ReplayNotes {
    /// Where this process has its notes.
    #[must_use]
    pub fn file_of_this_process(dir: &Path) -> PathBuf {
        dir.join(std::process::id().to_string())
    }

    /// Begins the notes of this process in `dir`, which is made; those of others that are old go.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
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
        let path = Self::file_of_this_process(dir);
        host_fs::make_file(&path, 0o600)?;
        let file = OpenOptions::new().append(true).open(&path)?;
        Ok(Self {
            dir: dir.to_owned(),
            path,
            notes: Mutex::new(NotesFile {
                file,
                written: 0,
                open: HashSet::new(),
            }),
        })
    }

    /// Notes that this request is about to be sent.
    ///
    /// # Errors
    /// It could not be written down.
    pub fn note(&self, id: RequestId) -> io::Result<()> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.written >= NOTES_MAX && notes.open.len() < NOTES_MAX / 2 {
            let left: Vec<u8> = notes.open.iter().flatten().copied().collect();
            host_fs::write_atomic(&self.path, &left, 0o600)?;
            notes.file = OpenOptions::new().append(true).open(&self.path)?;
            notes.written = notes.open.len();
        }
        notes.open.insert(id);
        notes.written += 1;
        notes.file.write_all(&id)
    }

    /// The request was not seen, or is answered: its note is not needed any more.
    pub fn done(&self, id: RequestId) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.open.remove(&id);
        if notes.open.is_empty() && notes.file.set_len(0).is_ok() {
            notes.written = 0;
        }
    }

    /// Was it noted, by this process or by one that has been killed since? A file that cannot be
    /// read may hold it.
    #[must_use]
    pub fn was_noted(&self, id: RequestId) -> bool {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return true;
        };
        entries.flatten().any(|entry| match fs::read(entry.path()) {
            Ok(notes) => notes.chunks_exact(ID).any(|note| note == id),
            Err(e) => e.kind() != io::ErrorKind::NotFound,
        })
    }
}

impl Drop for ReplayNotes {
    /// An orderly end: everything noted is answered.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A request that may not be sent twice is on its way to an instance; dropped when its answer is on
/// the way back.
pub(super) struct ReplayNote {
    notes: Arc<ReplayNotes>,
    id: RequestId,
    seen: bool,
}

impl ReplayNote {
    /// Notes the request.
    ///
    /// # Errors
    /// It could not be noted, so it must not be sent.
    pub(super) fn note(notes: &Arc<ReplayNotes>, id: RequestId) -> io::Result<Option<Self>> {
        notes.note(id)?;
        Ok(Some(Self {
            notes: notes.clone(),
            id,
            seen: true,
        }))
    }

    /// The instance was not reached.
    pub(super) fn unseen(mut self) {
        self.seen = false;
        self.notes.done(self.id);
    }
}

impl Drop for ReplayNote {
    fn drop(&mut self) {
        if !self.seen {
            return;
        }
        let (notes, id) = (self.notes.clone(), self.id);
        tokio::spawn(async move {
            // Not before nginx has the answer for certain.
            tokio::time::sleep(ANSWER_ARRIVES).await;
            notes.done(id);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_whole_or_not_at_all() {
        assert_eq!(
            request_id("00ff000000000000000000000000000a").unwrap()[..2],
            [0, 255]
        );
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

    #[test]
    fn notes_are_there_until_done_and_those_of_others_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let notes = ReplayNotes::begin(dir.path()).unwrap();
        let (one, two) = ([1; 16], [2; 16]);
        assert!(!notes.was_noted(one));
        notes.note(one).unwrap();
        assert!(notes.was_noted(one) && !notes.was_noted(two));
        fs::write(dir.path().join("1"), [[3_u8; 16], two].concat()).unwrap();
        assert!(notes.was_noted(two));
        notes.done(one);
        assert!(!notes.was_noted(one));
        drop(notes);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let notes = ReplayNotes::begin(dir.path()).unwrap();
        let id = |n: u32| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_ne_bytes());
            id
        };
        notes.note(id(u32::MAX)).unwrap();
        for n in 0..10_000 {
            notes.note(id(n)).unwrap();
            notes.done(id(n));
        }
        assert!(fs::metadata(&notes.path).unwrap().len() <= (NOTES_MAX * ID + ID) as u64);
        assert!(notes.was_noted(id(u32::MAX)) && !notes.was_noted(id(0)));
    }
}
