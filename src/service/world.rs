//! What a verb works with: the context, and the instances that have a task.

use std::ops::Deref;
use std::sync::Arc;

use crate::service::context::{Context, Parts};
use crate::service::error::ServiceError;
use crate::service::instance::handle::Handle;
use crate::service::instance::registry::Registry;
use crate::store::Row;

/// Everything a verb may use.
pub struct World {
    pub(super) context: Arc<Context>,
    pub(super) registry: Registry,
}

impl World {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            context: Context::new(parts),
            registry: Registry::default(),
        })
    }

    /// The handle of a row's instance; its task is started when it has none.
    ///
    /// # Errors
    /// The row cannot be read again, or is no more.
    pub(super) async fn handle(&self, row: &Row) -> Result<Arc<Handle>, ServiceError> {
        self.registry.get(&self.context, row).await
    }
}

impl Deref for World {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}
