//! Connects to a unix socket, and checks which user listens on it.
//!
//! acc may be root, and an instance's socket is in a folder of the instance's user, who could put a
//! link there to a socket of root's (supervisord's, acc's own) that obeys what acc sends. The
//! kernel reports the user that called `listen` (`SO_PEERCRED`, unix(7)), whatever path was used.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::sockopt::socket_peercred;
use socket2::{Domain, SockAddr, Socket, Type};

/// Connects to a unix socket or fails at once: the kernel completes the connection during the call,
/// or refuses it if the backlog is full (as `WouldBlock`). The runtime's own connect would poll its
/// reactor once more, which costs a pass of the thread. The connection is non-blocking; [`check`]
/// verifies the listener.
///
/// # Errors
/// Those of connect(2).
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// Fails unless the listener runs as `owner`; `None`: instances run as acc's user, so there is
/// nothing to distinguish.
pub fn check(stream: &impl AsFd, owner: Option<u32>) -> io::Result<()> {
    let Some(owner) = owner else { return Ok(()) };
    let found = socket_peercred(stream)?.uid.as_raw();
    if found == owner {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("user {found} listens there, not the instance's user {owner}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_of_another_user_is_not_talked_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        let link = dir.path().join("l");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let stream = connect(&link).unwrap();
        let me = nix::unistd::geteuid().as_raw();
        assert!(check(&stream, Some(me)).is_ok() && check(&stream, None).is_ok());
        assert_eq!(
            check(&stream, Some(me + 1)).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
    }
}
