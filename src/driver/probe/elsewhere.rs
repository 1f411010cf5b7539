//! Where an instance listens if not where it should: another address, port or socket.
//!
//! Searched only when a start has taken too long. It reads the kernel's tables and the open files
//! of the instance's processes.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::domain::instance::{Listen, Process};
use crate::driver::listener::shown;
use crate::host::{holding, listening};

/// At most this many places are named.
const NAMED: usize = 3;

/// A listening socket: its number, and its address for people.
struct Heard {
    inode: u64,
    place: String,
    /// It is where the instance should listen.
    wanted: bool,
}

/// Describes the place for people. `None`: it listens nowhere, or where it should, or cannot be
/// inspected. Blocks for milliseconds.
pub(super) fn of(listen: &Listen, process: Process) -> Option<String> {
    let all = on_ports(listen).chain(on_paths(listen)).collect::<Vec<_>>();
    let left = holding::search(process, all.iter().map(|heard| heard.inode))
        .ok()?
        .left;
    let own: Vec<&Heard> = all
        .iter()
        .filter(|heard| !left.contains(&heard.inode))
        .collect();
    if own.is_empty() || own.iter().any(|heard| heard.wanted) {
        return None;
    }
    let places: BTreeSet<&str> = own.iter().map(|heard| heard.place.as_str()).collect();
    let mut named: Vec<String> = places
        .iter()
        .take(NAMED)
        .map(|place| format!("`{place}`"))
        .collect();
    if places.len() > NAMED {
        named.push(format!("{} more", places.len() - NAMED));
    }
    Some(named.join(" and "))
}

fn on_ports(listen: &Listen) -> impl Iterator<Item = Heard> {
    let wanted = |at: &listening::Listening| matches!(listen, Listen::Tcp(address) if at.may_answer_at(*address));
    let all = listening::at_port(0).unwrap_or_default();
    all.into_iter().map(move |at| Heard {
        inode: at.id.inode,
        place: at.address.to_string(),
        wanted: wanted(&at),
    })
}

/// Parses lines of `/proc/net/unix`: address, count, protocol, flags, type, state, number and path.
fn on_paths(listen: &Listen) -> impl Iterator<Item = Heard> {
    /// The socket listens (`__SO_ACCEPTCON`).
    const LISTENS: u32 = 0x1_0000;
    let table = std::fs::read("/proc/net/unix").unwrap_or_default();
    let read = move |line: &[u8]| {
        let text = String::from_utf8_lossy(line).into_owned();
        let mut words = text.splitn(8, ' ').skip(3);
        let flags = u32::from_str_radix(words.next()?, 16)
            .ok()
            .filter(|flags| flags & LISTENS != 0);
        let _ = (flags?, words.next()?, words.next()?);
        // The number is right-aligned in a column of five.
        let (inode, path) = words
            .collect::<Vec<_>>()
            .join(" ")
            .trim_start()
            .split_once(' ')
            .map(|(n, path)| (n.parse().ok(), path.to_owned()))?;
        let wanted = matches!(listen, Listen::Unix(own) if Path::new(own).as_os_str().as_bytes() == path.as_bytes());
        Some(Heard {
            inode: inode?,
            place: shown(&path),
            wanted,
        })
    };
    table
        .split(|byte| *byte == b'\n')
        .filter_map(read)
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::host::process;

    #[test]
    fn other_addresses_ports_and_sockets_are_named_and_the_right_one_is_not() {
        let me = process::by_pid(i32::try_from(std::process::id()).unwrap())
            .unwrap()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (port, path) = (
            TcpListener::bind("127.0.0.1:0").unwrap(),
            dir.path().join("a b.sock"),
        );
        let address = port.local_addr().unwrap();
        assert_eq!(of(&Listen::Tcp(address), me), None);
        // Tests beside this one listen as well, in this process.
        let all: Vec<Heard> = on_ports(&Listen::Unix(path.clone()))
            .chain(on_paths(&Listen::Unix(path.clone())))
            .collect();
        assert!(
            all.iter()
                .any(|heard| heard.place == address.to_string() && !heard.wanted)
        );
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(
            on_paths(&Listen::Unix(path.clone()))
                .any(|heard| heard.wanted && heard.place == path.display().to_string())
        );
        assert!(
            on_paths(&Listen::Tcp(address))
                .any(|heard| !heard.wanted && heard.place == path.display().to_string())
        );
        assert_eq!(of(&Listen::Unix(path), me), None);
    }
}
