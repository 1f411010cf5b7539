//! Reports when something appears in a folder: one inotify instance for all wakes.
//!
//! Only one, because closing an inotify instance waits for the kernel's grace period, 4 to 20 ms in
//! which a runtime thread is blocked. Removing a single watch does not. It decides nothing: a
//! notified task checks for itself.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Notifies the tasks that wait for a folder.
type WatchSenders = HashMap<WatchDescriptor, watch::Sender<()>>;

#[derive(Debug)]
struct OpenInotify {
    watches: Watches,
    reader: AbortHandle,
}

#[derive(Debug, Default)]
struct InotifyState {
    /// Opened at the first wait. If the host's limit of inotify instances is reached, the next wait
    /// tries again.
    open: Option<OpenInotify>,
    watched: WatchSenders,
}

/// The watcher of all folders.
#[derive(Debug, Clone, Default)]
pub struct Watcher {
    state: Arc<Mutex<InotifyState>>,
}

impl Watcher {
    fn state(&self) -> MutexGuard<'_, InotifyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the folder from now on. If that is not possible (no folder, no watches left),
    /// waiting falls back to a timer.
    #[must_use]
    pub fn watch(&self, dir: &Path) -> Watch {
        let place = self.add(dir);
        if let Err(error) = &place {
            tracing::debug!(dir = %dir.display(), %error, "cannot watch the folder of a socket");
        }
        Watch {
            place: place.ok(),
            watcher: self.clone(),
        }
    }

    fn add(&self, dir: &Path) -> io::Result<(WatchDescriptor, watch::Receiver<()>)> {
        let mut state = self.state();
        // A reader that has ended, with its runtime, notifies no task any more.
        let mut open = match state.open.take().filter(|open| !open.reader.is_finished()) {
            Some(open) => open,
            None => self.open()?,
        };
        let mask = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ATTRIB;
        let added = open.watches.add(dir, mask);
        state.open = Some(open);
        let at = added?;
        let changes = state.watched.entry(at.clone()).or_default().subscribe();
        Ok((at, changes))
    }

    fn open(&self) -> io::Result<OpenInotify> {
        let inotify = Inotify::init()?;
        let watches = inotify.watches();
        let events = inotify.into_event_stream([0; 4096])?;
        let state = Arc::downgrade(&self.state);
        let reader = tokio::spawn(async move {
            let tell = |at: &WatchDescriptor| {
                let Some(state) = state.upgrade() else { return };
                let state = state.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(changes) = state.watched.get(at) {
                    changes.send_replace(());
                }
            };
            read(events, tell).await;
        });
        Ok(OpenInotify {
            watches,
            reader: reader.abort_handle(),
        })
    }
}

/// Reads until the kernel closes the stream.
async fn read(mut events: EventStream<[u8; 4096]>, tell: impl Fn(&WatchDescriptor)) {
    while let Some(Ok(event)) = events.next().await {
        tell(&event.wd);
    }
}

impl Drop for InotifyState {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.reader.abort();
        }
    }
}

/// A wait for changes in one folder.
#[derive(Debug)]
pub struct Watch {
    place: Option<(WatchDescriptor, watch::Receiver<()>)>,
    watcher: Watcher,
}

impl Watch {
    /// Resolves when something has appeared since the watch began or since the last call, or after
    /// `longest`.
    pub async fn change(&mut self, longest: Duration) {
        let unreported = match &mut self.place {
            Some((_, changes)) => tokio::time::timeout(longest, changes.changed())
                .await
                .is_ok_and(|reported| reported.is_err()),
            None => true,
        };
        if unreported {
            tokio::time::sleep(longest).await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some((at, changes)) = self.place.take() else {
            return;
        };
        let mut state = self.watcher.state();
        drop(changes);
        if state
            .watched
            .get(&at)
            .is_some_and(|changes| changes.receiver_count() == 0)
        {
            state.watched.remove(&at);
            if let Some(open) = &mut state.open {
                // An error: the folder is gone, and the watch with it.
                let _ = open.watches.remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    async fn soon(wait: impl Future<Output = ()>) {
        tokio::time::timeout(Duration::from_secs(10), wait)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_new_file_ends_every_wait_for_its_folder_and_no_other() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let watcher = Watcher::default();
        let (mut first, mut second) = (watcher.watch(dir.path()), watcher.watch(dir.path()));
        let mut elsewhere = watcher.watch(other.path());
        std::fs::write(dir.path().join("x"), "").unwrap();
        soon(async {
            tokio::join!(first.change(LONG), second.change(LONG));
        })
        .await;
        assert!(
            tokio::time::timeout(Duration::from_millis(1), elsewhere.change(LONG))
                .await
                .is_err()
        );
        drop(first);
        std::fs::write(dir.path().join("y"), "").unwrap();
        soon(second.change(LONG)).await;
        drop(second);
        drop(elsewhere);
        assert!(watcher.state().watched.is_empty());
    }

    #[tokio::test]
    async fn a_folder_that_is_missing_or_goes_away_does_not_hang() {
        let watcher = Watcher::default();
        let dir = tempfile::tempdir().unwrap();
        watcher
            .watch(&dir.path().join("missing"))
            .change(Duration::from_millis(1))
            .await;
        let mut gone = watcher.watch(dir.path());
        drop(dir);
        gone.change(Duration::from_millis(50)).await;
    }
}
