//! Ports of this host: whether one is free, and which process listens on it. It changes nothing.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use procfs::net::TcpState;
use procfs::process::{FDTarget, Process, all_processes};
use socket2::{Domain, Socket, Type};

/// Whether a server can bind this loopback port now. The check binds and closes again, so it
/// reserves nothing.
#[must_use]
pub fn port_is_free(port: u16) -> bool {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok()
}

/// Whether also a server that does not set `SO_REUSEADDR` can bind this loopback port now: for a
/// minute after a server has closed connections at a port, such a server cannot (`TIME_WAIT`).
#[must_use]
pub fn port_is_unused(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Socket::new(Domain::IPV4, Type::STREAM, None)
        .and_then(|socket| socket.bind(&address.into()))
        .is_ok()
}

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListeningProcess {
    /// Its pid.
    pub pid: i32,
    /// The pid of its parent; 0: unknown.
    pub parent: i32,
    /// Its command line.
    pub command: String,
}

/// The listening sockets that block this address, by inode; any user may see these.
#[must_use]
pub fn listening(address: SocketAddr) -> Vec<u64> {
    let tcp = procfs::net::tcp()
        .unwrap_or_default()
        .into_iter()
        .chain(procfs::net::tcp6().unwrap_or_default());
    let in_the_way = |at: SocketAddr| {
        at.port() == address.port()
            && (at.ip() == address.ip()
                || at.ip().is_unspecified()
                || address.ip().is_unspecified())
    };
    tcp.filter(|e| e.state == TcpState::Listen && in_the_way(e.local_address))
        .map(|e| e.inode)
        .collect()
}

/// The processes that hold these sockets, as far as this user may see them, lowest pid first. Reads
/// every process: do not call it while a request waits.
#[must_use]
pub fn holders(sockets: &[u64]) -> Vec<ListeningProcess> {
    if sockets.is_empty() {
        return Vec::new();
    }
    let holds = |process: &Process| {
        let Ok(mut fds) = process.fd() else {
            return false;
        };
        fds.any(|fd| {
            fd.is_ok_and(
                |fd| matches!(fd.target, FDTarget::Socket(inode) if sockets.contains(&inode)),
            )
        })
    };
    let mut listeners: Vec<ListeningProcess> = all_processes()
        .into_iter()
        .flatten()
        .flatten()
        .filter(holds)
        .map(|process| ListeningProcess {
            pid: process.pid,
            parent: process.stat().map_or(0, |stat| stat.ppid),
            command: process.cmdline().unwrap_or_default().join(" "),
        })
        .collect();
    listeners.sort_by_key(|l| l.pid);
    listeners
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn who_listens_is_found_also_behind_all_addresses() {
        for any in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let listener = TcpListener::bind(any).unwrap();
            let port = listener.local_addr().unwrap().port();
            assert!(!port_is_free(port) && !port_is_unused(port), "{any}");
            let found = holders(&listening(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
            assert!(
                found
                    .iter()
                    .any(|l| l.pid.unsigned_abs() == std::process::id() && !l.command.is_empty()),
                "{any}: {found:?}"
            );
        }
        assert!(holders(&[]).is_empty());
    }

    #[test]
    fn a_port_where_connections_were_closed_is_free_but_not_unused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = std::net::TcpStream::connect(address).unwrap();
        drop(listener.accept().unwrap());
        drop(listener);
        // The server has closed first, so its side waits.
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(client);
        assert!(port_is_free(address.port()) && !port_is_unused(address.port()));
    }
}
