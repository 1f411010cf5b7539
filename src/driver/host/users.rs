//! Users of this host: looked up, and given files.

use std::io;
use std::path::Path;

use nix::unistd::{Gid, Uid, User};

/// Is acc root?
#[must_use]
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The ids of a user; an unknown one is an error that names it.
pub fn ids(user: &str) -> io::Result<(Uid, Gid)> {
    match User::from_name(user)? {
        Some(found) => Ok((found.uid, found.gid)),
        None => Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no user `{user}`"))),
    }
}

/// Gives a folder and all in it to a user; links are not followed. Only root can; for others it is a no-op.
pub fn give(path: &Path, user: &str) -> io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    let (uid, gid) = ids(user)?;
    give_tree(path, uid, gid)
}

fn give_tree(path: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(uid.as_raw()), Some(gid.as_raw()))?;
    if std::fs::symlink_metadata(path)?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_tree(&entry?.path(), uid, gid)?;
        }
    }
    Ok(())
}
