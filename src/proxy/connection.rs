//! One client's connection, from its first byte to its end: which protocol it speaks, its requests one after the other, and its rest.
//!
//! An HTTP/1 connection that has been idle for a while rests: everything that serves requests on it (hyper, its buffers, the
//! future of a request) is dropped, and a small future waits for the next byte. Most connections of most clients are idle, and
//! a resting one takes a thirtieth of the memory. HTTP/2 connections do not rest: they have a state (windows, header tables)
//! that cannot be taken apart, and a browser has one where it had six.
//!
//! It never reads a request without a time limit on its head.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::{HttpService, service_fn};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

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

/// Its place among the connections of acc's own edge.
pub(super) type MaybeLimited = Option<Box<LimitedConnection>>;

impl ProxyServer {
    pub(super) async fn carry<S: ClientSocket>(
        self: Arc<Self>,
        client: io::Result<Box<ClientIo<S>>>,
        source: ConnectionSource,
        mut member: MaybeLimited,
        accepted: Instant,
    ) {
        let served = tokio::select! {
            served = self.speak(client, source, accepted) => served,
            () = self.cut.wait() => Ok(()),
            () = poll_fn(|cx| member.as_mut().map_or(Poll::Pending, |member| member.poll_unwanted(cx))) => Ok(()),
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a client's connection ended");
        }
    }

    /// What is needed only at times is on the heap only then: this future lives as long as the connection.
    async fn speak<S: ClientSocket>(
        self: &Arc<Self>,
        client: io::Result<Box<ClientIo<S>>>,
        source: ConnectionSource,
        accepted: Instant,
    ) -> Result<(), BoxError> {
        let mut client = client?;
        match Box::pin(self.begin(&mut client, ConnectionTimeouts::of(source.front))).await? {
            None => return Ok(()),
            Some(Protocol::Http2) => return Box::pin(self.http2(client, source, accepted)).await,
            Some(Protocol::Http1) => {}
        }
        let mut accepted = Some(accepted);
        while let Some((kept, goes_on)) = Box::pin(self.http1(client, source, accepted.take())).await? {
            client = kept;
            if !goes_on && !self.rest(&mut client).await? {
                break;
            }
        }
        Ok(())
    }

    /// The first bytes of a client: `None` when it leaves without any, or says nothing before the end.
    async fn begin<S: ClientSocket>(&self, client: &mut ClientIo<S>, timeouts: ConnectionTimeouts) -> Result<Option<Protocol>, BoxError> {
        tokio::select! {
            begun = tokio::time::timeout(timeouts.head, client.begin()) => Ok(begun??),
            () = stopped_for(&self.stop, LAST_WORD) => Ok(None),
        }
    }

