//! One request from the moment in which its head was read until the head of its answer is there: let in as one of its client's,
//! served, and written down, also when its client leaves before.
//!
//! It never looks at a body.

use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::time::Instant;

use std::sync::Arc;

use super::RequestArrival;
use super::forward::{Forwarding, PendingRequest};
use super::respond::ProxyFailure;
use super::response_body::ResponseBody;
use super::serve::{ConnectionContext, ConnectionSource};

/// A request that is being served.
pub(super) struct Exchange {
    /// Or the answer, if it is not let in.
    begun: Result<PendingRequest, Box<Response<ResponseBody>>>,
    carried: Arc<ConnectionContext>,
}

impl Exchange {
    /// `came`: when its connection did, if it is the first of it.
    pub(super) fn new(carried: Arc<ConnectionContext>, request: Request<Incoming>, came: Option<Instant>) -> Self {
        Self { begun: carried.begin(request, came), carried }
    }

    /// Serves it; to be called once.
    pub(super) async fn answer(&mut self) -> Response<ResponseBody> {
        let begun = match &mut self.begun {
            Ok(begun) => begun,
            Err(answer) => return std::mem::replace(&mut **answer, Response::new(ResponseBody::empty())),
        };
        let (proxy, settings) = (&self.carried.server.proxy, self.carried.known.settings());
        let mut response = Forwarding { proxy, settings, begun }.go().await;
        begun.note(proxy, &mut response);
        response
    }

    /// Is another acc accepting clients?
    pub(super) fn is_handed_over(&self) -> bool {
        self.carried.server.handed_over.is_raised()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Ok(begun) = &mut self.begun {
            begun.ended(&self.carried.server.proxy);
        }
    }
}

impl ConnectionContext {
    fn begin(&self, mut request: Request<Incoming>, came: Option<Instant>) -> Result<PendingRequest, Box<Response<ResponseBody>>> {
        let ConnectionSource { front, peer, port } = self.who;
        let (proxy, crowd, settings) = (&self.server.proxy, &self.server.crowd, self.known.settings());
        if let Some(target) = self.used.take_target() {
            request.extensions_mut().insert(target);
        }
        let mut begun = proxy.begin(RequestArrival { front, peer, port, came, used: &self.used, settings }, request)?;
        let origin = begun.asked.origin;
        let place = if self.used.has_too_many(crowd.most(settings.per_client)) {
            Err(ProxyFailure::TooMany)
        } else if origin.by_proxy {
            crowd.place(origin.client, settings.per_client, &settings.shared_addresses)
        } else {
            return Ok(begun);
        };
        match place {
            Ok(place) => begun.place = place,
            Err(failure) => return Err(Box::new(begun.refused(proxy, &failure))),
        }
        Ok(begun)
    }
}
