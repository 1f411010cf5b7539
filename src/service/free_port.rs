//! Chooses a port for an instance that listens on TCP. It reserves nothing: the row does.

use super::context::Context;
use super::error::ServiceError;
use crate::config::Config;
use crate::host::net;

/// A port that is neither given out nor taken by another program.
pub(super) fn find(ctx: &Context) -> Result<u16, ServiceError> {
    let config = ctx.config();
    let newest = ctx.store.newest_port().map_err(super::error::store)?;
    for port in config.ports.candidates(newest) {
        if !ctx.store.has_port(port).map_err(super::error::store)? && net::port_is_free(port) {
            return Ok(port);
        }
    }
    Err(none_left(&config))
}

pub(super) fn none_left(config: &Config) -> ServiceError {
    let message = format!(
        "no port is free in `ports.range` {}-{}",
        config.ports.first, config.ports.last
    );
    ServiceError::failed(
        message,
        "widen the range in the config, or purge instances that are not needed",
    )
}
