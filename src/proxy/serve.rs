//! Accepts clients and serves their connections until told to stop; then finishes what is under way: for a while when
//! everything ends, for as long as it takes when another acc has taken the sockets over.
//!
//! An HTTP/1 connection that has been idle for a while rests: everything that serves requests on it (hyper, its buffers, the
//! future of a request) is dropped, and a small future waits for the next byte. Most connections of most clients are idle, and
//! a resting one takes a thirtieth of the memory. HTTP/2 connections do not rest: they have a state (windows, header tables)
//! that cannot be taken apart, and a browser has one where it had six.
//!
//! It never reads a request without a time limit on its head, and it never ends by itself.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::{HttpService, service_fn};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client_io::{ClientIo, ClientSocket, ConnectionTimeouts, Protocol};
use super::connection_limits::{ConnectionLimits, LimitedConnection};
use super::connection_state::{BusyGuard, ConnectionState};
use super::exchange::Exchange;
use super::hyper_settings::{http1_settings, http2_settings};
use super::latch::Latch;
use super::listen::{AcceptedClient, ProxyListener};
use super::response_body::ResponseBody;
use super::stalled_responses::StallWatch;
use super::{Front, Proxy, SettingsSnapshot};
use crate::host::lanes::Lanes;
use crate::host::memory;

/// When the process has no descriptor left, accepting again at once would only burn time.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// A client that was accepted just before the shutdown gets this long to say something.
const LAST_WORD: Duration = Duration::from_millis(250);

/// An HTTP/1 connection that has been idle for this long rests.
const REST: Duration = Duration::from_secs(1);

/// So many connections that came to rest have left memory worth giving back to the host,
const MANY: usize = 64;
/// others will follow within this,
const GATHER: Duration = Duration::from_secs(1);
/// and it is done at most this often.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(10);

/// What became of everything that was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServeReport {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections, upgraded ones among them, that were cut because they outlasted the grace.
    pub cut: usize,
}

/// The two ways in which serving ends.
#[derive(Debug, Clone, Default)]
pub struct ShutdownSignals {
    /// Nobody comes after this acc: what has reached the kernel's queue is served, the rest is finished within the grace.
    pub shutdown: CancellationToken,
    /// Another acc accepts from the same sockets: nothing more is taken from the queue, and nothing is cut. A client's
    /// HTTP/1 connection stays open for the request that may be on its way to it, and is closed with the answer.
    pub hand_over: CancellationToken,
}

pub(super) struct ProxyServer {
    pub(super) proxy: Arc<Proxy>,
    pub(super) crowd: Arc<ConnectionLimits>,
    lanes: Lanes,
    connections: TaskTracker,
    stop: CancellationToken,
    hand_over: CancellationToken,
    /// What `stop` says, for connections.
    stopping: Latch,
    /// What `hand_over` says, for requests.
    pub(super) handed_over: Latch,
    /// The grace is over.
    cut: Latch,
    accepted: AtomicU64,
    /// Connections that came to rest since memory was last given back.
    rested: AtomicUsize,
    /// So many did that it is time to.
    tidy: Notify,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Its place among the connections of acc's own edge.
type MaybeLimited = Option<Box<LimitedConnection>>;

/// Whose connection it is.
#[derive(Clone, Copy)]
pub(super) struct ConnectionSource {
    pub(super) front: Front,
    pub(super) peer: Option<IpAddr>,
    /// The port it came to.
    pub(super) port: u16,
}

fn limits(front: Front) -> ConnectionTimeouts {
    match front {
        Front::Public => {
            ConnectionTimeouts { head: Duration::from_secs(10), idle: Duration::from_secs(60), rest: REST, stall: Duration::from_secs(60) }
        }
        // nginx keeps these limits towards clients, and reads as fast as they do.
        Front::Wake => {
            ConnectionTimeouts { head: Duration::from_secs(60), idle: Duration::from_secs(60), rest: REST, stall: Duration::MAX }
        }
    }
}

/// Serves until one of `ends`; then accepts nothing more and finishes what is held or in flight: without a limit after a
/// hand-over, but from the shutdown on for up to `grace`, after which the rest is cut. Sockets are closed when it returns; the
/// files of unix sockets stay. Connections are carried by `lanes`. Once in the life of a [`Proxy`], with all its listeners: the cut at the end reaches every
/// upgraded connection of it.
pub async fn serve(listeners: Vec<ProxyListener>, proxy: Arc<Proxy>, lanes: Lanes, ends: ShutdownSignals, grace: Duration) -> ServeReport {
    let server = Arc::new(ProxyServer {
        lanes,
        cut: Latch::default(),
        stopping: Latch::default(),
        handed_over: Latch::default(),
        proxy,
        crowd: ConnectionLimits::new(),
        connections: TaskTracker::new(),
        stop: ends.shutdown,
        hand_over: ends.hand_over,
        accepted: AtomicU64::new(0),
        rested: AtomicUsize::new(0),
        tidy: Notify::new(),
    });
    let told = async {
        tokio::join!(
            server.stop.cancelled().map(|()| server.stopping.raise()),
            server.hand_over.cancelled().map(|()| server.handed_over.raise())
        );
        std::future::pending().await
    };
    tokio::select! {
        report = server.serve(listeners, grace) => report,
        report = told => report,
        report = server.give_back() => report,
    }
}

impl ProxyServer {
    async fn serve(self: &Arc<Self>, listeners: Vec<ProxyListener>, grace: Duration) -> ServeReport {
        let acceptors = TaskTracker::new();
        for listener in listeners {
            self.lanes.bring(&acceptors, self.clone().accept_all(listener));
        }
        acceptors.close();
        acceptors.wait().await;
        let (connections, tunnels) = (&self.connections, &self.proxy.tunnels);
        connections.close();
        tunnels.close();
        // In this order: a connection may still become a tunnel.
        let all_done = async {
            connections.wait().await;
            tunnels.wait().await;
        };
        let cut = tokio::select! {
            () = all_done => 0,
            () = stopped_for(&self.stop, grace) => {
                let left = connections.len() + tunnels.len();
                self.cut.raise();
                self.proxy.cut.cancel();
                connections.wait().await;
                tunnels.wait().await;
                left
            }
        };
        ServeReport { accepted: self.accepted.load(Ordering::Relaxed), cut }
    }

