//! A connection to a unix socket. It asks the reactor for readability, and for room to write only
//! after a write had to wait. The kernel reports room each time the peer has read; for a proxy that
//! would wake a thread with every request for nothing.
//!
//! It decides nothing. It never waits for a connect: the kernel completes it at once or refuses it.

use std::io::{self, IoSlice, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// The connection.
pub(super) struct Local {
    reading: AsyncFd<LocalSocket>,
    /// The same socket again, once a write has had to wait.
    writing: Option<AsyncFd<OwnedFd>>,
}

struct LocalSocket(UnixStream);

impl AsRawFd for LocalSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Local {
    /// Registers a connection with the runtime of the caller.
    ///
    /// # Errors
    /// It cannot be made non-blocking or watched.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        #[expect(unsafe_code, reason = "tokio registers descriptors only unsafely")]
        // SAFETY: the stream returns the same descriptor every time and keeps it open until the
        // `AsyncFd` that owns it is dropped.
        let reading =
            unsafe { AsyncFd::register_with_interest(LocalSocket(stream), Interest::READABLE) }?;
        Ok(Self {
            reading,
            writing: None,
        })
    }

    fn stream(&self) -> &UnixStream {
        &self.reading.get_ref().0
    }

    /// Writes until there is no room, then waits for it.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&mut &UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write(&mut self.stream()) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_room(cx))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let writing = match &mut self.writing {
            Some(writing) => writing,
            none => {
                let again = self.reading.get_ref().0.as_fd().try_clone_to_owned()?;
                #[expect(unsafe_code, reason = "as for reading")]
                // SAFETY: `OwnedFd` returns the same descriptor every time and keeps it open until
                // it is dropped.
                none.insert(unsafe { AsyncFd::register_with_interest(again, Interest::WRITABLE) }?)
            }
        };
        let mut ready = ready!(writing.poll_write_ready(cx))?;
        // The next try consumes this event; room that appears later is a new event.
        ready.clear_ready();
        Poll::Ready(Ok(()))
    }
}

impl AsFd for Local {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream().as_fd()
    }
}

impl AsyncRead for Local {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.reading.poll_read_ready(cx))?;
            #[expect(
                unsafe_code,
                reason = "room that was not written to yet, in which nothing is zeroed"
            )]
            // SAFETY: only the kernel writes there.
            let room = unsafe { buf.unfilled_mut() };
            let all = room.len();
            let got = match recv(self.stream(), room, RecvFlags::DONTWAIT) {
                Ok((read, _)) => read.0.len(),
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(Errno::INTR) => continue,
                Err(e) => return Poll::Ready(Err(e.into())),
            };
            #[expect(unsafe_code, reason = "the other half")]
            // SAFETY: the kernel has written so many bytes.
            unsafe {
                buf.assume_init(got);
            }
            buf.advance(got);
            if got > 0 && got < all {
                // Nothing is left: the next bytes are a new event.
                ready.clear_ready();
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Local {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().write(cx, |stream| stream.write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .write(cx, |stream| stream.write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // sockets have no buffer of their own to flush
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn pair() -> (Local, Local) {
        let (one, other) = UnixStream::pair().unwrap();
        (Local::new(one).unwrap(), Local::new(other).unwrap())
    }

    #[tokio::test]
    async fn what_is_written_arrives_whole_whoever_is_slower() {
        let (mut one, other) = pair();
        // Far more than the kernel keeps: the writer has to wait, again and again.
        let sent: Vec<u8> = (0..4_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut slow = tokio::io::BufReader::with_capacity(7_001, other);
        let reading = async {
            let mut got = Vec::new();
            slow.read_to_end(&mut got).await.unwrap();
            got
        };
        let writing = async {
            one.write_all(&sent).await.unwrap();
            one.shutdown().await.unwrap();
            assert!(one.writing.is_some());
        };
        let (got, ()) = tokio::time::timeout(Duration::from_secs(60), async {
            tokio::join!(reading, writing)
        })
        .await
        .unwrap();
        assert!(got == sent);
    }

    #[tokio::test]
    async fn bytes_that_come_one_by_one_are_read_one_by_one() {
        let (mut one, mut other) = pair();
        let mut room = [0; 100];
        for n in 1..=200_u8 {
            let reading = async {
                tokio::task::yield_now().await;
                other.read(&mut room).await.unwrap()
            };
            let writing = async {
                // First the reader finds nothing, then it gets an event.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                one.write_all(&[n]).await.unwrap();
            };
            let (got, ()) = tokio::time::timeout(Duration::from_secs(20), async {
                tokio::join!(reading, writing)
            })
            .await
            .unwrap();
            assert_eq!((got, room[0]), (1, n));
        }
        assert!(one.writing.is_none(), "there was always room");
        drop(one);
        assert_eq!(other.read(&mut room).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn who_has_left_is_an_error_for_the_writer() {
        let (mut one, other) = pair();
        drop(other);
        assert_eq!(
            one.write_all(b"x").await.unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }
}
