//! The kernel's socket table by `sock_diag`: one dump for all unix sockets, two for TCP.
//!
//! It reads and reports; what counts is decided in `count`.
//!
//! Seen on Linux 6: a connection that nobody has accepted yet is not in the dump of unix sockets by itself, only in its
//! listener's queue; once accepted it is there under the listener's path, whatever became of the file. So the two add up.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NlasIterator};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_LISTEN};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::unix::{ShowFlags, StateFlags as UnixStates, UnixRequest};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::count::{Counter, FileId, TcpSocket, UnixSocket};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The kernel fills at most this much at once.
const BUFFER: usize = 64 * 1024;
/// The kernel answers at once; this only keeps a fault from hanging the thread.
const LIMIT: Duration = Duration::from_secs(5);

/// Attributes of a unix socket.
const NAME: u16 = 0;
const FILE: u16 = 1;
const QUEUE: u16 = 4;
const SHUTDOWN: u16 = 6;
/// Neither side can send any more: the other one has closed it.
const BOTH_WAYS: u8 = 3;

/// Shows every socket that may matter to the counter.
pub fn count(counter: &mut Counter) -> io::Result<()> {
    if counter.wants_unix() {
        dump(unix_request(UnixStates::ESTABLISHED | UnixStates::LISTEN), |payload| {
            if let Some(socket) = unix_socket(payload) {
                counter.unix(&socket);
            }
        })?;
    }
    let ports: Vec<u16> = counter.ports().collect();
    if ports.is_empty() {
        return Ok(());
    }
    // The kernel filters by one port itself; for several one dump of all is cheaper than many.
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

/// How many connections nobody has accepted yet wait for the listener on this path; `None`: nobody listens there.
pub fn queue(path: &Path, file: Option<FileId>) -> io::Result<Option<u32>> {
    let mut length = None;
    dump(unix_request(UnixStates::LISTEN), |payload| {
        if let Some(socket) = unix_socket(payload)
            && (socket.file.is_some() && socket.file == file || socket.path == path.as_os_str().as_bytes())
        {
            length = Some(socket.connections);
        }
    })?;
    Ok(length)
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
    let mut socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    socket_id.source_port = port;
    let states = StateFlags::ESTABLISHED | StateFlags::SYN_RECV | StateFlags::CLOSE_WAIT | StateFlags::FIN_WAIT1 | StateFlags::FIN_WAIT2;
    SockDiagMessage::InetRequest(InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::empty(), states, socket_id })
}

/// A line of the dump of unix sockets; `None`: not bound to a path.
fn unix_socket(payload: &[u8]) -> Option<UnixSocket<'_>> {
    let state = *payload.get(2)?;
    let (mut path, mut file, mut queue, mut is_gone): (&[u8], _, _, _) = (&[], None, 0, false);
    for attribute in NlasIterator::new(payload.get(16..)?) {
        let attribute = attribute.ok()?;
        let value = attribute_value(payload, &attribute)?;
        match attribute.kind() {
            NAME => path = value.split(|b| *b == 0).next().unwrap_or_default(),
            FILE => file = Some(FileId { inode: number(value, 0)?, device: number(value, 4)? }),
            QUEUE => queue = number(value, 0)?,
            SHUTDOWN => is_gone = value.first() == Some(&BOTH_WAYS),
            _ => {}
        }
    }
    let connections = if state == TCP_LISTEN { queue } else { 1 };
    let gone = if is_gone && state != TCP_LISTEN { Some(cookie(payload, 8)?) } else { None };
    (!path.is_empty()).then_some(UnixSocket { path, file, connections, gone })
}

/// The bytes of an attribute, borrowed from the payload (the crate's own accessor borrows from its short-lived wrapper).
fn attribute_value<'a>(payload: &'a [u8], attribute: &netlink_packet_core::NlaBuffer<&[u8]>) -> Option<&'a [u8]> {
    let value = attribute.value();
    let start = (value.as_ptr() as usize).checked_sub(payload.as_ptr() as usize)?;
    payload.get(start..start + value.len())
}

/// A line of a dump of TCP sockets: `struct inet_diag_msg`.
fn tcp_socket(payload: &[u8]) -> Option<TcpSocket> {
    let port = u16::from_be_bytes([*payload.get(4)?, *payload.get(5)?]);
    Some(TcpSocket { port, state: *payload.get(1)?, held: number(payload, 68)? != 0, id: cookie(payload, 44)? })
}

/// The number that the kernel gives to no other socket.
fn cookie(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(number(bytes, at)?) | u64::from(number(bytes, at + 4)?) << 32)
}

/// The number at this place, in the machine's own order.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Asks and hands every line of the answer to `each`.
fn dump(request: SockDiagMessage, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(LIMIT))?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, request.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        let got = socket.recv(&mut buffer, libc::MSG_TRUNC)?;
        if got > buffer.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer of the kernel does not fit"));
        }
        if read_part(&buffer, &mut each)? {
            return Ok(());
        }
    }
}

/// Reads one datagram of an answer; `true`: it was the last.
fn read_part(mut bytes: &[u8], each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    while !bytes.is_empty() {
        let message = NetlinkBuffer::new_checked(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        match message.message_type() {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = number(message.payload(), 0).map_or(0, u32::cast_signed);
                return Err(io::Error::from_raw_os_error(-code));
            }
            _ => each(message.payload()),
        }
        let length = (message.length() as usize).next_multiple_of(4);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(false)
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
        let queue = attribute(QUEUE, &[3_u32.to_ne_bytes(), 128_u32.to_ne_bytes()].concat());
        let file = attribute(FILE, &[7_u32.to_ne_bytes(), 9_u32.to_ne_bytes()].concat());
        let listener = line(TCP_LISTEN, &[attribute(NAME, b"/a/b\0"), file, queue.clone()]);
        let seen = unix_socket(&listener).unwrap();
        assert_eq!((seen.path, seen.file, seen.connections), (&b"/a/b"[..], Some(FileId { device: 9, inode: 7 }), 3));
        let accepted = line(1, &[attribute(NAME, b"/a/b\0"), queue]);
        assert_eq!((unix_socket(&accepted).unwrap().connections, unix_socket(&accepted).unwrap().gone), (1, None));
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
            let _ = read_part(&whole[..cut], &mut |_| ());
        }
    }

    #[test]
    fn an_error_of_the_kernel_is_one() {
        let mut bytes = vec![0; 20];
        bytes[..4].copy_from_slice(&20_u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        bytes[16..].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(read_part(&bytes, &mut |_| ()).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
