//! The messages between a master and its worker: one byte each, over a connection that ends with
//! either of them.
//!
//! It never blocks the master: a worker that does not read loses only its own messages.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{SendFlags, send};
use tokio::net::UnixStream;

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app) enum Word {
    /// From the worker: settings, drivers and templates are valid; ready to take the owner's lock.
    Prepared,
    /// From the worker: it has the owner's lock and serves.
    Ready,
    /// From the worker: an upgrade is requested.
    Upgrade,
    /// From the master: release the owner's lock, and finish the current requests.
    Retire,
}

impl Word {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Prepared => b'p',
            Self::Ready => b'r',
            Self::Upgrade => b'u',
            Self::Retire => b'x',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Prepared, Self::Ready, Self::Upgrade, Self::Retire]
            .into_iter()
            .find(|word| word.byte() == byte)
    }
}

/// One end of the connection.
pub(in crate::app) struct Channel {
    stream: UnixStream,
}

impl Channel {
    /// Makes both ends; the second is for the worker.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (own, other) = std::os::unix::net::UnixStream::pair()?;
        Ok((Self::of(own.into())?, other.into()))
    }

    /// Uses an end that was left to this process. Call it inside a tokio runtime.
    pub(in crate::app) fn of(file: OwnedFd) -> io::Result<Self> {
        let stream = std::os::unix::net::UnixStream::from(file);
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: UnixStream::from_std(stream)?,
        })
    }

    /// Sends a message. It bypasses tokio, which would wait for an event first; there is always
    /// room.
    pub(in crate::app) fn say(&self, word: Word) {
        if let Err(error) = send(
            &self.stream,
            &[word.byte()],
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        ) {
            tracing::debug!(%error, ?word, "the other end is closed");
        }
    }

    /// Receives the next message; `None`: the other process has ended.
    pub(in crate::app) async fn hear(&self) -> Option<Word> {
        let mut byte = [0];
        loop {
            self.stream.readable().await.ok()?;
            match self.stream.try_read(&mut byte) {
                Ok(0) => return None,
                Ok(_) => match Word::of(byte[0]) {
                    Some(word) => return Some(word),
                    // A message of another version.
                    None => continue,
                },
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    }

    /// Its open file.
    pub(super) fn file(&self) -> &UnixStream {
        &self.stream
    }
}

/// The channel to the master; it is replaced when another master takes over.
pub(in crate::app) type MasterChannel = Arc<Mutex<Arc<Channel>>>;

/// The channel to the current master.
pub(in crate::app) fn current(channel: &MasterChannel) -> Arc<Channel> {
    channel
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn words_arrive_in_order_and_the_end_is_heard() {
        let (master, worker) = Channel::pair().unwrap();
        let worker = Channel::of(worker).unwrap();
        worker.say(Word::Prepared);
        worker.say(Word::Ready);
        assert_eq!(
            (master.hear().await, master.hear().await),
            (Some(Word::Prepared), Some(Word::Ready))
        );
        master.say(Word::Retire);
        assert_eq!(worker.hear().await, Some(Word::Retire));
        drop(worker);
        assert_eq!(master.hear().await, None);
        master.say(Word::Retire);
    }
}
