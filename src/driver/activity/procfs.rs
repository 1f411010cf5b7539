//! The kernel's socket table as text, for hosts where `sock_diag` is forbidden or not built in.
//!
//! Slower than netlink. For unix sockets it reports neither the file nor whether the peer has
//! closed the connection. `count` decides what counts.

use std::fs;
use std::io;

use super::count::{Counter, TcpSocket, UnixSocket};

/// Passes every relevant socket to the counter.
pub fn count(counter: &mut Counter) -> io::Result<()> {
    if counter.wants_unix() {
        // As bytes: a path need not be UTF-8.
        for line in fs::read("/proc/net/unix")?.split(|b| *b == b'\n') {
            if let Some(socket) = unix_socket(line) {
                counter.unix(&socket);
            }
        }
    }
    if counter.ports().next().is_none() {
        return Ok(());
    }
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = match fs::read_to_string(table) {
            // A kernel without IPv6 has no such table and no such connections.
            Err(e) if e.kind() == io::ErrorKind::NotFound && table.ends_with('6') => continue,
            other => other?,
        };
        text.lines()
            .filter_map(tcp_socket)
            .for_each(|socket| counter.tcp(&socket));
    }
    Ok(())
}

/// Parses a line of `/proc/net/unix`: `Num RefCount Protocol Flags Type St Inode Path`. State 02 is
/// a connection in a backlog, 03 an accepted one. The path may contain spaces.
#[must_use]
pub fn unix_socket(line: &[u8]) -> Option<UnixSocket<'_>> {
    let mut rest = line;
    let mut state: &[u8] = &[];
    for column in 0..7 {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(u8::is_ascii_whitespace)?;
        if column == 5 {
            state = &rest[..end];
        }
        rest = &rest[end..];
    }
    let path = rest.strip_prefix(b" ")?;
    let bound = !path.is_empty() && !path.starts_with(b"@");
    (bound && matches!(state, b"02" | b"03")).then_some(UnixSocket {
        path,
        file: None,
        connections: 1,
        gone: None,
    })
}

/// Parses a line of `/proc/net/tcp`: `sl local_address rem_address st tx:rx tr:when retrnsmt uid
/// timeout inode …`.
#[must_use]
pub fn tcp_socket(line: &str) -> Option<TcpSocket> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let (_, port) = columns.get(1)?.split_once(':')?;
    Some(TcpSocket {
        port: u16::from_str_radix(port, 16).ok()?,
        state: u8::from_str_radix(columns.get(3)?, 16).ok()?,
        held: *columns.get(9)? != "0",
        id: columns.get(9)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_tables() {
        let line = b"0000000000000000: 00000003 00000000 00000000 0001 03 41230 /run/a b/app.sock";
        assert_eq!(unix_socket(line).unwrap().path, b"/run/a b/app.sock");
        for other in [
            &b"0000000000000000: 00000002 00000000 00010000 0001 01 41230 /run/a/app.sock"[..],
            b"0000000000000000: 00000003 00000000 00000000 0001 03 41230",
            b"0000000000000000: 00000003 00000000 00000000 0001 03 41230 @abstract",
            b"Num       RefCount Protocol Flags    Type St Inode Path",
            b"",
        ] {
            assert!(
                unix_socket(other).is_none(),
                "{}",
                String::from_utf8_lossy(other)
            );
        }
        let tcp =
            tcp_socket("   0: 0100007F:4E21 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 77 1 0 20").unwrap();
        assert_eq!((tcp.port, tcp.state, tcp.held), (20_001, 1, true));
        assert!(tcp_socket("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode").is_none());
    }
}
