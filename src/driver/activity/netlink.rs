//! The kernel's socket table by `sock_diag`: one dump for all unix sockets, two for TCP.
//!
//! It reads and reports; `count` decides what counts.
//!
//! Observed on Linux 6: a connection that is not accepted yet has no entry of its own in the dump
//! of unix sockets and is only in its listener's queue. Once accepted it has an entry under the
//! listener's path, even if the file was removed. So the two add up.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use netlink_packet_core::NlasIterator;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_LISTEN};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::unix::{ShowFlags, StateFlags as UnixStates, UnixRequest};

use super::count::{Counter, FileId, TcpSocket, UnixSocket};
use crate::host::sock_diag::{attribute_value, dump, number};

/// Attributes of a unix socket.
const NAME: u16 = 0;
const FILE: u16 = 1;
const QUEUE: u16 = 4;
const SHUTDOWN: u16 = 6;
/// Neither side can send any more: the peer has closed the connection.
const BOTH_WAYS: u8 = 3;

/// Passes every relevant socket to the counter.
pub fn count(counter: &mut Counter) -> io::Result<()> {
    if counter.wants_unix() {
        dump(
            unix_request(UnixStates::ESTABLISHED | UnixStates::LISTEN),
            |payload| {
                if let Some(socket) = unix_socket(payload) {
                    counter.unix(&socket);
                }
            },
        )?;
    }
    let ports: Vec<u16> = counter.ports().collect();
    if ports.is_empty() {
        return Ok(());
    }
    // The kernel filters by one port itself; for several, one dump of all sockets is cheaper.
    let port = if let [port] = ports[..] { port } else { 0 };
    for family in [AF_INET, AF_INET6] {
        dump(inet_request(family, port), |payload| {
            if let Some(socket) = tcp_socket(payload) {
                counter.tcp(&socket);
            }
        })?;
    }
    Ok(())
}

/// A unix socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenQueue {
    /// How many connections are not accepted yet.
    pub queue: u32,
    /// Number of the socket, as `/proc/PID/fd` names it.
    pub inode: u32,
}

/// Finds the socket that listens on this path; `None`: there is none.
pub fn listener(path: &Path, file: Option<FileId>) -> io::Result<Option<ListenQueue>> {
    let mut found = None;
    dump(unix_request(UnixStates::LISTEN), |payload| {
        if let Some(socket) = unix_socket(payload)
            && (socket.file.is_some() && socket.file == file
                || socket.path == path.as_os_str().as_bytes())
        {
            found = number(payload, 4).map(|inode| ListenQueue {
                queue: socket.connections,
                inode,
            });
        }
    })?;
    Ok(found)
}

/// Finds the sockets that listen on each of these paths: by file, and where the table has no such
/// file, by the path as given.
pub fn listeners(
    paths: &[&Path],
    file_of: impl Fn(&Path) -> Option<FileId>,
) -> io::Result<Vec<Vec<u64>>> {
    let mut by_file: HashMap<FileId, Vec<u64>> = HashMap::new();
    let mut by_path: HashMap<Vec<u8>, Vec<u64>> = HashMap::new();
    dump(unix_request(UnixStates::LISTEN), |payload| {
        if let (Some(socket), Some(inode)) = (unix_socket(payload), number(payload, 4)) {
            by_path
                .entry(socket.path.to_vec())
                .or_default()
                .push(inode.into());
            if let Some(file) = socket.file {
                by_file.entry(file).or_default().push(inode.into());
            }
        }
    })?;
    let found = |path: &&Path| {
        let by_file = file_of(path).and_then(|file| by_file.get(&file));
        by_file
            .or_else(|| by_path.get(path.as_os_str().as_bytes()))
            .cloned()
            .unwrap_or_default()
    };
    Ok(paths.iter().map(found).collect())
}

fn unix_request(state_flags: UnixStates) -> SockDiagMessage {
    SockDiagMessage::UnixRequest(UnixRequest {
        state_flags,
        inode: 0,
        show_flags: ShowFlags::NAME | ShowFlags::VFS | ShowFlags::RQLEN,
        cookie: [0xff; 8],
    })
}