    /// Serves requests until the connection ends, `None`, or rests, or goes on with what hyper gives back: `true`. `accepted`: for a
    /// connection that has just come, when.
    async fn http1<S: ClientSocket>(
        self: &Arc<Self>,
        client: Box<ClientIo<S>>,
        source: ConnectionSource,
        accepted: Option<Instant>,
    ) -> Result<Option<(Box<ClientIo<S>>, bool)>, BoxError> {
        let used = client.used();
        let service = self.service(source, accepted, &used, None);
        let mut connection = http1_settings().serve_connection(TokioIo::new(client), service).with_upgrades();
        let mut stopping = pin!(self.stopping.wait());
        let ended = poll_fn(|cx| {
            // First the connection: a request that has arrived is served, also in the moment of the shutdown.
            if let Poll::Ready(done) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Some(done));
            }
            if used.rests() { Poll::Ready(None) } else { stopping.as_mut().poll(cx).map(|()| None) }
        });
        if let Some(done) = ended.await {
            return Ok(done.map(|()| None)?);
        }
        if used.rests() {
            // What of the next head came together with the last one is kept.
            return Ok(connection.into_parts().map(|parts| {
                let mut client = parts.io.into_inner();
                let goes_on = client.unread(parts.read_buf);
                (client, goes_on)
            }));
        }
        // It finishes what it has begun and no more. After a hand-over it is not told: closed at once, it would lose the request
        // that is on its way to it.
        Pin::new(&mut connection).graceful_shutdown();
        connection.await?;
        Ok(None)
    }

    /// Waits for the next request of a resting connection; `false`: there will be none.
    async fn rest<S: ClientSocket>(&self, client: &mut ClientIo<S>) -> io::Result<bool> {
        let _resting = Resting::new(&self.proxy.resting);
        client.used().comes_to_rest(self.limits.now());
        self.reclaim.note_rest();
        let mut stopping = pin!(self.stopping.wait());
        poll_fn(|cx| match client.poll_rest(cx) {
            // First the client, as above; of what has just arrived the reactor may not have told yet.
            Poll::Pending if self.stopping.is_raised() && client.has_arrived() => Poll::Pending,
            Poll::Pending => stopping.as_mut().poll(cx).map(|()| Ok(false)),
            readable => readable.map_ok(|()| true),
        })
        .await
    }

    async fn http2<S: ClientSocket>(
        self: &Arc<Self>,
        mut client: Box<ClientIo<S>>,
        source: ConnectionSource,
        accepted: Instant,
    ) -> Result<(), BoxError> {
        client.lift_read_limits();
        let used = client.used();
        used.speaks_http2();
        let stalls = Arc::new(StallWatch::default());
        let service = self.service(source, Some(accepted), &used, Some(stalls.clone()));
        let connection = http2_settings().serve_connection(TokioIo::new(client), service);
        // The client is told which requests are still served, and sends the others elsewhere.
        let ending = async {
            tokio::select! {
                () = used.unused(ConnectionTimeouts::of(source.front).idle) => {}
                () = self.hand_over.cancelled() => {}
            }
        };
        tokio::select! {
            done = self.until_done(connection, |c| c.graceful_shutdown(), ending) => Ok(done?),
            () = stalls.look_after(&used, ConnectionTimeouts::of(source.front)) => Ok(()),
        }
    }

    fn service(
        self: &Arc<Self>,
        source: ConnectionSource,
        accepted: Option<Instant>,
        connection: &Arc<ConnectionState>,
        stalls: Option<Arc<StallWatch<ResponseBody>>>,
    ) -> impl HttpService<Incoming, ResBody = ResponseBody, Error = Infallible, Future: Send + 'static> + use<> {
        let settings = SettingsSnapshot::of(&self.proxy.settings);
        let context = ConnectionContext { server: self.clone(), source, connection: connection.clone(), settings };
        let context = RefCell::new(Arc::new(context));
        let first = AtomicBool::new(accepted.is_some());
        let speaks = if stalls.is_some() { Protocol::Http2 } else { Protocol::Http1 };
        service_fn(move |request: Request<Incoming>| {
            let context = ConnectionContext::current(&context);
            let busy = BusyGuard::new(&context.connection);
            // The first request of a connection came with it.
            let came = if first.swap(false, Ordering::Relaxed) { accepted } else { None };
            // On HTTP/1 hyper leaves the body out by itself, and keeps its length.
            let bodiless = speaks == Protocol::Http2 && request.method() == Method::HEAD;
            let mut exchange = Exchange::new(context, request, came);
            let stalls = stalls.clone();
            // On the heap: hyper moves this about several times, and keeps the space for one as long as the connection lasts.
            Box::pin(async move {
                let mut response = exchange.answer().await;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    busy.for_good();
                    return Ok(response);
                }
                if speaks == Protocol::Http1 && exchange.is_handed_over() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response.map(|reply| {
                    let reply = if bodiless { ResponseBody::empty() } else { reply }.keep(busy);
                    stalls.iter().fold(reply, |reply, stalls| reply.watched(stalls))
                }))
            })
        })
    }

    /// Drives a connection; at the shutdown, or with `ending`, `wind_up` makes it finish what it has begun and no more.
    async fn until_done<C, W>(&self, connection: C, wind_up: W, ending: impl Future<Output = ()>) -> hyper::Result<()>
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
            // First the connection: a request that has arrived is served, also in the moment of the shutdown.
            biased;
            done = connection.as_mut() => return done,
            () = ending => {}
        }
        wind_up(connection.as_mut());
        connection.await
    }
}

/// Counts a resting connection.
struct Resting<'a>(&'a AtomicUsize);

impl<'a> Resting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn a_connection_that_waits_is_small() {
        fn size<F>(
            _: impl Fn(Arc<ProxyServer>, io::Result<Box<ClientIo<TcpStream>>>, ConnectionSource, MaybeLimited, Instant) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let waiting = size(ProxyServer::carry);
        assert!(waiting <= 576, "{waiting} bytes");
        let io = size_of::<ClientIo<TcpStream>>();
        assert!(io <= 256, "{io} bytes");
    }
}
