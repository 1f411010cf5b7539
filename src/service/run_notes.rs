//! What a server knows of its run folder: the notes that lie there, the sockets and locks it holds.
//!
//! It tells what is gone and writes the notes again; all else is `run_folder`'s.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::config::{Booted, Config, in_force};
use crate::domain::name::InstanceName;
use crate::domain::time::Timestamp;
use crate::host::cleaners::{HeldFolder, freshen};
use crate::host::fs::{exists, write_atomic};
use crate::host::listen;
use crate::host::untrusted::{To, open};

/// Another worker has taken over by then.
const REPLACED_WITHIN: Duration = Duration::from_secs(10);
/// Files older than this get a new time stamp: cleaners remove them after days.
const OLD: Duration = Duration::from_secs(6 * 3600);
/// With ten thousand sleepers there are as many folders to check.
const FRESHEN_EVERY: Duration = Duration::from_secs(3600);

fn read(path: &Path) -> Option<Vec<u8>> {
    let (mut note, _) = open(path, To::Read).ok()?;
    let mut text = Vec::new();
    note.read_to_end(&mut text).ok()?;
    Some(text)
}

/// What a server knows of its run folder.
#[derive(Debug, Default)]
pub(super) struct RunFolder {
    /// Small files that say how acc was booted, as they were when they were last there.
    notes: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
    /// Sockets on which this server listens, and files that it or its master holds.
    pub(super) held: OnceLock<(Vec<PathBuf>, Vec<PathBuf>)>,
    /// The folder itself, against cleaners that respect that.
    folder: Mutex<Option<HeldFolder>>,
    /// When its files last got a new time stamp.
    freshened: AtomicU64,
    /// Until when another worker is expected to take over, with the sockets that were lost.
    replaced_until: AtomicU64,
}

impl RunFolder {
    pub(super) fn notes(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Vec<u8>>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This server listens on these unix sockets, and it or its master holds these files open.
    pub(super) fn set_held(&self, sockets: Vec<PathBuf>, files: Vec<PathBuf>) {
        let _ = self.held.set((sockets, files));
    }

    /// One of them that is gone. It takes a new worker to have it again.
    pub(super) fn lost(&self) -> Option<PathBuf> {
        let (sockets, files) = self.held.get()?;
        sockets
            .iter()
            .find(|path| listen::is_lost(path))
            .or_else(|| files.iter().find(|path| !exists(path)))
            .cloned()
    }

    /// Is another worker to take over, with sockets that this one does not have?
    pub(super) fn is_replaced(&self, now: Timestamp) -> bool {
        self.lost().is_some() || now.0 < self.replaced_until.load(Ordering::Relaxed)
    }

    pub(super) fn expect_replacement(&self, now: Timestamp) {
        self.replaced_until
            .store(now.after(REPLACED_WITHIN).0, Ordering::Relaxed);
    }

    /// This note is not there because acc has removed it.
    pub(super) fn forget(&self, note: &Path) {
        self.notes().remove(note);
    }

    /// Reads the notes that are there, or their copies in the home folder: a cleaner may have come
    /// before this server.
    pub(super) fn learn(&self, config: &Config) {
        let booted = config.booted();
        if booted != Booted::No {
            self.notes()
                .insert(config.booted_file(), booted.as_str().into());
        }
        let open_files = config.open_files_file();
        if let Some(text) = read(&open_files).or_else(|| read(&config.home_open_files_file())) {
            self.notes().insert(open_files, text);
        }
        for path in [in_force::file(&config.run), config.run.join("cgroup")] {
            if let Some(text) = read(&path) {
                self.notes().insert(path, text);
            }
        }
    }

    /// Writes those that are gone; their names.
    pub(super) fn write_lost(&self) -> std::io::Result<Vec<String>> {
        let mut written = Vec::new();
        for (path, text) in self.notes().iter().filter(|(path, _)| !exists(path)) {
            // Only acc reads where its control groups are.
            let mode = if path.ends_with("cgroup") {
                0o600
            } else {
                0o644
            };
            write_atomic(path, text, mode)?;
            written.extend(
                path.file_name()
                    .map(|name| format!("`{}`", name.to_string_lossy())),
            );
        }
        Ok(written)
    }

    /// Holds the folder, and now and then renews the time stamps of its files.
    pub(super) fn keep_cleaners_away(
        &self,
        config: &Config,
        now: Timestamp,
        awake: &[InstanceName],
    ) {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if !folder.as_ref().is_some_and(|held| held.is_at(&config.run)) {
            *folder = HeldFolder::take(&config.run)
                .inspect_err(|error| tracing::debug!(%error, "could not hold the run folder"))
                .ok();
        }
        drop(folder);
        let last = Timestamp(self.freshened.load(Ordering::Relaxed));
        if last != Timestamp(0) && now.since(last) < FRESHEN_EVERY {
            return;
        }
        self.freshened.store(now.0, Ordering::Relaxed);
        let sockets = awake.iter().map(|name| config.socket_dir(name.as_str()));
        for dir in [
            config.run.clone(),
            config.gate_dir(),
            config.pid_dir(),
            config.run.join("sock"),
        ]
        .into_iter()
        .chain(sockets)
        {
            freshen(&dir, OLD);
        }
    }
}
