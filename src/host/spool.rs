//! A queue of bytes on disk: what a slow client has not received yet, or has sent so far.
//!
//! It has a limit for one queue and a limit for all. It never blocks the calling thread on the
//! disk, and leaves no file behind: its file has no name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// Most bytes of all queues.
const MOST_OF_ALL: u64 = 1 << 30;
/// How much is read back at once.
const PIECE: u64 = 64 * 1024;

/// The bytes of all queues.
static ALL: AtomicU64 = AtomicU64::new(0);

/// The bytes in order.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    most: u64,
    file: Option<Arc<File>>,
    read: u64,
    written: u64,
    /// What the disk did not accept; until it is gone, nothing more is accepted.
    last: Bytes,
}

impl Spool {
    /// An empty queue for about `most` bytes, which makes its file below `folder` when first
    /// needed.
    #[must_use]
    pub fn new(folder: PathBuf, most: u64) -> Self {
        Self {
            folder,
            most,
            file: None,
            read: 0,
            written: 0,
            last: Bytes::new(),
        }
    }

    /// The number of bytes in the queue.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.written - self.read + self.last.len() as u64
    }

    /// Whether the queue is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether more may be added now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.last.is_empty()
            && self.written < self.most
            && ALL.load(Ordering::Relaxed) < MOST_OF_ALL
    }

    /// Adds to the end. What the disk does not accept (it is full) stays in memory, and there is no
    /// room for more.
    pub async fn push(&mut self, bytes: Bytes) {
        match self.write(bytes.clone()).await {
            Ok(()) => {
                self.written += bytes.len() as u64;
                ALL.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::debug!(%error, "could not write to a spool file");
                self.last = bytes;
            }
        }
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        let (file, folder, at) = (self.file.clone(), self.folder.clone(), self.written);
        let written = tokio::task::spawn_blocking(move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(tempfile::tempfile_in(folder)?),
            };
            file.write_all_at(&bytes, at)?;
            Ok::<_, io::Error>(file)
        });
        self.file = Some(written.await.map_err(io::Error::other)??);
        Ok(())
    }

    /// Takes from the beginning; empty if there is nothing.
    ///
    /// # Errors
    /// The disk does not return what it accepted.
    pub async fn pop(&mut self) -> io::Result<Bytes> {
        let count = (self.written - self.read).min(PIECE);
        let Some(file) = self.file.clone().filter(|_| count > 0) else {
            return Ok(std::mem::take(&mut self.last));
        };
        let at = self.read;
        let piece = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; usize::try_from(count).unwrap_or(0)];
            file.read_exact_at(&mut piece, at)?;
            Ok::<_, io::Error>(piece)
        });
        let piece = piece.await.map_err(io::Error::other)??;
        self.read += count;
        ALL.fetch_sub(count, Ordering::Relaxed);
        if self.read == self.written {
            // Start from the beginning again, and free the room on the disk.
            (self.file, self.read, self.written) = (None, 0, 0);
        }
        Ok(piece.into())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        ALL.fetch_sub(self.written - self.read, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_come_out_in_their_order_and_no_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path().to_owned(), 1 << 20);
        let text: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut out = Vec::new();
        for (nth, piece) in text.chunks(30_000).enumerate() {
            spool.push(Bytes::copy_from_slice(piece)).await;
            if nth % 3 == 2 {
                out.extend_from_slice(&spool.pop().await.unwrap());
            }
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
        while !spool.is_empty() {
            out.extend_from_slice(&spool.pop().await.unwrap());
        }
        assert!(out == text && spool.pop().await.unwrap().is_empty() && spool.has_room());
    }

    #[tokio::test]
    async fn without_room_on_the_disk_one_piece_waits_in_memory() {
        let mut spool = Spool::new("/proc/nowhere".into(), 1 << 20);
        spool.push(Bytes::from_static(b"one")).await;
        assert!(!spool.has_room() && spool.len() == 3);
        assert_eq!(spool.pop().await.unwrap(), "one");
        assert!(spool.is_empty() && spool.has_room());
    }
}
