//! The sockets that requests come in by: made by `driver::host::listen`, or handed over by systemd.
//!
//! It never reads from a connection.

use std::io;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::Front;

/// A silent client is asked for a sign of life after this long.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A socket to accept from, and who speaks there. Made inside a tokio runtime.
pub struct Listener {
    pub(super) socket: Accepts,
    pub(super) front: Front,
}

pub(super) enum Accepts {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    /// A TCP listener made by `driver::host::listen::tcp` or handed over by systemd.
    ///
    /// # Errors
    /// It cannot be made non-blocking or watched.
    pub fn from_tcp(listener: std::net::TcpListener, front: Front) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        // Linux hands both on to every accepted connection. The second ends the streams of clients that lost their power.
        let socket = SockRef::from(&listener);
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4))?;
        Ok(Self { socket: Accepts::Tcp(tokio::net::TcpListener::from_std(listener)?), front })
    }

    /// A unix listener made by `driver::host::listen::unix` or handed over by systemd.
    ///
    /// # Errors
    /// It cannot be made non-blocking or watched.
    pub fn from_unix(listener: UnixListener, front: Front) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { socket: Accepts::Unix(tokio::net::UnixListener::from_std(listener)?), front })
    }
}
