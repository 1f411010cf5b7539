//! Decides which sockets count as use of which instance. Pure: sockets in, counts out.
//!
//! It may count one connection too many (one that is just being closed), never one too few.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::domain::instance::Listen;

/// A file as the kernel names it in its socket table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Number of the filesystem, in the kernel's internal encoding.
    pub device: u32,
    /// The low half of the inode.
    pub inode: u32,
}

/// One bound unix socket.
#[derive(Debug, Clone, Copy)]
pub struct UnixSocket<'a> {
    /// The path as the application passed it to `bind`; may be relative.
    pub path: &'a [u8],
    /// The file at that path, if the kernel reports it.
    pub file: Option<FileId>,
    /// How many connections this entry of the table stands for: one, or those waiting in a
    /// listener's backlog.
    pub connections: u32,
    /// The socket's number, the same in every read, if the peer has closed the connection.
    pub gone: Option<u64>,
}

/// States of a TCP connection, by the kernel's numbers.
mod state {
    pub(super) const ESTABLISHED: u8 = 1;
    pub(super) const SYN_RECV: u8 = 3;
    pub(super) const FIN_WAIT1: u8 = 4;
    pub(super) const FIN_WAIT2: u8 = 5;
    pub(super) const CLOSE_WAIT: u8 = 8;
}

/// One TCP socket.
#[derive(Debug, Clone, Copy)]
pub struct TcpSocket {
    /// The port of its own side.
    pub port: u16,
    /// Its state.
    pub state: u8,
    /// A process holds the socket. False while it is in the backlog and after its process has
    /// closed it.
    pub held: bool,
    /// Its number, the same in every read.
    pub id: u64,
}

/// Counts for many instances in one pass over the socket table.
#[derive(Debug)]
pub struct Counter {
    /// Index into `counts`, by path, by file and by port.
    by_path: HashMap<Vec<u8>, usize>,
    by_file: HashMap<FileId, usize>,
    by_port: HashMap<u16, usize>,
    /// For each target, its index into `counts`.
    places: Vec<usize>,
    counts: Vec<u32>,
    /// Connections that only the application still holds open: index into `counts`, and socket
    /// number.
    gone: Vec<(usize, u64)>,
}

