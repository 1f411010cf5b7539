//! Chooses a port for an instance that listens on TCP. It reserves nothing: the row does.

use crate::config::Config;
use crate::host::net;
use crate::service::context::Context;
use crate::service::error::ServiceError;

/// A port that is neither given out nor taken by another program.
pub(in crate::service) fn find(ctx: &Context) -> Result<u16, ServiceError> {
    let config = ctx.config();
    let newest = ctx
        .store
        .newest_port()
        .map_err(crate::service::error::store)?;
    for port in config.ports.candidates(newest) {
        if !ctx
            .store
            .has_port(port)
            .map_err(crate::service::error::store)?
            && net::port_is_free(port)
        {
            return Ok(port);
        }
    }
    Err(none_left(&config))
}

pub(in crate::service) fn none_left(config: &Config) -> ServiceError {
    let message = format!(
        "no port is free in `ports.range` {}-{}",
        config.ports.first, config.ports.last
    );
    ServiceError::failed(
        message,
        "widen the range in the config, or purge instances that are not needed",
    )
}
