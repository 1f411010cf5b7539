//! Whether the application has begun to accept connections from the socket it was handed.
//!
//! A connect succeeds in any case and waits in the socket's queue. acc needs proof that the
//! application runs and accepts: until then it sends nothing that could be lost with it. So it
//! makes one connection that asks for nothing and closes its writing half. The process that accepts
//! it reads the end and closes it, and acc sees that at once. For an application that does not
//! accept at once, acc polls the length of the queue.

use std::io::ErrorKind;
use std::path::Path;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::backoff::Steps;
use crate::driver::activity::unaccepted;

/// Waits until this connection is accepted; `false`: the listener was closed before.
pub async fn is_taken(mut stream: UnixStream, path: &Path) -> bool {
    let _ = stream.shutdown().await;
    let mut steps = Steps::QUEUE;
    loop {
        if tokio::time::timeout(steps.pause(), stream.readable())
            .await
            .is_err()
        {
            if nothing_waits(path).await {
                return true;
            }
            continue;
        }
        match stream.try_read(&mut [0]) {
            Ok(_) => return true,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            // The kernel resets connections that were not accepted.
            Err(_) => return false,
        }
    }
}

/// No other client connects before the instance is ready: an empty queue means that this connection
/// was accepted.
async fn nothing_waits(path: &Path) -> bool {
    let path = path.to_owned();
    matches!(
        tokio::task::spawn_blocking(move || unaccepted(&path)).await,
        Ok(Some(0))
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_in_the_queue_is_not_yet_an_accepted_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut taken = Box::pin(is_taken(UnixStream::connect(&path).await.unwrap(), &path));
        assert!(
            tokio::time::timeout(Duration::from_millis(150), &mut taken)
                .await
                .is_err()
        );
        let (stream, _) = listener.accept().await.unwrap();
        // It has read nothing and closed nothing: the queue tells.
        assert!(
            tokio::time::timeout(Duration::from_secs(10), taken)
                .await
                .unwrap()
        );
        drop(stream);
    }

    #[tokio::test]
    async fn who_closes_what_he_accepted_is_heard_of_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let stream = UnixStream::connect(&path).await.unwrap();
        let taken = is_taken(stream, &path);
        let taking = async { drop(listener.accept().await.unwrap()) };
        assert!(tokio::join!(taken, taking).0);
    }

    #[tokio::test]
    async fn one_that_ends_before_it_accepts_has_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let stream = UnixStream::connect(&path).await.unwrap();
        let taken = is_taken(stream, &path);
        let ending = async { drop(listener) };
        assert!(!tokio::join!(taken, ending).0);
    }
}
