//! One lock per name: starting, finding and forgetting the same name never overlap; different names
//! never wait for each other.
//!
//! The locks hold between tasks of this process. The owner lock ensures that only one process runs
//! verbs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// Locks by name; a name that is neither held nor waited for takes no memory.
#[derive(Debug, Default)]
pub(super) struct Locks {
    names: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Locks {
    /// Waits until the name is free.
    pub(super) async fn lock(&self, name: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            if names.len() > 256 {
                // A task that holds or awaits a lock has a second reference to it.
                names.retain(|_, lock| Arc::strong_count(lock) > 1);
            }
            Arc::clone(names.entry(name.to_owned()).or_default())
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_name_waits_and_others_do_not() {
        let locks = Locks::default();
        let held = locks.lock("a").await;
        let _other = locks.lock("b").await;
        assert!(futures_util::FutureExt::now_or_never(locks.lock("a")).is_none());
        drop(held);
        let _again = locks.lock("a").await;
        for n in 0..1000 {
            locks.lock(&n.to_string()).await;
        }
        assert!(locks.names.lock().unwrap().len() <= 258);
        assert!(
            futures_util::FutureExt::now_or_never(locks.lock("a")).is_none(),
            "held locks are not swept"
        );
    }
}
