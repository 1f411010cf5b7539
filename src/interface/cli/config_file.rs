//! The config file, read for a command: its settings, or all its faults as one error.

use std::path::PathBuf;

use crate::config::env::Env;
use crate::config::{self, Config, ConfigErrors};
use crate::service::error::{ErrorKind, ServiceError};

/// The settings of the file.
///
/// # Errors
/// It has faults.
pub(super) fn load(file: Option<PathBuf>, env: &Env) -> Result<Config, ServiceError> {
    config::load(file.as_deref(), env).map_err(|errors| wrong_config(&errors))
}

/// All faults in one error, a line each below its title.
pub(super) fn wrong_config(errors: &ConfigErrors) -> ServiceError {
    let mut message = errors.title();
    for line in errors.to_string().lines() {
        message.push_str("\n  ");
        message.push_str(line);
    }
    ServiceError::new(
        ErrorKind::Invalid,
        message,
        "config.example.toml describes every key; run `acc config check` after the change",
    )
}
