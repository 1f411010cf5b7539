//! Chooses a port for an instance that listens on TCP. It reserves nothing: the row does.

use crate::config::Config;
use crate::host::net;
use crate::service::context::Context;
use crate::service::error::ServiceError;

/// A port that is neither given out nor taken by another program; if there is one, a port at which
/// no program has closed connections in the last minute: an application may not be able to bind it
/// (after a failed create, for example, whose port is the next one again).
pub(in crate::service) fn find(ctx: &Context) -> Result<u16, ServiceError> {
    let config = ctx.config();
    let newest = ctx
        .store
        .newest_port()
        .map_err(crate::service::error::store)?;
    let mut second_best = None;
    for port in config.ports.candidates(newest) {
        let given = ctx.store.has_port(port);
        if given.map_err(crate::service::error::store)? {
            continue;
        }
        if net::port_is_unused(port) {
            return Ok(port);
        }
        if second_best.is_none() && net::port_is_free(port) {
            second_best = Some(port);
        }
    }
    second_best.ok_or_else(|| none_left(&config))
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
