//! How long a client may take to send a body: a limit for each pause, and a minimum rate.
//!
//! Only the time spent waiting for the client counts: a slow instance makes no client slow. A
//! transfer without pauses does not touch the timer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Each byte adds this much time: a kilobyte a second. A slow link achieves that, an occasional
/// byte does not.
const BYTE: Duration = Duration::from_millis(1);

/// The limits of one body.
#[derive(Debug)]
pub(super) struct Patience {
    /// The longest pause, also before the first byte, and the most time that bytes can add.
    pause: Duration,
    /// How much waiting time is left, counted from `since` if that is set.
    left: Duration,
    /// Since when the body waits for the client.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(super) fn new(pause: Duration) -> Self {
        Self {
            pause,
            left: pause,
            since: None,
            timer: None,
        }
    }

    /// Records that this many bytes have arrived.
    pub(super) fn moved(&mut self, bytes: u64) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        let bought = BYTE.saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.left = self.left.saturating_add(bought).min(self.pause);
    }

    /// Called while nothing arrives. Ready once the client has taken too long.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let due = since + self.left;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        loop {
            // A timer that fires too early is set again; one that would fire too late is set at
            // once.
            if timer.deadline() > due || timer.is_elapsed() {
                timer.as_mut().reset(due);
            }
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// A client that sends `bytes` at once and every `pause`: how long it is borne, at most ten
    /// minutes.
    async fn borne(bytes: u64, pause: Duration) -> Duration {
        let mut patience = Patience::new(Duration::from_secs(60));
        let began = Instant::now();
        patience.moved(bytes);
        while began.elapsed() < Duration::from_secs(600) {
            if tokio::time::timeout(pause, poll_fn(|cx| patience.poll_over(cx)))
                .await
                .is_ok()
            {
                break;
            }
            patience.moved(bytes);
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_cut_and_a_slow_link_is_not() {
        let second = Duration::from_secs(1);
        assert!((59..62).contains(&borne(1, second * 6).await.as_secs()));
        assert!((110..130).contains(&borne(500, second).await.as_secs()));
        assert!(borne(1100, second).await >= second * 600);
        assert!(borne(200, second / 10).await >= second * 600);
        assert!((59..62).contains(&borne(1 << 20, second * 90).await.as_secs()));
        assert!(borne(1 << 20, second * 50).await >= second * 600);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_reads_does_not_count() {
        let mut patience = Patience::new(Duration::from_secs(60));
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(20)).await;
            assert!(
                poll_fn(|cx| Poll::Ready(patience.poll_over(cx)))
                    .await
                    .is_pending()
            );
            patience.moved(1);
        }
    }
}
