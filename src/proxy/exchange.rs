//! One request and its response, from the moment hyper has read the head until the head of the
//! response is complete: counted for its client, forwarded and logged, even if its client closes
//! early.
//!
//! It never reads a body.

use hyper::body::Incoming;
use hyper::{Request, Response};

use std::sync::Arc;

use super::failure::ProxyFailure;
use super::forward::Forwarding;
use super::pending::{PendingRequest, RequestArrival};
use super::response_body::ResponseBody;
use super::server::{ConnectionContext, ConnectionSource};

/// A request that is being served.
pub(super) struct Exchange {
    /// The request, or the response if it is refused at once.
    pending: Result<PendingRequest, Box<Response<ResponseBody>>>,
    context: Arc<ConnectionContext>,
}

impl Exchange {
    pub(super) fn new(context: Arc<ConnectionContext>, request: Request<Incoming>) -> Self {
        Self {
            pending: begin(&context, request),
            context,
        }
    }

    /// Serves it; call it once.
    pub(super) async fn answer(&mut self) -> Response<ResponseBody> {
        let pending = match &mut self.pending {
            Ok(pending) => pending,
            Err(answer) => {
                return std::mem::replace(&mut **answer, Response::new(ResponseBody::empty()));
            }
        };
        let (proxy, settings) = (&self.context.server.proxy, self.context.settings.get());
        let mut response = Forwarding {
            proxy,
            settings,
            pending,
        }
        .run()
        .await;
        pending.log_answer(proxy, &mut response);
        response
    }

    /// Whether another worker accepts clients now.
    pub(super) fn is_handed_over(&self) -> bool {
        self.context.server.handed_over.is_raised()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Ok(pending) = &mut self.pending {
            pending.log_without_answer(&self.context.server.proxy);
        }
    }
}

/// Reads the request, and counts it for its client.
fn begin(
    context: &ConnectionContext,
    mut request: Request<Incoming>,
) -> Result<PendingRequest, Box<Response<ResponseBody>>> {
    let ConnectionSource { front, peer, port } = context.source;
    let (proxy, limits, settings) = (
        &context.server.proxy,
        &context.server.limits,
        context.settings.get(),
    );
    let connection = &context.connection;
    if let Some(target) = connection.take_target() {
        request.extensions_mut().insert(target);
    }
    let mut pending = proxy.receive(
        RequestArrival {
            front,
            peer,
            port,
            connection,
            settings,
        },
        request,
    )?;
    let origin = pending.parsed.origin;
    let slot = if connection.exceeds(limits.max_requests(settings.per_client)) {
        Err(ProxyFailure::TooMany)
    } else if origin.by_proxy {
        limits.reserve_slot(
            origin.client,
            settings.per_client,
            &settings.shared_addresses,
        )
    } else {
        return Ok(pending);
    };
    match slot {
        Ok(slot) => pending.slot = slot,
        Err(failure) => return Err(Box::new(pending.refused(proxy, &failure))),
    }
    Ok(pending)
}
