//! One client's connection, from its first byte to its end: its protocol, its requests one after
//! the other, and between them its rest (`rest`).
//!
//! It never reads a request without a time limit on its head.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::{HttpService, service_fn};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;

use super::client_io::{ClientIo, ClientSocket, Protocol};
use super::connection_limits::LimitedConnection;
use super::connection_state::{BusyGuard, ConnectionState};
use super::error::BoxError;
use super::exchange::Exchange;
use super::hyper_settings::{http1_settings, http2_settings};
use super::response_body::ResponseBody;
use super::server::{ConnectionContext, ConnectionSource, LAST_WORD, ProxyServer, stopped_for};
use super::settings::SettingsSnapshot;
use super::stalled_responses::StallWatch;
use super::timeouts::ConnectionTimeouts;

/// The count of the connection, on acc's own edge.
pub(super) type MaybeLimited = Option<Box<LimitedConnection>>;

impl ProxyServer {
    /// Serves a connection until it ends, is evicted, or is cut at the end of a shutdown.
    pub(super) async fn run_connection<S: ClientSocket>(
        self: Arc<Self>,
        client: io::Result<Box<ClientIo<S>>>,
        source: ConnectionSource,
        mut limited: MaybeLimited,
    ) {
        let served = tokio::select! {
            served = self.run_protocol(client, source) => served,
            () = self.cut.wait() => Ok(()),
            () = poll_fn(|cx| limited.as_mut().map_or(Poll::Pending, |limited| limited.poll_evicted(cx))) => Ok(()),
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a client's connection ended");
        }
    }

    /// Boxes futures that are needed only now and then: this one lives as long as the connection.
    async fn run_protocol<S: ClientSocket>(
        self: &Arc<Self>,
        client: io::Result<Box<ClientIo<S>>>,
        source: ConnectionSource,
    ) -> Result<(), BoxError> {
        let mut client = client?;
        match Box::pin(self.detect_protocol(&mut client, ConnectionTimeouts::of(source.front)))
            .await?
        {
            None => return Ok(()),
            Some(Protocol::Http2) => {
                return Box::pin(self.serve_http2(client, source)).await;
            }
            Some(Protocol::Http1) => {}
        }
        while let Some((same, goes_on)) = Box::pin(self.serve_http1(client, source)).await? {
            client = same;
            if goes_on {
                continue;
            }
            client.state().note_rest(self.limits.tick());
            let resting = &self.proxy.resting;
            if !resting
                .wait_for_request(&mut client, &self.stopping)
                .await?
            {
                break;
            }
        }
        Ok(())
    }

    /// Waits for the first bytes of a client. `None`: it closed without any, or sent none before
    /// the shutdown.
    async fn detect_protocol<S: ClientSocket>(
        &self,
        client: &mut ClientIo<S>,
        timeouts: ConnectionTimeouts,
    ) -> Result<Option<Protocol>, BoxError> {
        tokio::select! {
            detected = tokio::time::timeout(timeouts.head, client.detect_protocol()) => Ok(detected??),
            () = stopped_for(&self.stop, LAST_WORD) => Ok(None),
        }
    }

