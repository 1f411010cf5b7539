//! What the edge has to know beyond names, read from the database and put in force.

use crate::domain::instance::Listen;
use crate::driver::edge::{EdgeError, Route};
use crate::service::context::Context;
use crate::service::error::{ServiceError, chain};
use crate::service::launch_spec;

/// All routes, those of destroyed instances left out.
pub(super) async fn all(ctx: &Context) -> Result<Vec<Route>, ServiceError> {
    let config = ctx.config();
    let rows = ctx
        .read(|store| store.routed())
        .await
        .map_err(crate::service::error::store)?;
    Ok(rows
        .into_iter()
        .map(|row| Route {
            tcp: match launch_spec::listen(&config, &row.name, row.port) {
                Listen::Tcp(address) => Some(address),
                Listen::Unix(_) => None,
            },
            name: row.name,
            hosts: row.hosts,
        })
        .collect())
}

/// Puts them in force.
pub(super) async fn apply(ctx: &Context) -> Result<(), ServiceError> {
    let routes = all(ctx).await?;
    ctx.edge
        .apply(&routes)
        .await
        .map_err(|e| edge("could not change the edge", &e))
}

/// An error of the edge, with its way out.
pub(super) fn edge(message: &str, e: &EdgeError) -> ServiceError {
    let hint = match e {
        EdgeError::File { .. } => "check free space, owner and mode of that path",
        EdgeError::Refused { .. } => {
            "the previous configuration is still in force; fix the problem above and try again"
        }
        EdgeError::Unusable(_) => "run `acc doctor`",
    };
    ServiceError::failed(format!("{message}: {}", chain(e)), hint)
}