fn inet_request(family: u8, port: u16) -> SockDiagMessage {
    let mut socket_id = if family == AF_INET {
        SocketId::new_v4()
    } else {
        SocketId::new_v6()
    };
    socket_id.source_port = port;
    let states = StateFlags::ESTABLISHED
        | StateFlags::SYN_RECV
        | StateFlags::CLOSE_WAIT
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2;
    SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    })
}

/// Parses an entry of the dump of unix sockets; `None`: not bound to a path.
fn unix_socket(payload: &[u8]) -> Option<UnixSocket<'_>> {
    let state = *payload.get(2)?;
    let (mut path, mut file, mut queue, mut is_gone): (&[u8], _, _, _) = (&[], None, 0, false);
    for attribute in NlasIterator::new(payload.get(16..)?) {
        let attribute = attribute.ok()?;
        let value = attribute_value(payload, &attribute)?;
        match attribute.kind() {
            NAME => path = value.split(|b| *b == 0).next().unwrap_or_default(),
            FILE => {
                file = Some(FileId {
                    inode: number(value, 0)?,
                    device: number(value, 4)?,
                })
            }
            QUEUE => queue = number(value, 0)?,
            SHUTDOWN => is_gone = value.first() == Some(&BOTH_WAYS),
            _ => {}
        }
    }
    let connections = if state == TCP_LISTEN { queue } else { 1 };
    let gone = if is_gone && state != TCP_LISTEN {
        Some(cookie(payload, 8)?)
    } else {
        None
    };
    (!path.is_empty()).then_some(UnixSocket {
        path,
        file,
        connections,
        gone,
    })
}

/// Parses an entry of a dump of TCP sockets: `struct inet_diag_msg`.
fn tcp_socket(payload: &[u8]) -> Option<TcpSocket> {
    let port = u16::from_be_bytes([*payload.get(4)?, *payload.get(5)?]);
    Some(TcpSocket {
        port,
        state: *payload.get(1)?,
        held: number(payload, 68)? != 0,
        id: cookie(payload, 44)?,
    })
}

/// The socket's cookie, which the kernel never uses for another socket.
fn cookie(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(number(bytes, at)?) | u64::from(number(bytes, at + 4)?) << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn line(state: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![1, 1, state, 0];
        bytes.resize(16, 0);
        bytes.extend(attributes.concat());
        bytes
    }

    #[test]
    fn reads_a_line() {
        let queue = attribute(
            QUEUE,
            &[3_u32.to_ne_bytes(), 128_u32.to_ne_bytes()].concat(),
        );
        let file = attribute(FILE, &[7_u32.to_ne_bytes(), 9_u32.to_ne_bytes()].concat());
        let listener = line(
            TCP_LISTEN,
            &[attribute(NAME, b"/a/b\0"), file, queue.clone()],
        );
        let seen = unix_socket(&listener).unwrap();
        assert_eq!(
            (seen.path, seen.file, seen.connections),
            (
                &b"/a/b"[..],
                Some(FileId {
                    device: 9,
                    inode: 7
                }),
                3
            )
        );
        let accepted = line(1, &[attribute(NAME, b"/a/b\0"), queue]);
        assert_eq!(
            (
                unix_socket(&accepted).unwrap().connections,
                unix_socket(&accepted).unwrap().gone
            ),
            (1, None)
        );
        let half = line(1, &[attribute(NAME, b"/a/b\0"), attribute(SHUTDOWN, &[1])]);
        assert_eq!(unix_socket(&half).unwrap().gone, None);
        let mut closed = line(1, &[attribute(NAME, b"/a/b\0"), attribute(SHUTDOWN, &[3])]);
        closed[8..16].copy_from_slice(&0x0102_0304_0506_0708_u64.to_ne_bytes());
        assert!(unix_socket(&closed).unwrap().gone.is_some_and(|id| id != 0));
    }

    #[test]
    fn unnamed_abstract_and_broken_lines_are_passed_over() {
        assert!(unix_socket(&line(1, &[])).is_none());
        assert!(unix_socket(&line(1, &[attribute(NAME, b"\0abstract")])).is_none());
        assert!(unix_socket(&line(1, &[attribute(FILE, b"ab")])).is_none());
        let whole = line(1, &[attribute(NAME, b"/a/b\0")]);
        for cut in 0..whole.len() {
            let _ = unix_socket(&whole[..cut]);
            let _ = tcp_socket(&whole[..cut]);
        }
    }
}