    async fn accept_all(self: Arc<Self>, mut listener: ProxyListener) {
        let mut back_off = BACK_OFF.0;
        let mut late = pin!(stopped_for(&self.stop, LAST_WORD));
        loop {
            let accepted = tokio::select! {
                biased;
                // The queue belongs to the next acc.
                () = self.hand_over.cancelled() => return,
                // First the queue: what the kernel has accepted already is not thrown away, unless it never ends.
                () = late.as_mut() => return,
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok(client) => {
                    back_off = BACK_OFF.0;
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                    let accepted = Instant::now();
                    match client {
                        AcceptedClient::Tcp(socket, peer) => {
                            let known = SettingsSnapshot::of(&self.proxy);
                            let (per_client, shared) = (known.settings().per_client, &known.settings().shared_addresses);
                            let Some(member) = self.crowd.let_in(&socket, peer, per_client, shared) else { continue };
                            let who = ConnectionSource { front: listener.front, peer: Some(peer), port: listener.port };
                            self.take_on(|| TcpStream::from_std(socket), who, Some(member), accepted);
                        }
                        AcceptedClient::Unix(socket) => {
                            self.take_on(
                                || UnixStream::from_std(socket),
                                ConnectionSource { front: listener.front, peer: None, port: 0 },
                                None,
                                accepted,
                            );
                        }
                    }
                }
                // The client left before it was accepted.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::select! {
                        () = tokio::time::sleep(back_off) => {}
                        () = self.hand_over.cancelled() => return,
                        () = self.stop.cancelled() => return,
                    }
                    back_off = (back_off * 2).min(BACK_OFF.1);
                }
            }
        }
    }

    /// Gives a lane a connection. What lasts as long as it does is allocated here, by the lane that accepts, and so for all other
    /// lanes apart from what a request needs: side by side they keep each other's pages, two or three for a kilobyte that rests.
    fn take_on<S: ClientSocket>(
        self: &Arc<Self>,
        register: impl FnOnce() -> io::Result<S>,
        who: ConnectionSource,
        member: MaybeLimited,
        accepted: Instant,
    ) {
        self.lanes.carry(|| {
            let client = register().map(|socket| Box::new(ClientIo::new(socket, limits(who.front))));
            let member = member.map(|mut member| {
                client.iter().for_each(|client| member.joins(client.used()));
                member
            });
            self.connections.track_future(self.clone().carry(client, who, member, accepted))
        });
    }

    async fn carry<S: ClientSocket>(
        self: Arc<Self>,
        client: io::Result<Box<ClientIo<S>>>,
        who: ConnectionSource,
        mut member: MaybeLimited,
        accepted: Instant,
    ) {
        let served = tokio::select! {
            served = self.speak(client, who, accepted) => served,
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
        who: ConnectionSource,
        accepted: Instant,
    ) -> Result<(), BoxError> {
        let mut client = client?;
        match Box::pin(self.begin(&mut client, limits(who.front))).await? {
            None => return Ok(()),
            Some(Protocol::Http2) => return Box::pin(self.http2(client, who, accepted)).await,
            Some(Protocol::Http1) => {}
        }
        let mut accepted = Some(accepted);
        while let Some((kept, goes_on)) = Box::pin(self.http1(client, who, accepted.take())).await? {
            client = kept;
            if !goes_on && !self.rest(&mut client).await? {
                break;
            }
        }
        Ok(())
    }

    /// The first bytes of a client: `None` when it leaves without any, or says nothing before the end.
    async fn begin<S: ClientSocket>(&self, client: &mut ClientIo<S>, limits: ConnectionTimeouts) -> Result<Option<Protocol>, BoxError> {
        tokio::select! {
            begun = tokio::time::timeout(limits.head, client.begin()) => Ok(begun??),
            () = stopped_for(&self.stop, LAST_WORD) => Ok(None),
        }
    }

    /// Serves requests until the connection ends, `None`, or rests, or goes on with what hyper gives back: `true`. `accepted`: for a
    /// connection that has just come, when.
    async fn http1<S: ClientSocket>(
        self: &Arc<Self>,
        client: Box<ClientIo<S>>,
        who: ConnectionSource,
        accepted: Option<Instant>,
    ) -> Result<Option<(Box<ClientIo<S>>, bool)>, BoxError> {
        let used = client.used();
        let service = self.service(who, accepted, &used, None);
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

    /// What many connections needed before they rested goes back to the host, the parts of the program included that no resting
    /// connection needs. Never resolves.
    async fn give_back<T>(&self) -> T {
        loop {
            self.tidy.notified().await;
            tokio::time::sleep(GATHER).await;
            self.rested.store(0, Ordering::Relaxed);
            let give_back = || {
                memory::give_back();
                memory::let_go_of_program();
            };
            let _ = tokio::task::spawn_blocking(give_back).await;
            tokio::time::sleep(GIVE_BACK_EVERY).await;
        }
    }

    /// Waits for the next request of a resting connection; `false`: there will be none.
    async fn rest<S: ClientSocket>(&self, client: &mut ClientIo<S>) -> io::Result<bool> {
        let _resting = Resting::new(&self.proxy.resting);
        client.used().comes_to_rest(self.crowd.now());
        if self.rested.fetch_add(1, Ordering::Relaxed) == MANY {
            self.tidy.notify_one();
        }
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
        who: ConnectionSource,
        accepted: Instant,
    ) -> Result<(), BoxError> {
        client.lift_read_limits();
        let used = client.used();
        used.speaks_http2();
        let takers = Arc::new(StallWatch::default());
        let service = self.service(who, Some(accepted), &used, Some(takers.clone()));
        let connection = http2_settings().serve_connection(TokioIo::new(client), service);
        // The client is told which requests are still served, and sends the others elsewhere.
        let ending = async {
            tokio::select! {
                () = used.unused(limits(who.front).idle) => {}
                () = self.hand_over.cancelled() => {}
            }
        };
        tokio::select! {
            done = self.until_done(connection, |c| c.graceful_shutdown(), ending) => Ok(done?),
            () = takers.look_after(&used, limits(who.front)) => Ok(()),
        }
    }

    fn service(
        self: &Arc<Self>,
        who: ConnectionSource,
        accepted: Option<Instant>,
        used: &Arc<ConnectionState>,
        takers: Option<Arc<StallWatch>>,
    ) -> impl HttpService<Incoming, ResBody = ResponseBody, Error = Infallible, Future: Send + 'static> + use<> {
        let known = SettingsSnapshot::of(&self.proxy);
        let carried = RefCell::new(Arc::new(ConnectionContext { server: self.clone(), who, used: used.clone(), known }));
        let first = AtomicBool::new(accepted.is_some());
        let speaks = if takers.is_some() { Protocol::Http2 } else { Protocol::Http1 };
        service_fn(move |request: Request<Incoming>| {
            let carried = ConnectionContext::current(&carried);
            let busy = BusyGuard::new(&carried.used);
            // The first request of a connection came with it.
            let came = if first.swap(false, Ordering::Relaxed) { accepted } else { None };
            // On HTTP/1 hyper leaves the body out by itself, and keeps its length.
            let bodiless = speaks == Protocol::Http2 && request.method() == Method::HEAD;
            let mut serving = Exchange::new(carried, request, came);
            let takers = takers.clone();
            // On the heap: hyper moves this about several times, and keeps the space for one as long as the connection lasts.
            Box::pin(async move {
                let mut response = serving.answer().await;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    busy.for_good();
                    return Ok(response);
                }
                if speaks == Protocol::Http1 && serving.is_handed_over() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response.map(|reply| {
                    let reply = if bodiless { ResponseBody::empty() } else { reply }.keep(busy);
                    takers.iter().fold(reply, |reply, takers| reply.watched(takers))
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

/// What the requests of a connection need. One count for all of it: those of its parts are shared by all lanes, and processors
/// that write the same count hold each other up.
pub(super) struct ConnectionContext {
    pub(super) server: Arc<ProxyServer>,
    pub(super) who: ConnectionSource,
    pub(super) used: Arc<ConnectionState>,
    pub(super) known: SettingsSnapshot,
}

impl ConnectionContext {
    /// With the settings that are in force now.
    fn current(carried: &RefCell<Arc<Self>>) -> Arc<Self> {
        let mut last = carried.borrow_mut();
        let proxy = &last.server.proxy;
        if !last.known.is_current(proxy) {
            let known = SettingsSnapshot::of(proxy);
            *last = Arc::new(Self { server: last.server.clone(), who: last.who, used: last.used.clone(), known });
        }
        last.clone()
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

async fn stopped_for(stop: &CancellationToken, time: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(time).await;
}

#[cfg(test)]
mod tests {
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
