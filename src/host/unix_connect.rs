//! Connecting to a unix socket, and who listens on the one that was just connected to.
//!
//! acc may be root and an instance's socket lies in a folder of the instance's user, who could put
//! a link there to a socket of root's (supervisord's, acc's own): what acc sends would then be
//! obeyed. The kernel tells who called `listen` (`SO_PEERCRED`, unix(7)), whatever path led there.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::sockopt::socket_peercred;
use socket2::{Domain, SockAddr, Socket, Type};

/// Connects to a unix socket, or says at once why not: the kernel makes the connection, or a full
/// queue refuses it (as `WouldBlock`), while this waits. The runtime would ask its reactor once
/// more whether it is there, which costs a thread's turn. The connection is non-blocking; who
/// listens there is for [`check`] to say.
///
/// # Errors
/// Those of connect(2).
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// Fails unless the listener runs as `owner`; `None`: instances run as acc itself, and none has
/// to be told apart.
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
