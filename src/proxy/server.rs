//! What the accepting tasks, the connections and the requests of one server share, and what the
//! requests of one connection share.
//!
//! It never accepts, reads or responds: `serve`, `connection` and `exchange` do.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection_limits::ConnectionLimits;
use super::connection_state::ConnectionState;
use super::context::Proxy;
use super::front::Front;
use super::latch::Latch;
use super::settings::SettingsSnapshot;
use crate::host::io_threads::IoThreads;

/// How long a client that was accepted just before the shutdown has to send its first bytes.
pub(super) const LAST_WORD: Duration = Duration::from_millis(250);

/// The two signals that end serving.
#[derive(Debug, Clone, Default)]
pub struct ShutdownSignals {
    /// No other worker follows: the kernel's backlog is served, and all requests are finished
    /// within the grace period.
    pub shutdown: CancellationToken,
    /// Another worker accepts from the same sockets: no more connections are accepted, and none is
    /// cut. A client's HTTP/1 connection stays open for the request that may be on its way, and is
    /// closed with the response.
    pub hand_over: CancellationToken,
}

/// Accepts from all listeners of a proxy, and serves its connections.
pub(super) struct ProxyServer {
    pub(super) proxy: Arc<Proxy>,
    pub(super) limits: Arc<ConnectionLimits>,
    pub(super) io_threads: IoThreads,
    pub(super) connections: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) hand_over: CancellationToken,
    /// The same as `stop`, for connections.
    pub(super) stopping: Latch,
    /// The same as `hand_over`, for requests.
    pub(super) handed_over: Latch,
    /// The grace period is over.
    pub(super) cut: Latch,
    pub(super) accepted: AtomicU64,
}

/// Where a connection came from.
#[derive(Clone, Copy)]
pub(super) struct ConnectionSource {
    pub(super) front: Front,
    pub(super) peer: Option<IpAddr>,
    /// The local port.
    pub(super) port: u16,
}

/// What the requests of one connection share. It has one reference count for all its parts: their
/// own counts are shared by all I/O threads, and CPUs that write the same count slow each other
/// down.
pub(super) struct ConnectionContext {
    pub(super) server: Arc<ProxyServer>,
    pub(super) source: ConnectionSource,
    pub(super) connection: Arc<ConnectionState>,
    pub(super) settings: SettingsSnapshot,
}

impl ConnectionContext {
    /// Returns it with the settings in force now.
    pub(super) fn current(context: &RefCell<Arc<Self>>) -> Arc<Self> {
        let mut last = context.borrow_mut();
        let shared = &last.server.proxy.settings;
        if !last.settings.is_current(shared) {
            let settings = SettingsSnapshot::of(shared);
            *last = Arc::new(Self {
                server: last.server.clone(),
                source: last.source,
                connection: last.connection.clone(),
                settings,
            });
        }
        last.clone()
    }
}

/// Resolves this long after the shutdown has begun.
pub(super) async fn stopped_for(stop: &CancellationToken, time: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(time).await;
}
