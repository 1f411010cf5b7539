//! Tells when something new appears in a folder: one inotify for all folders, kept open as long as the probe is.
//!
//! One for each wait would be simpler, but closing it waits for a grace period of the kernel: 16 ms on the thread that was
//! about to pass the request on. Taking a single watch off does not wait. It never looks into a folder.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Room for some hundred events at a time.
const BUFFER: usize = 4096;

/// All folders that are watched just now.
#[derive(Debug, Clone, Default)]
pub struct Folders {
    /// Made at the first watch, and again when it broke.
    open: Arc<Mutex<Option<Open>>>,
}

#[derive(Debug)]
struct Open {
    watches: Watches,
    waiting: HashMap<WatchDescriptor, Vec<Arc<Notify>>>,
    reader: AbortHandle,
    /// The reader is gone, for whatever reason.
    ended: Arc<AtomicBool>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A folder that is watched.
#[derive(Debug)]
pub struct Watch {
    folders: Folders,
    /// `None`: it cannot be watched.
    on: Option<(WatchDescriptor, Arc<Notify>)>,
}

impl Folders {
    /// Watches the folder. When that is not possible (no folder, no watches left), waiting is by the clock alone.
    #[must_use]
    pub fn watch(&self, dir: &Path) -> Watch {
        let on = self.add(dir);
        if let Err(error) = &on {
            tracing::debug!(dir = %dir.display(), %error, "cannot watch the folder of a socket");
        }
        Watch { folders: self.clone(), on: on.ok() }
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, dir: &Path) -> std::io::Result<(WatchDescriptor, Arc<Notify>)> {
        let mut slot = self.open();
        let open = match &mut *slot {
            Some(open) if !open.ended.load(Ordering::Acquire) => open,
            // Those who wait on one that has ended look by the clock.
            other => other.insert(self.begin()?),
        };
        // The same folder has the same descriptor: whoever watches it already is not disturbed.
        let descriptor = open.watches.add(dir, WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ATTRIB)?;
        let told = Arc::new(Notify::new());
        open.waiting.entry(descriptor.clone()).or_default().push(told.clone());
        Ok((descriptor, told))
    }

    fn begin(&self) -> std::io::Result<Open> {
        let events = Inotify::init()?.into_event_stream([0; BUFFER])?;
        let watches = events.watches();
        let ended = Arc::default();
        let reader = tokio::spawn(read(events, Arc::downgrade(&self.open), Ended(Arc::clone(&ended)))).abort_handle();
        Ok(Open { watches, waiting: HashMap::new(), reader, ended })
    }
}

/// Says that the reader has ended, also when its runtime is gone.
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

async fn read(mut events: EventStream<[u8; BUFFER]>, folders: Weak<Mutex<Option<Open>>>, _ended: Ended) {
    while let Some(Ok(event)) = events.next().await {
        let Some(folders) = folders.upgrade() else { return };
        let open = folders.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = &*open else { return };
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            open.waiting.values().flatten().for_each(|told| told.notify_one());
        } else if let Some(waiting) = open.waiting.get(&event.wd) {
            waiting.iter().for_each(|told| told.notify_one());
        }
    }
}

impl Watch {
    /// Resolves when something appeared since the last time, or after `longest`.
    pub async fn change(&self, longest: Duration) {
        match &self.on {
            // A timer that has fired is as good an answer.
            Some((_, told)) => drop(tokio::time::timeout(longest, told.notified()).await),
            None => tokio::time::sleep(longest).await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some((descriptor, told)) = self.on.take() else { return };
        let mut slot = self.folders.open();
        let Some(open) = &mut *slot else { return };
        let Some(waiting) = open.waiting.get_mut(&descriptor) else { return };
        waiting.retain(|other| !Arc::ptr_eq(other, &told));
        if waiting.is_empty() {
            open.waiting.remove(&descriptor);
            // The folder may be gone, and its watch with it.
            let _ = open.watches.remove(descriptor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, timeout};

    const NEVER: Duration = Duration::from_secs(600);
    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_new_file_tells_everybody_who_watches_its_folder_and_nobody_else() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = Folders::default();
        let (first, second, elsewhere) = (folders.watch(dir.path()), folders.watch(dir.path()), folders.watch(other.path()));
        std::fs::write(dir.path().join("x"), "").unwrap();
        timeout(SOON, async { tokio::join!(first.change(NEVER), second.change(NEVER)) }).await.unwrap();
        drop(first);
        std::fs::write(dir.path().join("y"), "").unwrap();
        timeout(SOON, second.change(NEVER)).await.unwrap();
        assert!(timeout(Duration::from_millis(20), elsewhere.change(NEVER)).await.is_err());
        drop((second, elsewhere));
        assert!(folders.open().as_ref().unwrap().waiting.is_empty(), "nothing stays watched");
    }

    #[tokio::test]
    async fn a_missing_folder_does_not_hang() {
        let dir = tempfile::tempdir().unwrap();
        Folders::default().watch(&dir.path().join("missing")).change(Duration::from_millis(1)).await;
    }

    #[test]
    fn it_begins_anew_when_its_runtime_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::default();
        for n in 0..2 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let watch = folders.watch(dir.path());
                std::fs::write(dir.path().join(n.to_string()), "").unwrap();
                timeout(SOON, watch.change(NEVER)).await.unwrap();
            });
        }
    }

    #[tokio::test]
    async fn the_end_of_a_watch_does_not_wait_for_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::default();
        let _kept = folders.watch(dir.path());
        let mut took = Vec::new();
        for n in 0..9 {
            let sub = dir.path().join(n.to_string());
            std::fs::create_dir(&sub).unwrap();
            let watch = folders.watch(&sub);
            let began = Instant::now();
            drop(watch);
            took.push(began.elapsed());
        }
        took.sort();
        // 8 to 20 ms when it did; the best of nine, for a busy machine.
        assert!(took[0] < Duration::from_millis(2), "{took:?}");
    }
}
