//! Ports of this host.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Can a server bind this loopback port now? The look binds and lets go again, so it is a hint, not a reservation.
#[must_use]
pub fn port_is_free(port: u16) -> bool {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok()
}
