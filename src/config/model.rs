//! Placeholder.
use crate::domain::model::Model;
use std::path::Path;

/// Stub.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ModelError(pub String);

/// Stub.
pub fn list_models(_models: &Path) -> Result<Vec<Result<Model, ModelError>>, ModelError> {
    Ok(Vec::new())
}
