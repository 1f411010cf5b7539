//! Reports when something is removed from a folder, or the folder itself: by inotify, without
//! polling.
//!
//! It does not report what: the receiver checks for itself. Where nothing can be watched it never
//! reports.

use std::io;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use inotify::{EventStream, Inotify, WatchMask};

/// A watched folder.
#[derive(Debug)]
pub struct WatchedFolder {
    path: PathBuf,
    events: Option<EventStream<[u8; 4096]>>,
}

impl WatchedFolder {
    /// Watches it from now on.
    #[must_use]
    pub fn watch(path: &Path) -> Self {
        let open = || -> io::Result<EventStream<[u8; 4096]>> {
            Inotify::init()?.into_event_stream([0; 4096])
        };
        let events = open()
            .inspect_err(|error| tracing::debug!(%error, "cannot watch a folder"))
            .ok();
        let folder = Self {
            path: path.to_owned(),
            events,
        };
        folder.renew();
        folder
    }

    /// Watches the folder that is at its path now, which may be another one than before.
    pub fn renew(&self) {
        let mask = WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVED_FROM
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        if let Some(events) = &self.events
            && let Err(error) = events.watches().add(&self.path, mask)
        {
            tracing::debug!(path = %self.path.display(), %error, "cannot watch the folder");
        }
    }

    /// Resolves when something was removed since the last call. Temporary files that acc renames do
    /// not count.
    pub async fn change(&mut self) {
        let Some(events) = &mut self.events else {
            return std::future::pending().await;
        };
        while let Some(event) = events.next().await {
            let own = |name: &std::ffi::OsStr| {
                [".new-", ".probe-"]
                    .iter()
                    .any(|part| name.to_string_lossy().contains(part))
            };
            match event {
                Ok(event) if event.name.as_deref().is_some_and(own) => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::debug!(%error, "can no longer watch a folder");
                    break;
                }
            }
        }
        self.events = None;
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    /// Longer than the kernel takes for anything.
    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_is_taken_away_is_told_and_acc_s_own_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        fs::create_dir(&path).unwrap();
        for name in ["a", "b", "c.new-7", ".probe-7"] {
            fs::write(path.join(name), "").unwrap();
        }
        let mut folder = WatchedFolder::watch(&path);
        fs::rename(path.join("c.new-7"), path.join("c")).unwrap();
        fs::remove_file(path.join(".probe-7")).unwrap();
        assert!(futures_util::FutureExt::now_or_never(folder.change()).is_none());
        fs::remove_file(path.join("a")).unwrap();
        tokio::time::timeout(SOON, folder.change()).await.unwrap();
        fs::remove_dir_all(&path).unwrap();
        tokio::time::timeout(SOON, folder.change()).await.unwrap();
        // One event for each file, and one for the folder.
        while futures_util::FutureExt::now_or_never(folder.change()).is_some() {}
        fs::create_dir(&path).unwrap();
        folder.renew();
        fs::write(path.join("d"), "").unwrap();
        fs::rename(path.join("d"), dir.path().join("d")).unwrap();
        tokio::time::timeout(SOON, folder.change()).await.unwrap();
    }
}
