//! Who listens on the unix socket that was just connected to.
//!
//! acc may be root and an instance's socket lies in a folder of the instance's user, who could put a link there to a socket of
//! root's (supervisord's, acc's own): what acc sends would then be obeyed. The kernel tells who called `listen`
//! (`SO_PEERCRED`, unix(7)), whatever path led there.

use std::io;
use std::os::fd::AsFd;

use rustix::net::sockopt::socket_peercred;

/// Fails unless the listener runs as `owner`; `None`: instances run as acc itself, and nobody has to be told apart.
pub fn check(stream: &impl AsFd, owner: Option<u32>) -> io::Result<()> {
    let Some(owner) = owner else { return Ok(()) };
    let found = socket_peercred(stream)?.uid.as_raw();
    if found == owner {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {found} listens there, not the instance's user {owner}")))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_listener_of_another_user_is_not_talked_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        let link = dir.path().join("l");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let stream = UnixStream::connect(&link).await.unwrap();
        let me = nix::unistd::geteuid().as_raw();
        assert!(check(&stream, Some(me)).is_ok() && check(&stream, None).is_ok());
        assert_eq!(check(&stream, Some(me + 1)).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
