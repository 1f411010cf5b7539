//! How long to wait before looking again: growing steps, or until the folder of a socket changes.
//!
//! It never decides whether an instance is ready.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventStream, Inotify, WatchMask};

/// Growing pauses.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    next: Duration,
    /// In tenths.
    factor: u32,
    most: Duration,
}

impl Steps {
    /// For a TCP port, where nobody tells when it is bound.
    pub const PORT: Self = Self { next: Duration::from_micros(500), factor: 13, most: Duration::from_millis(25) };
    /// Between the bind of a socket and its listen, a few microseconds as a rule.
    pub const SOCKET: Self = Self { next: Duration::from_micros(200), factor: 15, most: Duration::from_millis(10) };
    /// For an application that answers, but not yet that it is well.
    pub const HEALTH: Self = Self { next: Duration::from_millis(1), factor: 15, most: Duration::from_millis(100) };

    /// The next pause; the one after it is longer.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * self.factor / 10).min(self.most);
        pause
    }
}

/// Waits. The runtime's timer counts in milliseconds, so a shorter pause is one turn of the others' work: the caller has
/// only few of them, since they grow.
pub async fn pause(by: Duration) {
    if by < Duration::from_millis(1) {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(by).await;
    }
}

/// Tells when something new appears in a folder.
pub struct Watch {
    events: Option<EventStream<[u8; 4096]>>,
}

impl Watch {
    /// Watches the folder. When that is not possible (no folder, no watches left), waiting is by the clock alone.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        let mask = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ATTRIB;
        let events = Inotify::init().and_then(|watcher| {
            watcher.watches().add(dir, mask)?;
            watcher.into_event_stream([0; 4096])
        });
        if let Err(error) = &events {
            tracing::debug!(dir = %dir.display(), %error, "cannot watch the folder of a socket");
        }
        Self { events: events.ok() }
    }

    /// Resolves when something appeared, or after `longest`.
    pub async fn change(&mut self, longest: Duration) {
        let told = async {
            match &mut self.events {
                Some(events) => events.next().await.is_some_and(|event| event.is_ok()),
                None => std::future::pending().await,
            }
        };
        // A stream that ends or fails is not asked again.
        if tokio::time::timeout(longest, told).await == Ok(false) {
            self.events = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut steps = Steps::PORT;
        let pauses: Vec<Duration> = (0..40).map(|_| steps.pause()).collect();
        assert_eq!(pauses[0], Duration::from_micros(500));
        assert!(pauses.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!(pauses[39], Duration::from_millis(25));
        let mut steps = Steps::SOCKET;
        assert!((0..100).map(|_| steps.pause()).filter(|p| *p < Duration::from_millis(1)).count() < 10);
    }

    #[tokio::test]
    async fn a_new_file_ends_the_wait_and_a_missing_folder_does_not_hang() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(dir.path());
        std::fs::write(dir.path().join("x"), "").unwrap();
        tokio::time::timeout(Duration::from_secs(10), watch.change(Duration::from_secs(600))).await.unwrap();
        Watch::new(&dir.path().join("missing")).change(Duration::from_millis(1)).await;
    }
}
