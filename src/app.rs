//! Placeholder: the real one wires drivers and services.

use crate::config::Config;
use crate::service::error::ServiceError;
use crate::service::outcome::{BootReport, HaltReport, Outcome};
use crate::service::request::Request;

fn stub<T>() -> Result<T, ServiceError> {
    Err(ServiceError::failed("not built in yet", ""))
}

/// Stub.
pub async fn dispatch(_config: &Config, _request: Request) -> Result<Outcome, ServiceError> {
    stub()
}

/// Stub.
pub async fn boot(_config: &Config, _foreground: bool) -> Result<BootReport, ServiceError> {
    stub()
}

/// Stub.
pub async fn halt(_config: &Config) -> Result<HaltReport, ServiceError> {
    stub()
}

/// Stub.
pub async fn serve(
    _config: Config,
    _reload: impl Fn() -> Result<Config, ServiceError> + Send + Sync + 'static,
) -> Result<(), ServiceError> {
    stub()
}
