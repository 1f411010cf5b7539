//! Listening TCP sockets from the kernel's table: at a port, at all ports, and the one that a
//! connection would reach.
//!
//! It uses netlink, and `/proc` where netlink is refused. It never reports "no process" if it could
//! not check.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::NlasIterator;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, INET_DIAG_SKV6ONLY, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use procfs::net::TcpState;

use super::sock_diag::{attribute_value, dump, number, one};

/// Identifies a socket until the next boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketIdentity {
    /// Its inode, as shown in `/proc/PID/fd`.
    pub inode: u64,
    /// Its cookie, which is never reused; 0 if read from `/proc`.
    pub cookie: u64,
}

/// A TCP socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// The socket.
    pub id: SocketIdentity,
    /// Its address.
    pub address: SocketAddr,
    /// It accepts no IPv4 connections.
    pub v6_only: bool,
    /// The user that made it.
    pub uid: u32,
}

impl Listening {
    /// Whether a connection to this address may reach it.
    #[must_use]
    pub fn may_answer_at(&self, address: SocketAddr) -> bool {
        let own = self.address.ip().to_canonical();
        let any = match own {
            IpAddr::V4(ip) => ip.is_unspecified() && address.is_ipv4(),
            IpAddr::V6(ip) => ip.is_unspecified() && !(self.v6_only && address.is_ipv4()),
        };
        self.address.port() == address.port() && (own == address.ip().to_canonical() || any)
    }
}

/// All sockets that listen at this port; 0: at any port.
///
/// # Errors
/// Neither netlink nor `/proc` answers.
pub fn at_port(port: u16) -> io::Result<Vec<Listening>> {
    table(port).or_else(|_| by_proc(port))
}

/// The socket that a connection to this address would reach now; `None`: no process listens there.
///
/// # Errors
/// As for [`at_port`].
pub fn reached(address: SocketAddr) -> io::Result<Option<Listening>> {
    one(SockDiagMessage::InetRequest(one_at(address)), read).or_else(|_| {
        Ok(by_proc(address.port())?
            .into_iter()
            .find(|l| l.may_answer_at(address)))
    })
}

/// Whether a process listens there. One query to the kernel, which makes no connection; never reads
/// `/proc`.
///
/// # Errors
/// The kernel does not answer such questions.
pub fn is_heard(address: SocketAddr) -> io::Result<bool> {
    one(SockDiagMessage::InetRequest(one_at(address)), read).map(|found| found.is_some())
}

fn one_at(address: SocketAddr) -> InetRequest {
    let mut request = request(
        if address.is_ipv4() { AF_INET } else { AF_INET6 },
        address.port(),
    );
    request.socket_id.source_address = address.ip();
    request.socket_id.cookie = [0xff; 8];
    request
}

fn table(port: u16) -> io::Result<Vec<Listening>> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        dump(
            SockDiagMessage::InetRequest(request(family, port)),
            |payload| {
                // The kernel filters by port; unexpected entries are skipped.
                found.extend(read(payload).filter(|l| port == 0 || l.address.port() == port));
            },
        )?;
    }
    Ok(found)
}

fn request(family: u8, port: u16) -> InetRequest {
    let mut socket_id = if family == AF_INET {
        SocketId::new_v4()
    } else {
        SocketId::new_v6()
    };
    socket_id.source_port = port;
    InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::LISTEN,
        socket_id,
    }
}

/// Parses an entry: `struct inet_diag_msg`, then attributes.
fn read(payload: &[u8]) -> Option<Listening> {
    let port = u16::from_be_bytes([*payload.get(4)?, *payload.get(5)?]);
    let ip = match *payload.first()? {
        AF_INET => IpAddr::V4(Ipv4Addr::from(
            <[u8; 4]>::try_from(payload.get(8..12)?).ok()?,
        )),
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(
            <[u8; 16]>::try_from(payload.get(8..24)?).ok()?,
        )),
        _ => return None,
    };
    let cookie = u64::from(number(payload, 44)?) | u64::from(number(payload, 48)?) << 32;
    let (uid, inode) = (number(payload, 64)?, number(payload, 68)?);
    let mut v6_only = false;
    for attribute in NlasIterator::new(payload.get(72..)?) {
        let attribute = attribute.ok()?;
        if attribute.kind() == INET_DIAG_SKV6ONLY {
            v6_only = attribute_value(payload, &attribute)?.first() == Some(&1);
        }
    }
    Some(Listening {
        id: SocketIdentity {
            inode: inode.into(),
            cookie,
        },
        address: SocketAddr::new(ip, port),
        v6_only,
        uid,
    })
}

