//! Queries of the kernel's socket tables by netlink (`sock_diag(7)`): the transport only.
//!
//! The caller parses the entries.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The kernel sends at most this much at once.
const BUFFER: usize = 64 * 1024;
/// The entry of one socket is a few hundred bytes.
const ONE: usize = 4 * 1024;
/// The kernel answers at once; this keeps a fault from blocking the thread for ever.
const LIMIT: Duration = Duration::from_secs(5);

/// Requests all sockets of a kind and passes every entry to `each`.
///
/// # Errors
/// The kernel cannot be asked, or refuses.
pub fn dump(request: SockDiagMessage, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let socket = ask(request, NLM_F_REQUEST | NLM_F_DUMP)?;
    let mut buffer = Vec::with_capacity(BUFFER);
    while !read_part(receive(&socket, &mut buffer)?, &mut each)? {}
    Ok(())
}

thread_local! {
    /// This thread's socket for [`one`]: to make one takes five times as long as a query.
    static KEPT: Cell<Option<Socket>> = const { Cell::new(None) };
}

/// Requests one socket, whose entry `read` parses; `None`: there is no such socket.
///
/// # Errors
/// As for [`dump`].
pub fn one<T>(
    request: SockDiagMessage,
    read: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    let socket = KEPT.take().map_or_else(new, Ok)?;
    send(&socket, request, NLM_F_REQUEST)?;
    let mut buffer = Vec::with_capacity(ONE);
    let answer = receive(&socket, &mut buffer)?;
    // Not kept after an error above: a late answer would be taken for that of the next query.
    KEPT.set(Some(socket));
    let mut found = None;
    match read_part(answer, &mut |payload| found = read(payload)) {
        Ok(_) => Ok(found),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn ask(request: SockDiagMessage, flags: u16) -> io::Result<Socket> {
    let socket = new()?;
    send(&socket, request, flags)?;
    Ok(socket)
}

fn new() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(LIMIT))?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn send(socket: &Socket, request: SockDiagMessage, flags: u16) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, request.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).map(drop)
}

fn receive<'a>(socket: &Socket, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
    buffer.clear();
    let got = socket.recv(buffer, libc::MSG_TRUNC)?;
    if got > buffer.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "an answer of the kernel is too long",
        ));
    }
    Ok(buffer)
}

/// Parses one datagram of an answer; `true`: it was the last.
fn read_part(mut bytes: &[u8], each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    while !bytes.is_empty() {
        let message = NetlinkBuffer::new_checked(bytes)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        match message.message_type() {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = number(message.payload(), 0).map_or(0, u32::cast_signed);
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            _ => each(message.payload()),
        }
        let length = (message.length() as usize).next_multiple_of(4);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(false)
}

/// The bytes of an attribute, borrowed from the payload (the crate's own accessor borrows from a
/// temporary value).
#[must_use]
pub fn attribute_value<'a>(
    payload: &'a [u8],
    attribute: &netlink_packet_core::NlaBuffer<&[u8]>,
) -> Option<&'a [u8]> {
    let value = attribute.value();
    let start = (value.as_ptr() as usize).checked_sub(payload.as_ptr() as usize)?;
    payload.get(start..start + value.len())
}

/// The number at this offset, in native byte order.
#[must_use]
pub fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_kernel_is_one() {
        let mut bytes = vec![0; 20];
        bytes[..4].copy_from_slice(&20_u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        bytes[16..].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(
            read_part(&bytes, &mut |_| ()).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
        for cut in 0..bytes.len() {
            let _ = read_part(&bytes[..cut], &mut |_| ());
        }
    }
}
