//! Accepts clients and assigns their connections to I/O threads until it is stopped. Then it
//! finishes the current requests: within the grace period of a shutdown, or without a limit if
//! another worker has taken the sockets over.
//!
//! It never reads from a connection, and never ends by itself.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::TaskTracker;

use super::client_io::{ClientIo, ClientSocket};
use super::connection::MaybeLimited;
use super::connection_limits::ConnectionLimits;
use super::context::Proxy;
use super::latch::Latch;
use super::listen::{AcceptedClient, ProxyListener};
use super::server::{ConnectionSource, LAST_WORD, ProxyServer, ShutdownSignals, stopped_for};
use super::settings::SettingsSnapshot;
use super::timeouts::ConnectionTimeouts;
use crate::host::io_threads::IoThreads;

/// Pauses after an error: without a free descriptor, accepting again at once would only use CPU
/// time.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// How many connections were served and cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServeReport {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections, including upgraded ones, that were cut because they outlasted the grace period.
    pub cut: usize,
}

/// Serves until one of `signals`. Then accepts no more connections and finishes what is held or in
/// flight: after a hand-over without a limit, after a shutdown for up to `grace`, and cuts the
/// rest. Sockets are closed when it returns; the files of unix sockets stay. Connections are served
/// on `io_threads`. Call it once for a [`Proxy`], with all its listeners: the cut at the end
/// reaches all its upgraded connections.
pub async fn serve(
    listeners: Vec<ProxyListener>,
    proxy: Arc<Proxy>,
    io_threads: IoThreads,
    signals: ShutdownSignals,
    grace: Duration,
) -> ServeReport {
    let server = Arc::new(ProxyServer {
        io_threads,
        cut: Latch::default(),
        stopping: Latch::default(),
        handed_over: Latch::default(),
        proxy,
        limits: ConnectionLimits::new(),
        connections: TaskTracker::new(),
        stop: signals.shutdown,
        hand_over: signals.hand_over,
        accepted: AtomicU64::new(0),
    });
    let raise = async {
        tokio::join!(
            server.stop.cancelled().map(|()| server.stopping.raise()),
            server
                .hand_over
                .cancelled()
                .map(|()| server.handed_over.raise())
        );
        std::future::pending().await
    };
    tokio::select! {
        report = server.serve(listeners, grace) => report,
        report = raise => report,
        report = server.proxy.resting.give_back() => report,
    }
}

impl ProxyServer {
    async fn serve(
        self: &Arc<Self>,
        listeners: Vec<ProxyListener>,
        grace: Duration,
    ) -> ServeReport {
        let accepting = TaskTracker::new();
        for listener in listeners {
            self.io_threads
                .spawn_on_first(&accepting, self.clone().accept_all(listener));
        }
        accepting.close();
        accepting.wait().await;
        let (connections, upgraded) = (&self.connections, &self.proxy.upgraded);
        connections.close();
        upgraded.close();
        // In this order, because a connection may still be upgraded.
        let all_done = async {
            connections.wait().await;
            upgraded.wait().await;
        };
        let cut = tokio::select! {
            () = all_done => 0,
            () = stopped_for(&self.stop, grace) => {
                let left = connections.len() + upgraded.len();
                self.cut.raise();
                self.proxy.cut.cancel();
                connections.wait().await;
                upgraded.wait().await;
                left
            }
        };
        ServeReport {
            accepted: self.accepted.load(Ordering::Relaxed),
            cut,
        }
    }

    async fn accept_all(self: Arc<Self>, mut listener: ProxyListener) {
        let mut back_off = BACK_OFF.0;
        let mut late = pin!(stopped_for(&self.stop, LAST_WORD));
        loop {
            let accepted = tokio::select! {
                biased;
                // The backlog belongs to the next worker.
                () = self.hand_over.cancelled() => return,
                // The backlog first: what the kernel has accepted is served, unless new connections
                // never stop.
                () = late.as_mut() => return,
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok(client) => {
                    back_off = BACK_OFF.0;
                    self.serve_client(&listener, client);
                }
                // The client left before it was accepted.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                    ) => {}
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

    /// Serves an accepted client, unless this client or all together have too many connections.
    fn serve_client(self: &Arc<Self>, listener: &ProxyListener, client: AcceptedClient) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        match client {
            AcceptedClient::Tcp(socket, peer) => {
                let settings = SettingsSnapshot::of(&self.proxy.settings);
                let (per_client, shared) =
                    (settings.get().per_client, &settings.get().shared_addresses);
                let Some(limited) = self.limits.try_open(&socket, peer, per_client, shared) else {
                    return;
                };
                let source = ConnectionSource {
                    front: listener.front,
                    peer: Some(peer),
                    port: listener.port,
                };
                self.start_connection(|| TcpStream::from_std(socket), source, Some(limited));
            }
            AcceptedClient::Unix(socket) => {
                let source = ConnectionSource {
                    front: listener.front,
                    peer: None,
                    port: 0,
                };
                self.start_connection(|| UnixStream::from_std(socket), source, None);
            }
        }
    }

    /// Assigns a connection to an I/O thread. What lasts as long as the connection is allocated
    /// here, by the accepting thread, apart from the allocations of requests: mixed with those, a
    /// resting connection of a kilobyte would keep two or three pages from being freed.
    fn start_connection<S: ClientSocket>(
        self: &Arc<Self>,
        register: impl FnOnce() -> io::Result<S>,
        source: ConnectionSource,
        limited: MaybeLimited,
    ) {
        self.io_threads.spawn_on_least_loaded(|| {
            let client = register().map(|socket| {
                Box::new(ClientIo::new(socket, ConnectionTimeouts::of(source.front)))
            });
            let limited = limited.map(|mut limited| {
                client
                    .iter()
                    .for_each(|client| limited.register(client.state()));
                limited
            });
            self.connections
                .track_future(self.clone().run_connection(client, source, limited))
        });
    }
}
