//! Work on files that may take long: on a thread of its own, one piece after the other, and waited
//! for no longer than a limit.
//!
//! It decides nothing. A piece that takes longer goes on, and delays only the next ones, and
//! nothing else.

use std::io;
use std::time::Duration;

use tokio::sync::Semaphore;

static TURN: Semaphore = Semaphore::const_new(1);

/// Does it; past `limit` (the wait for the turn included) that is an error.
pub async fn file_work<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let all = async {
        let turn = TURN.acquire().await.map_err(io::Error::other)?;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.unwrap_or_else(|e| Err(io::Error::other(e)))
    };
    match tokio::time::timeout(limit, all).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the disk did not answer within {} s", limit.as_secs()),
        )),
    }
}