/// The same from `/proc`, which does not show which sockets refuse IPv4: it may return one too
/// many.
fn by_proc(port: u16) -> io::Result<Vec<Listening>> {
    let v4 = procfs::net::tcp().map_err(io::Error::other)?;
    // A kernel without IPv6 has no such table.
    let v6 = procfs::net::tcp6().unwrap_or_default();
    let listening = |e: &procfs::net::TcpNetEntry| {
        e.state == TcpState::Listen && (port == 0 || e.local_address.port() == port)
    };
    let line = |e: procfs::net::TcpNetEntry| Listening {
        id: SocketIdentity {
            inode: e.inode,
            cookie: 0,
        },
        address: e.local_address,
        v6_only: false,
        uid: e.uid,
    };
    Ok(v4
        .into_iter()
        .chain(v6)
        .filter(listening)
        .map(line)
        .collect())
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};
    use std::net::TcpListener;

    use super::*;

    fn on(any: &str, v6_only: bool) -> (Socket, SocketAddr) {
        let address: SocketAddr = any.parse().unwrap();
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(v6_only).unwrap();
        }
        socket.bind(&address.into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        (socket, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    #[test]
    fn who_listens_is_found_by_every_way_of_asking() {
        for any in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0", "[::ffff:127.0.0.1]:0"] {
            let (socket, address) = on(any, false);
            assert!(
                at_port(address.port()).unwrap().is_empty() && reached(address).unwrap().is_none(),
                "{any}"
            );
            assert!(!is_heard(address).unwrap(), "{any}");
            socket.listen(8).unwrap();
            let seen = at_port(address.port()).unwrap();
            assert_eq!(seen.len(), 1, "{any}: {seen:?}");
            assert!(
                seen[0].may_answer_at(address) && seen[0].uid == nix::unistd::geteuid().as_raw(),
                "{any}: {seen:?}"
            );
            assert_eq!(
                reached(address).unwrap().map(|l| l.id),
                Some(seen[0].id),
                "{any}"
            );
            let text = by_proc(address.port()).unwrap();
            assert_eq!(
                (text[0].id.inode, text[0].uid),
                (seen[0].id.inode, seen[0].uid),
                "{any}"
            );
            assert!(at_port(0).unwrap().iter().any(|l| l.id == seen[0].id));
            drop(socket);
            assert!(reached(address).unwrap().is_none(), "{any}");
        }
    }

    #[test]
    fn who_takes_no_ipv4_and_who_has_another_address_is_not_in_the_way() {
        let (socket, address) = on("[::]:0", true);
        socket.listen(8).unwrap();
        let seen = at_port(address.port()).unwrap();
        assert!(
            seen.len() == 1 && seen[0].v6_only && !seen[0].may_answer_at(address),
            "{seen:?}"
        );
        assert!(seen[0].may_answer_at(SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()))));
        let other = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = other.local_addr().unwrap().port();
        assert!(
            !at_port(port)
                .unwrap()
                .iter()
                .any(|l| l.may_answer_at(SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
        );
    }

    #[test]
    fn broken_lines_are_passed_over() {
        let mut whole = vec![0; 72];
        whole[0] = AF_INET6;
        whole.extend([5, 0, 11, 0, 1, 0, 0, 0]);
        assert!(read(&whole).unwrap().v6_only);
        for cut in 0..whole.len() {
            let _ = read(&whole[..cut]);
        }
    }
}