impl Counter {
    /// Makes a counter for these addresses; `file_of` finds the file of a socket's path.
    pub fn new<'a>(
        listens: impl IntoIterator<Item = &'a Listen>,
        file_of: impl Fn(&Path) -> Option<FileId>,
    ) -> Self {
        let (mut by_path, mut by_file, mut by_port) =
            (HashMap::new(), HashMap::new(), HashMap::new());
        let (mut places, mut next) = (Vec::new(), 0_usize);
        for listen in listens {
            let place = match listen {
                Listen::Unix(path) => {
                    let place = *by_path
                        .entry(path.as_os_str().as_bytes().to_vec())
                        .or_insert(next);
                    by_file.extend(file_of(path).map(|file| (file, place)));
                    place
                }
                Listen::Tcp(address) => *by_port.entry(address.port()).or_insert(next),
            };
            next = next.max(place + 1);
            places.push(place);
        }
        Self {
            by_path,
            by_file,
            by_port,
            places,
            counts: vec![0; next],
            gone: Vec::new(),
        }
    }

    /// Whether any target listens on a unix socket.
    #[must_use]
    pub fn wants_unix(&self) -> bool {
        !self.by_path.is_empty()
    }

    /// The TCP ports of the targets.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.by_port.keys().copied()
    }

    /// Counts a unix socket that is established or listens.
    pub fn unix(&mut self, socket: &UnixSocket<'_>) {
        let by_file = || {
            socket
                .file
                .and_then(|file| self.by_file.get(&file))
                .copied()
        };
        let place = self
            .by_path
            .get(socket.path)
            .copied()
            .or_else(by_file)
            .or_else(|| self.relative(socket));
        if let Some(place) = place {
            self.add(place, socket.connections, socket.gone);
        }
    }

    /// Finds the target of a relative path. Without the socket's file, any target whose path ends
    /// with it matches: that may count one too many.
    fn relative(&self, socket: &UnixSocket<'_>) -> Option<usize> {
        let tail = socket.path.strip_prefix(b"./").unwrap_or(socket.path);
        if socket.file.is_some() || tail.is_empty() || tail.starts_with(b"/") {
            return None;
        }
        let ends_so = |path: &[u8]| {
            path.strip_suffix(tail)
                .is_some_and(|head| head.ends_with(b"/"))
        };
        self.by_path
            .iter()
            .find(|(path, _)| ends_so(path))
            .map(|(_, place)| *place)
    }

    /// Counts a TCP socket in any state.
    ///
    /// A connection in the backlog has an entry of its own, held by no process, so a listener's
    /// queue is not added. Once the application has closed a connection it is not counted: the
    /// kernel delivers the rest. A half-closed connection is still held.
    pub fn tcp(&mut self, socket: &TcpSocket) {
        let in_use = match socket.state {
            state::ESTABLISHED | state::SYN_RECV | state::CLOSE_WAIT => true,
            state::FIN_WAIT1 | state::FIN_WAIT2 => socket.held,
            _ => false,
        };
        if let (true, Some(place)) = (in_use, self.by_port.get(&socket.port).copied()) {
            self.add(
                place,
                1,
                (socket.state == state::CLOSE_WAIT).then_some(socket.id),
            );
        }
    }

    fn add(&mut self, place: usize, connections: u32, gone: Option<u64>) {
        match (gone, self.counts.get_mut(place)) {
            (Some(id), _) => self.gone.push((place, id)),
            (None, Some(count)) => *count = count.saturating_add(connections),
            (None, None) => {}
        }
    }

    /// Returns one number per target, in their order. `is_use` says, by socket number, whether a
    /// connection that the peer has closed still counts.
    #[must_use]
    pub fn finish(mut self, mut is_use: impl FnMut(u64) -> bool) -> Vec<u32> {
        for (place, id) in std::mem::take(&mut self.gone) {
            self.add(place, u32::from(is_use(id)), None);
        }
        self.places
            .iter()
            .map(|place| self.counts.get(*place).copied().unwrap_or(0))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &str) -> Listen {
        Listen::Unix(path.into())
    }

    fn socket(path: &str, file: Option<FileId>, connections: u32) -> UnixSocket<'_> {
        UnixSocket {
            path: path.as_bytes(),
            file,
            connections,
            gone: None,
        }
    }

    const A_FILE: FileId = FileId {
        device: 1,
        inode: 7,
    };

    fn counter(listens: &[Listen]) -> Counter {
        Counter::new(listens, |path| {
            (path == Path::new("/run/a/app.sock")).then_some(A_FILE)
        })
    }

    #[test]
    fn a_socket_is_known_by_path_or_file_and_counted_once() {
        let mut c = counter(&[unix("/run/a/app.sock"), unix("/run/b/app.sock")]);
        c.unix(&socket("/run/a/app.sock", Some(A_FILE), 1));
        c.unix(&socket("app.sock", Some(A_FILE), 1));
        c.unix(&socket("/var/run/a/app.sock", Some(A_FILE), 3));
        c.unix(&socket("/run/b/app.sock", None, 1));
        c.unix(&socket("/run/c/app.sock", None, 9));
        c.unix(&socket(
            "app.sock",
            Some(FileId {
                device: 1,
                inode: 8,
            }),
            9,
        ));
        assert_eq!(c.finish(|_| true), [5, 1]);
    }

    #[test]
    fn a_relative_path_without_a_file_counts_for_somebody() {
        let mut c = counter(&[unix("/run/b/web.sock")]);
        c.unix(&socket("./web.sock", None, 1));
        c.unix(&socket("b/web.sock", None, 1));
        c.unix(&socket("eb.sock", None, 1));
        c.unix(&socket("", None, 1));
        assert_eq!(c.finish(|_| true), [2]);
    }

    #[test]
    fn the_same_listen_twice_and_many_in_order() {
        let tcp = Listen::Tcp("127.0.0.1:80".parse().unwrap());
        let mut c = counter(&[unix("/x"), tcp.clone(), unix("/x"), unix("/y")]);
        assert!(c.wants_unix());
        assert_eq!(c.ports().collect::<Vec<_>>(), [80]);
        c.unix(&socket("/x", None, 2));
        c.tcp(&TcpSocket {
            port: 80,
            state: 1,
            held: true,
            id: 7,
        });
        assert_eq!(c.finish(|_| true), [2, 1, 2, 0]);
        assert!(counter(&[]).finish(|_| true).is_empty());
    }

    #[test]
    fn what_the_other_side_has_closed_is_use_by_its_number() {
        let tcp = Listen::Tcp("127.0.0.1:80".parse().unwrap());
        let mut c = counter(&[unix("/x"), tcp]);
        for id in [1, 2, 3] {
            c.unix(&UnixSocket {
                gone: Some(id),
                ..socket("/x", None, 1)
            });
        }
        c.unix(&socket("/x", None, 1));
        c.tcp(&TcpSocket {
            port: 80,
            state: state::CLOSE_WAIT,
            held: true,
            id: 4,
        });
        c.tcp(&TcpSocket {
            port: 80,
            state: state::CLOSE_WAIT,
            held: true,
            id: 2,
        });
        c.tcp(&TcpSocket {
            port: 80,
            state: state::ESTABLISHED,
            held: true,
            id: 5,
        });
        assert_eq!(c.finish(|id| id == 2), [2, 2]);
    }

    #[test]
    fn tcp_states() {
        let count = |state, held| {
            let mut c = counter(&[Listen::Tcp("127.0.0.1:80".parse().unwrap())]);
            c.tcp(&TcpSocket {
                port: 80,
                state,
                held,
                id: 7,
            });
            c.tcp(&TcpSocket {
                port: 81,
                state,
                held,
                id: 8,
            });
            c.finish(|_| true)[0]
        };
        for open in [1, 3, 8] {
            assert_eq!((count(open, true), count(open, false)), (1, 1), "{open}");
        }
        for half in [4, 5] {
            assert_eq!((count(half, true), count(half, false)), (1, 0), "{half}");
        }
        for over in [2, 6, 7, 9, 10, 11, 12, 99] {
            assert_eq!((count(over, true), count(over, false)), (0, 0), "{over}");
        }
    }
}
