//! Listening sockets: TCP and unix, with a large backlog; every error names the address.
//!
//! It never removes a socket on which a process still answers.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, lchown};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{fs, unix_connect};

/// Connections that the kernel queues until they are accepted. With the usual 128, one of five
/// hundred simultaneous clients waits a second for its second attempt. The kernel limits it to
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program uses the address.
    #[error("`{at}` is taken by another program")]
    Taken {
        /// Address or path.
        at: String,
    },
    /// Missing permission: a port below 1024, or a folder of another user.
    #[error("no permission to listen on `{at}`")]
    Forbidden {
        /// Address or path.
        at: String,
    },
    /// There is something at the path that is not a socket.
    #[error("`{path}` exists and is not a socket")]
    InTheWay {
        /// The path.
        path: PathBuf,
    },
    /// Anything else.
    #[error("could not listen on `{at}`")]
    Other {
        /// Address or path.
        at: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

fn named(at: &str, source: io::Error) -> ListenError {
    let at = at.to_owned();
    match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken { at },
        io::ErrorKind::PermissionDenied => ListenError::Forbidden { at },
        _ => ListenError::Other { at, source },
    }
}

/// Listens on an address.
///
/// # Errors
/// See [`ListenError`]; each names the address.
pub fn tcp(address: SocketAddr) -> Result<std::net::TcpListener, ListenError> {
    let make = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // Lingering connections of an earlier server must not keep this one from starting.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    make().map_err(|error| named(&address.to_string(), error))
}

/// Listens on a unix socket with this mode, and this group if one is given (which requires root).
/// Replaces a socket on which no process answers any more.
///
/// # Errors
/// See [`ListenError`]; each names the path.
pub fn unix(path: &Path, mode: u32, group: Option<u32>) -> Result<UnixListener, ListenError> {
    let at = path.display().to_string();
    clear(path).map_err(|error| error.unwrap_or_else(|source| named(&at, source)))?;
    let make = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Before `listen` no client can connect, so the socket never has other permissions.
        if group.is_some() {
            lchown(path, None, group)?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    make().map_err(|error| named(&at, error))
}

/// Receives datagrams at an unused path, with this mode from the start: any user who may write to
/// it is heard.
///
/// # Errors
/// It could not be made.
pub fn datagrams(path: &Path, mode: u32) -> io::Result<UnixDatagram> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    // The file gets the socket's mode, minus the umask.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(mode))?;
    socket.bind(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// Removes a stale socket. `Err(Ok(_))`: a named fault; `Err(Err(_))`: a system error.
fn clear(path: &Path) -> Result<(), Result<ListenError, io::Error>> {
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Err(e)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Ok(ListenError::InTheWay {
                path: path.to_owned(),
            }));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(Err)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(Err(e)),
        // It answers, or its backlog is full: a process listens.
        Ok(_) | Err(_) => Err(Ok(ListenError::Taken {
            at: path.display().to_string(),
        })),
    }
}

/// Whether the unix socket is missing or no process listens on it. A full backlog has a listener.
#[must_use]
pub fn is_lost(path: &Path) -> bool {
    let lost = [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound];
    unix_connect::connect(path).is_err_and(|e| lost.contains(&e.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_is_named() {
        let first = tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = tcp(address).unwrap_err();
        assert!(matches!(error, ListenError::Taken { .. }));
        assert!(error.to_string().contains(&address.to_string()));
        let nowhere = tcp("192.0.2.1:80".parse().unwrap()).unwrap_err();
        assert!(nowhere.to_string().contains("192.0.2.1:80"));
    }

    #[test]
    fn a_socket_for_datagrams_has_its_mode_and_hears() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = datagrams(&path, 0o600).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        UnixDatagram::unbound()
            .unwrap()
            .send_to(b"x", &path)
            .unwrap();
        assert_eq!(socket.recv(&mut [0; 2]).unwrap(), 1);
        assert!(datagrams(&path, 0o600).is_err(), "it is there already");
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = unix(&path, 0o600, None).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(
            unix(&path, 0o600, None).unwrap_err(),
            ListenError::Taken { .. }
        ));
        drop(first);
        let second = unix(&path, 0o660, None).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        UnixStream::connect(&path).unwrap();
        drop(second);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(
            unix(&path, 0o600, None).unwrap_err(),
            ListenError::InTheWay { .. }
        ));
        assert!(
            unix(&dir.path().join("no/such"), 0o600, None)
                .unwrap_err()
                .to_string()
                .contains("no/such")
        );
    }
}
