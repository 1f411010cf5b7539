//! nginx's configuration as files: the text in force, the new one beside it, and the mark that a
//! reload is due. What is in them is decided elsewhere.

use std::io;
use std::path::PathBuf;

use super::super::EdgeError;
use super::{Nginx, failed};
use crate::host::fs::{remove_file, write_atomic};

impl Nginx {
    /// The new text while it is being checked.
    pub(super) fn beside(&self) -> PathBuf {
        self.config().nginx_dir().join("nginx.conf.next")
    }

    /// The mark that the file is newer than what nginx runs with.
    pub(super) fn due(&self) -> PathBuf {
        self.config().nginx_dir().join("reload.due")
    }

    /// The text in force; `None`: there is none yet.
    pub(super) fn present(&self) -> Result<Option<String>, EdgeError> {
        let path = self.file();
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("read", &path, e)),
        }
    }

    /// Puts the checked text in place.
    pub(super) fn put_in_place(&self) -> Result<(), EdgeError> {
        let file = self.file();
        std::fs::rename(self.beside(), &file).map_err(|e| failed("write", &file, e))
    }

    /// Says in a file that a reload is due, so that it is made up for when acc is killed before it.
    pub(super) fn mark_due(&self) -> Result<(), EdgeError> {
        let due = self.due();
        write_atomic(&due, b"", 0o644).map_err(|e| failed("write", &due, e))
    }

    pub(super) fn unmark_due(&self) -> Result<(), EdgeError> {
        let due = self.due();
        remove_file(&due).map_err(|e| failed("remove", &due, e))
    }
}
