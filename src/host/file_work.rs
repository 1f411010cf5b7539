//! Work on files that may be slow: runs on a thread of its own, one job after the other, and the
//! caller waits only up to a limit.
//!
//! It decides nothing. A job that exceeds the limit continues and delays only later jobs.

use std::io;
use std::time::Duration;

use tokio::sync::Semaphore;

static TURN: Semaphore = Semaphore::const_new(1);

/// Runs a job; exceeding `limit`, which includes the wait for its turn, is an error.
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
