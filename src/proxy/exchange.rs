//! One request from the moment in which its head was read until the head of its answer is there: let in as one of its client's,
//! served, and written down, also when its client leaves before.
//!
//! It never looks at a body.

use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::time::Instant;

use std::sync::Arc;

use super::failure::ProxyFailure;
use super::forward::Forwarding;
use super::pending::{PendingRequest, RequestArrival};
use super::response_body::ResponseBody;
use super::server::{ConnectionContext, ConnectionSource};

/// A request that is being served.
pub(super) struct Exchange {
    /// Or the answer, if it is not let in.
    pending: Result<PendingRequest, Box<Response<ResponseBody>>>,
    context: Arc<ConnectionContext>,
}

impl Exchange {
    /// `came`: when its connection did, if it is the first of it.
    pub(super) fn new(context: Arc<ConnectionContext>, request: Request<Incoming>, came: Option<Instant>) -> Self {
        Self { pending: begin(&context, request, came), context }
    }

    /// Serves it; to be called once.
    pub(super) async fn answer(&mut self) -> Response<ResponseBody> {
        let pending = match &mut self.pending {
            Ok(pending) => pending,
            Err(answer) => return std::mem::replace(&mut **answer, Response::new(ResponseBody::empty())),
        };
        let (proxy, settings) = (&self.context.server.proxy, self.context.settings.get());
        let mut response = Forwarding { proxy, settings, pending }.go().await;
        pending.note(proxy, &mut response);
        response
    }

    /// Is another acc accepting clients?
    pub(super) fn is_handed_over(&self) -> bool {
        self.context.server.handed_over.is_raised()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Ok(pending) = &mut self.pending {
            pending.ended(&self.context.server.proxy);
        }
    }
}

/// Reads the request, and finds it a place among those of its client.
fn begin(
    context: &ConnectionContext,
    mut request: Request<Incoming>,
    came: Option<Instant>,
) -> Result<PendingRequest, Box<Response<ResponseBody>>> {
    let ConnectionSource { front, peer, port } = context.source;
    let (proxy, limits, settings) = (&context.server.proxy, &context.server.limits, context.settings.get());
    let connection = &context.connection;
    if let Some(target) = connection.take_target() {
        request.extensions_mut().insert(target);
    }
    let mut pending = proxy.receive(RequestArrival { front, peer, port, came, connection, settings }, request)?;
    let origin = pending.asked.origin;
    let slot = if connection.has_too_many(limits.most(settings.per_client)) {
        Err(ProxyFailure::TooMany)
    } else if origin.by_proxy {
        limits.place(origin.client, settings.per_client, &settings.shared_addresses)
    } else {
        return Ok(pending);
    };
    match slot {
        Ok(slot) => pending.place = slot,
        Err(failure) => return Err(Box::new(pending.refused(proxy, &failure))),
    }
    Ok(pending)
}
