//! The edge `builtin`: acc's own listener. A gate is a name in memory, because the proxy asks the
//! service for every request anyway.
//!
//! It neither listens nor forwards; `proxy` does.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Edge, EdgeError, Gate, Route};
use crate::domain::name::InstanceName;

/// The connections that acc keeps to instances.
pub trait ConnectionPool: Send + Sync {
    /// Closes the connections of this run that carry no request. The others are closed when their
    /// request ends.
    fn close(&self, gate: &Gate);
    /// How many connections of this run are open and carry no request.
    fn pooled(&self, gate: &Gate) -> u32;
}

impl ConnectionPool for crate::driver::upstream::Upstreams {
    fn close(&self, gate: &Gate) {
        Self::close(self, gate);
    }
    fn pooled(&self, gate: &Gate) -> u32 {
        Self::pooled(self, gate)
    }
}

/// The builtin edge.
pub struct BuiltinEdge {
    pool: Arc<dyn ConnectionPool>,
    open: Mutex<BTreeSet<InstanceName>>,
}

impl BuiltinEdge {
    /// Makes the edge with all gates closed; `pool` holds the connections that requests go through.
    #[must_use]
    pub fn new(pool: Arc<dyn ConnectionPool>) -> Self {
        Self {
            pool,
            open: Mutex::default(),
        }
    }

    fn gates(&self) -> MutexGuard<'_, BTreeSet<InstanceName>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Edge for BuiltinEdge {
    fn kind(&self) -> &'static str {
        "builtin"
    }

    async fn prepare(&self, _: &[Route]) -> Result<(), EdgeError> {
        Ok(())
    }

    async fn apply(&self, _: &[Route]) -> Result<(), EdgeError> {
        // The proxy asks the service for the instance with every request: no route can be outdated.
        Ok(())
    }

    async fn open(&self, gate: &Gate) -> Result<(), EdgeError> {
        self.gates().insert(gate.name.clone());
        Ok(())
    }

    async fn close(&self, gate: &Gate) -> Result<(), EdgeError> {
        self.gates().remove(&gate.name);
        self.pool.close(gate);
        Ok(())
    }

    async fn open_gates(&self) -> Result<Vec<InstanceName>, EdgeError> {
        Ok(self.gates().iter().cloned().collect())
    }

    fn pooled(&self, gate: &Gate) -> u32 {
        self.pool.pooled(gate)
    }

    async fn forget(&self, name: &InstanceName) -> Result<(), EdgeError> {
        self.gates().remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::domain::account::Account;
    use crate::domain::instance::Listen;

    #[derive(Default)]
    struct CountingPool(AtomicU32);

    impl ConnectionPool for CountingPool {
        fn close(&self, _: &Gate) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        fn pooled(&self, gate: &Gate) -> u32 {
            u32::try_from(gate.run).unwrap()
        }
    }

    #[tokio::test]
    async fn closing_a_gate_drops_its_pool() {
        let pool = Arc::new(CountingPool::default());
        let edge = BuiltinEdge::new(pool.clone());
        let gate = Gate {
            name: InstanceName::parse("a").unwrap(),
            listen: Listen::Unix("/x".into()),
            run: 7,
            process: None,
            account: Account::SameAsAcc,
        };
        edge.open(&gate).await.unwrap();
        assert_eq!(edge.pooled(&gate), 7);
        edge.close(&gate).await.unwrap();
        assert_eq!(pool.0.load(Ordering::SeqCst), 1);
    }
}
