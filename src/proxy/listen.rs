//! The sockets on which requests arrive: made by `host::listen`, or handed over by systemd.
//!
//! It never reads from a connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::front::Front;

/// TCP keepalive: a silent client is probed after this long.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A socket to accept from, and who connects to it. It wakes the runtime that first accepts from
/// it.
pub struct ProxyListener {
    socket: OwnedFd,
    registered: Option<AsyncFd<OwnedFd>>,
    is_tcp: bool,
    /// Users that may connect; empty: all.
    users: Vec<u32>,
    pub(super) front: Front,
    /// The port of a TCP listener.
    pub(super) port: u16,
}

/// An accepted connection, not yet registered with a runtime: the one that serves it does so.
pub(super) enum AcceptedClient {
    Tcp(std::net::TcpStream, IpAddr),
    Unix(std::os::unix::net::UnixStream),
}

impl ProxyListener {
    /// A TCP listener made by `host::listen::tcp` or handed over by systemd.
    ///
    /// # Errors
    /// It cannot be made non-blocking.
    pub fn from_tcp(listener: std::net::TcpListener, front: Front) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        // Accepted connections inherit both. Keepalive ends the streams of clients that lost power.
        let socket = SockRef::from(&listener);
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(KEEPALIVE)
                .with_interval(KEEPALIVE / 4),
        )?;
        let port = listener.local_addr()?.port();
        Ok(Self {
            socket: listener.into(),
            registered: None,
            is_tcp: true,
            users: Vec::new(),
            front,
            port,
        })
    }

    /// A unix listener made by `host::listen::unix` or handed over by systemd.
    ///
    /// # Errors
    /// It cannot be made non-blocking.
    pub fn from_unix(listener: UnixListener, front: Front) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            socket: listener.into(),
            registered: None,
            is_tcp: false,
            users: Vec::new(),
            front,
            port: 0,
        })
    }

    /// Serves only processes of these users; connections of others are closed without a response.
    #[must_use]
    pub fn only_for(mut self, users: Vec<u32>) -> Self {
        self.users = users;
        self
    }

    /// Whether the user of the connecting process, as the kernel reports it (`SO_PEERCRED`,
    /// unix(7)), may connect, whatever the file's mode allows by now.
    fn may_connect(&self, client: &OwnedFd) -> bool {
        self.users.is_empty()
            || socket_peercred(client).is_ok_and(|peer| self.users.contains(&peer.uid.as_raw()))
    }

    async fn accept_any(&mut self) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = match &mut self.registered {
            Some(registered) => registered,
            none => none.insert(registered(self.socket.try_clone()?)?),
        };
        loop {
            let mut ready = socket.readable().await?;
            if let Ok(accepted) = ready.try_io(|socket| Ok(acceptfrom_with(socket, flags)?)) {
                return accepted;
            }
        }
    }

    /// Accepts the next client. Dropping the future loses none.
    pub(super) async fn accept(&mut self) -> io::Result<AcceptedClient> {
        let (fd, peer) = loop {
            let (fd, peer) = self.accept_any().await?;
            if self.is_tcp {
                break (fd, peer);
            }
            if self.may_connect(&fd) {
                return Ok(AcceptedClient::Unix(fd.into()));
            }
            tracing::debug!("refused a connection from a user without access");
        };
        let peer = peer
            .map(SocketAddr::try_from)
            .and_then(Result::ok)
            .ok_or_else(|| io::Error::other("a client without an address"))?;
        Ok(AcceptedClient::Tcp(fd.into(), peer.ip()))
    }
}

fn registered(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "tokio registers descriptors only unsafely")]
    // SAFETY: `OwnedFd` returns the same descriptor every time and keeps it open until the
    // `AsyncFd` that owns it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}
