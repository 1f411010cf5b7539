//! Whose turn it is to start: so many at a time, and of those that wait, the one whose request came
//! first.
//!
//! In the order in which they happen to get here it would be unfair: of two hundred requests that
//! come at once, each of the runtime's threads takes a share and works through it on its own. It
//! starts nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::domain::time::Timestamp;

/// The starts under way and those that wait.
#[derive(Debug)]
pub(in crate::service) struct StartQueue {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    number: u64,
    /// By when they were asked for; those of the same moment in the order in which they got here.
    waiting: BTreeMap<(Timestamp, u64), oneshot::Sender<StartPermit>>,
}

/// A start that is under way; dropped, the next one's turn has come.
#[derive(Debug)]
pub(in crate::service) struct StartPermit {
    turns: Option<Arc<StartQueue>>,
}

impl StartQueue {
    pub(in crate::service) fn new(at_once: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                free: at_once,
                number: 0,
                waiting: BTreeMap::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn of a start that was asked for at this time. Dropped, it gives up its
    /// place.
    pub(in crate::service) async fn take(self: &Arc<Self>, asked: Timestamp) -> StartPermit {
        let come = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return StartPermit {
                    turns: Some(self.clone()),
                };
            }
            let (turn, come) = oneshot::channel();
            state.number += 1;
            let place = (asked, state.number);
            state.waiting.insert(place, turn);
            come
        };
        // Never dropped unsent while these turns exist; a start without a turn is merely not
        // counted.
        come.await.unwrap_or(StartPermit { turns: None })
    }

    fn next(self: Arc<Self>) {
        loop {
            let mut state = self.state();
            let Some((_, waiting)) = state.waiting.pop_first() else {
                state.free += 1;
                return;
            };
            drop(state);
            match waiting.send(StartPermit {
                turns: Some(self.clone()),
            }) {
                Ok(()) => return,
                // It has given up its place. Its turn must not end here as well: that would come
                // back to this line.
                Err(mut turn) => turn.turns = None,
            }
        }
    }
}

impl Drop for StartPermit {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            turns.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_asked_is_the_first_served_whoever_gets_here_first() {
        let turns = StartQueue::new(1);
        let first = turns.take(Timestamp(9)).await;
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for asked in [5, 3, 8, 3, 1] {
            let (turns, served) = (turns.clone(), served.clone());
            tasks.push(tokio::spawn(async move {
                let _turn = turns.take(Timestamp(asked)).await;
                served.lock().unwrap().push(asked);
            }));
            tokio::task::yield_now().await;
        }
        // One leaves before its turn.
        tasks.remove(2).abort();
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*served.lock().unwrap(), [1, 3, 3, 5]);
        assert_eq!(turns.state().free, 1);
    }

    #[tokio::test]
    async fn no_more_than_so_many_at_once() {
        let turns = StartQueue::new(2);
        let (one, _two) = (
            turns.take(Timestamp(1)).await,
            turns.take(Timestamp(1)).await,
        );
        let third = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(Timestamp(1)).await }
        });
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        drop(one);
        drop(third.await.unwrap());
        assert_eq!(turns.state().free, 1);
    }
}
