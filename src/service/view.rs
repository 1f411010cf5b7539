//! Placeholder.

use super::error::{ErrorKind, ServiceError};
use super::outcome::{EventView, InstanceView};
use crate::config::Config;

/// Stub.
pub struct Reader;

impl Reader {
    /// Stub.
    pub fn open(_config: &Config) -> Result<Self, ServiceError> {
        Ok(Self)
    }
    /// Stub.
    pub fn list(&self, _phase: Option<&str>, _model: Option<&str>, _limit: Option<usize>) -> Result<Vec<InstanceView>, ServiceError> {
        Ok(Vec::new())
    }
    /// Stub.
    pub fn find(&self, name_or_number: &str) -> Result<InstanceView, ServiceError> {
        Err(ServiceError::new(ErrorKind::NotFound, format!("no instance `{name_or_number}`"), "see `acc list`"))
    }
    /// Stub.
    pub fn events(&self, _name_or_number: Option<&str>, _lines: usize) -> Result<Vec<EventView>, ServiceError> {
        Ok(Vec::new())
    }
}