    /// Serves requests until the connection ends (`None`), rests (`false`), or continues with what
    /// hyper gives back (`true`).
    async fn serve_http1<S: ClientSocket>(
        self: &Arc<Self>,
        client: Box<ClientIo<S>>,
        source: ConnectionSource,
    ) -> Result<Option<(Box<ClientIo<S>>, bool)>, BoxError> {
        let state = client.state();
        let service = self.service(source, &state, None);
        let mut connection = http1_settings()
            .serve_connection(TokioIo::new(client), service)
            .with_upgrades();
        let mut stopping = pin!(self.stopping.wait());
        let ended = poll_fn(|cx| {
            // Poll the connection first: a request that has arrived is served, even at the moment
            // of the shutdown.
            if let Poll::Ready(done) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Some(done));
            }
            if state.rests() {
                Poll::Ready(None)
            } else {
                stopping.as_mut().poll(cx).map(|()| None)
            }
        });
        if let Some(done) = ended.await {
            return Ok(done.map(|()| None)?);
        }
        if state.rests() {
            // The part of the next head that arrived together with the last request is kept.
            return Ok(connection.into_parts().map(|parts| {
                let mut client = parts.io.into_inner();
                let goes_on = client.unread(parts.read_buf);
                (client, goes_on)
            }));
        }
        // hyper finishes the current request and no more. Not after a hand-over: closing at once
        // would lose a request that is on its way.
        Pin::new(&mut connection).graceful_shutdown();
        connection.await?;
        Ok(None)
    }

    async fn serve_http2<S: ClientSocket>(
        self: &Arc<Self>,
        mut client: Box<ClientIo<S>>,
        source: ConnectionSource,
    ) -> Result<(), BoxError> {
        client.lift_read_limits();
        let state = client.state();
        state.use_http2();
        let stalls = Arc::new(StallWatch::default());
        let service = self.service(source, &state, Some(stalls.clone()));
        let connection = http2_settings().serve_connection(TokioIo::new(client), service);
        // HTTP/2 tells the client which requests are still served, and the client sends the others
        // elsewhere.
        let ending = async {
            tokio::select! {
                () = state.until_unused(ConnectionTimeouts::of(source.front).idle) => {}
                () = self.hand_over.cancelled() => {}
            }
        };
        tokio::select! {
            done = self.run_until_done(connection, |c| c.graceful_shutdown(), ending) => Ok(done?),
            () = stalls.run(&state, ConnectionTimeouts::of(source.front)) => Ok(()),
        }
    }

    /// Serves the requests of one connection. `stalls` is used on HTTP/2.
    fn service(
        self: &Arc<Self>,
        source: ConnectionSource,
        connection: &Arc<ConnectionState>,
        stalls: Option<Arc<StallWatch<ResponseBody>>>,
    ) -> impl HttpService<
        Incoming,
        ResBody = ResponseBody,
        Error = Infallible,
        Future: Send + 'static,
    > + use<> {
        let settings = SettingsSnapshot::of(&self.proxy.settings);
        let context = ConnectionContext {
            server: self.clone(),
            source,
            connection: connection.clone(),
            settings,
        };
        let context = RefCell::new(Arc::new(context));
        let protocol = if stalls.is_some() {
            Protocol::Http2
        } else {
            Protocol::Http1
        };
        service_fn(move |request: Request<Incoming>| {
            let context = ConnectionContext::current(&context);
            let busy = BusyGuard::new(&context.connection);
            // On HTTP/1 hyper itself leaves the body out, and keeps its length.
            let bodiless = protocol == Protocol::Http2 && request.method() == Method::HEAD;
            let mut exchange = Exchange::new(context, request);
            let stalls = stalls.clone();
            // Boxed: hyper moves this future several times, and keeps space for one as long as the
            // connection lasts.
            Box::pin(async move {
                let mut response = exchange.answer().await;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    busy.keep_busy();
                    return Ok(response);
                }
                if protocol == Protocol::Http1 && exchange.is_handed_over() {
                    response
                        .headers_mut()
                        .insert(CONNECTION, HeaderValue::from_static("close"));
                }
                let stalls = stalls.as_ref();
                Ok::<_, Infallible>(response.map(|body| sent_body(body, bodiless, busy, stalls)))
            })
        })
    }

    /// Drives a connection. At the shutdown, or with `ending`, `shut_down` makes it finish only
    /// what it has begun.
    async fn run_until_done<C, W>(
        &self,
        connection: C,
        shut_down: W,
        ending: impl Future<Output = ()>,
    ) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
        W: FnOnce(Pin<&mut C>),
    {
        let mut connection = pin!(connection);
        let ending = async {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = ending => {}
            }
        };
        tokio::select! {
            // Poll the connection first: a request that has arrived is served, even at the moment
            // of the shutdown.
            biased;
            done = connection.as_mut() => return done,
            () = ending => {}
        }
        shut_down(connection.as_mut());
        connection.await
    }
}

/// The body as it is sent: the connection is busy until its end.
fn sent_body(
    body: ResponseBody,
    bodiless: bool,
    busy: BusyGuard,
    stalls: Option<&Arc<StallWatch<ResponseBody>>>,
) -> ResponseBody {
    let body = if bodiless {
        ResponseBody::empty()
    } else {
        body
    }
    .keep_busy(busy);
    match stalls {
        Some(stalls) => body.watched(stalls),
        None => body,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn a_connection_that_waits_is_small() {
        fn size<F>(
            _: impl Fn(
                Arc<ProxyServer>,
                io::Result<Box<ClientIo<TcpStream>>>,
                ConnectionSource,
                MaybeLimited,
            ) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let waiting = size(ProxyServer::run_connection);
        assert!(waiting <= 576, "{waiting} bytes");
        let io = size_of::<ClientIo<TcpStream>>();
        assert!(io <= 256, "{io} bytes");
    }
}
