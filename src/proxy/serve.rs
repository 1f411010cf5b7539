//! Accepts clients and serves their connections until told to stop; then finishes what is under way: for a while when
//! everything ends, for as long as it takes when another acc has taken the sockets over.
//!
//! It never reads a request without a time limit on its head, and it never ends by itself.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client_io::{ClientIo, Limits, Speaks};
use super::listen::{Client, Listener};
use super::reply::{Busy, Reply};
use super::{Front, Proxy};
use crate::driver::host::lanes::Lanes;

/// Most bytes buffered per direction; also the longest head.
const BUFFER: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// An HTTP/2 client that answers no ping within this is gone.
const PING: Duration = Duration::from_secs(20);
/// When the process has no descriptor left, accepting again at once would only burn time.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// A client that was accepted just before the shutdown gets this long to say something.
const LAST_WORD: Duration = Duration::from_millis(250);

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
pub struct Ends {
    /// Nobody comes after this acc: what has reached the kernel's queue is served, the rest is finished within the grace.
    pub shutdown: CancellationToken,
    /// Another acc accepts from the same sockets: nothing more is taken from the queue, and nothing is cut. A client's
    /// HTTP/1 connection stays open for the request that may be on its way to it, and is closed with the answer.
    pub hand_over: CancellationToken,
}

struct Server {
    proxy: Arc<Proxy>,
    lanes: Lanes,
    connections: TaskTracker,
    stop: CancellationToken,
    hand_over: CancellationToken,
    cut: CancellationToken,
    accepted: AtomicU64,
}

fn limits(front: Front) -> Limits {
    match front {
        Front::Public => Limits { head: Duration::from_secs(10), idle: Duration::from_secs(60), stall: Duration::from_secs(60) },
        // nginx keeps these limits towards clients, and reads as fast as they do.
        Front::Wake => Limits { head: Duration::from_secs(60), idle: Duration::from_secs(60), stall: Duration::MAX },
    }
}

/// Serves until one of `ends`; then accepts nothing more and finishes what is held or in flight: without a limit after a
/// hand-over, but from the shutdown on for up to `grace`, after which the rest is cut. Sockets are closed when it returns; the
/// files of unix sockets stay. Connections are carried by `lanes`. Once in the life of a [`Proxy`], with all its listeners: the cut at the end reaches every
/// upgraded connection of it.
pub async fn serve(listeners: Vec<Listener>, proxy: Arc<Proxy>, lanes: Lanes, ends: Ends, grace: Duration) -> ServeReport {
    let server = Arc::new(Server {
        lanes,
        cut: proxy.cut.clone(),
        proxy,
        connections: TaskTracker::new(),
        stop: ends.shutdown,
        hand_over: ends.hand_over,
        accepted: AtomicU64::new(0),
    });
    let acceptors = TaskTracker::new();
    for listener in listeners {
        acceptors.spawn(server.clone().accept_all(listener));
    }
    acceptors.close();
    acceptors.wait().await;
    let (connections, tunnels) = (&server.connections, &server.proxy.tunnels);
    connections.close();
    tunnels.close();
    // In this order: a connection may still become a tunnel.
    let all_done = async {
        connections.wait().await;
        tunnels.wait().await;
    };
    let cut = tokio::select! {
        () = all_done => 0,
        () = stopped_for(&server.stop, grace) => {
            let left = connections.len() + tunnels.len();
            server.cut.cancel();
            connections.wait().await;
            tunnels.wait().await;
            left
        }
    };
    ServeReport { accepted: server.accepted.load(Ordering::Relaxed), cut }
}

impl Server {
    async fn accept_all(self: Arc<Self>, listener: Listener) {
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
                    let server = self.clone();
                    let (front, accepted) = (listener.front, Instant::now());
                    self.lanes.carry(self.connections.track_future(async move {
                        let cut = server.cut.clone();
                        tokio::select! {
                            () = server.connection(client, front, accepted) => {}
                            () = cut.cancelled() => {}
                        }
                    }));
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

    async fn connection(&self, client: Client, front: Front, accepted: Instant) {
        let served = match client {
            Client::Tcp(socket, peer) => match TcpStream::from_std(socket) {
                Ok(socket) => self.speak(socket, front, Some(peer), accepted).await,
                Err(e) => Err(e.into()),
            },
            Client::Unix(socket) => match UnixStream::from_std(socket) {
                Ok(socket) => self.speak(socket, front, None, accepted).await,
                Err(e) => Err(e.into()),
            },
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a client's connection ended");
        }
    }

    async fn speak<S>(
        &self,
        socket: S,
        front: Front,
        peer: Option<IpAddr>,
        accepted: Instant,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = limits(front);
        let open = Arc::new(AtomicU32::new(0));
        let begin = tokio::time::timeout(limits.head, ClientIo::begin(socket, limits, open.clone()));
        let begun = tokio::select! {
            begun = begin => begun??,
            () = stopped_for(&self.stop, LAST_WORD) => return Ok(()),
        };
        let Some((io, speaks)) = begun else { return Ok(()) };
        let proxy = self.proxy.clone();
        let seen = open.clone();
        let last = self.hand_over.clone();
        let first = AtomicBool::new(true);
        let service = service_fn(move |request: Request<Incoming>| {
            let busy = Busy::new(&open);
            let (proxy, last) = (proxy.clone(), last.clone());
            // The first request of a connection came with it.
            let came = if first.swap(false, Ordering::Relaxed) { accepted } else { Instant::now() };
            async move {
                let mut response: Response<Reply> = proxy.handle(front, peer, request, came).await;
                if speaks == Speaks::Http1 && last.is_cancelled() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response.map(|reply| reply.keep(busy)))
            }
        });
        match speaks {
            Speaks::Http1 => {
                let connection = http1_settings().serve_connection(TokioIo::new(io), service).with_upgrades();
                // Closed at once, a connection would lose the request that is on its way to it.
                self.until_done(connection, |c| c.graceful_shutdown(), std::future::pending()).await?;
            }
            Speaks::Http2 => {
                let connection = http2_settings().serve_connection(TokioIo::new(io.without_read_limits()), service);
                // The client is told which requests are still served, and sends the others elsewhere.
                let ending = async {
                    tokio::select! {
                        () = unused(&seen, limits.idle) => {}
                        () = self.hand_over.cancelled() => {}
                    }
                };
                self.until_done(connection, |c| c.graceful_shutdown(), ending).await?;
            }
        }
        Ok(())
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

/// Resolves when no request was under way for the whole of the limit: HTTP/2 has none of its own between two requests.
async fn unused(open: &AtomicU32, limit: Duration) {
    let mut since = Instant::now();
    loop {
        tokio::time::sleep(limit / 8).await;
        if open.load(Ordering::Acquire) > 0 {
            since = Instant::now();
        } else if since.elapsed() >= limit {
            return;
        }
    }
}

async fn stopped_for(stop: &CancellationToken, time: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(time).await;
}

fn http1_settings() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Without a timer hyper has no time limits of its own: `ClientIo` holds them, at less cost for each request.
    builder.max_buf_size(BUFFER);
    builder
}

fn http2_settings() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(BUFFER as u32)
        .max_send_buf_size(BUFFER)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}
