//! Files in folders that another user can write: the user of an instance, or nginx's workers.
//!
//! A name in such a folder may have become anything by the time it is used: a link, a pipe without
//! a reader, a second name of another file. So a file is opened from the descriptor of its folder,
//! without following a link and without waiting for another process, and checked before it is used.
//! Only a regular file with one name is accepted; nothing is removed or changed here. In a folder
//! that only acc can write, a second name is accepted: no other user can have put the file there.
//!
//! The folder itself is found by its path: only acc can change what is above it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, RawMode, Stat};

/// Mode of a new log.
const LOG_MODE: RawMode = 0o640;

/// Why a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// To read it.
    Read,
    /// To append; it is made, with mode 0640, if missing.
    Append,
    /// To read and truncate it.
    Cut,
    /// To write a new one, with mode 0640; an existing one is an error.
    Make,
}

/// Something else is at the path of a file, see [`is_in_the_way`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct InTheWay(String);

fn in_the_way(what: impl Into<String>) -> io::Error {
    io::Error::other(InTheWay(what.into()))
}

/// Whether this error of [`open`] or [`open_of`] means that something at the path must not be used.
/// Otherwise it is an error of the host.
#[must_use]
pub fn is_in_the_way(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<InTheWay>())
}

/// Opens a regular file that has no second name, and returns its state. Its owner does not matter.
///
/// # Errors
/// It is missing, or something else is at the path (see [`is_in_the_way`]).
pub fn open(path: &Path, to: To) -> io::Result<(File, Stat)> {
    let (folder, name) = folder_of(path)?;
    let access = match to {
        To::Read => OFlags::RDONLY,
        To::Append => OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE,
        To::Cut => OFlags::RDWR,
        To::Make => OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
    };
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(LOG_MODE)).map_err(refused)?;
    let found = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(in_the_way("it is not a regular file"));
    }
    if found.st_nlink > 1 && is_written_by_others(&rustix::fs::fstat(&folder)?) {
        return Err(in_the_way("it has a second hard link"));
    }
    // An application that inherits it expects a blocking file.
    rustix::fs::fcntl_setfl(&file, rustix::fs::fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok((File::from(file), found))
}

/// The same for a file that must belong to acc, to the owner of its folder or to one of these
/// users.
///
/// # Errors
/// Those of [`open`], or it belongs to another user.
pub fn open_of(path: &Path, to: To, owners: &[u32]) -> io::Result<(File, Stat)> {
    let (file, found) = open(path, to)?;
    let own = rustix::process::geteuid().as_raw();
    if found.st_uid == own
        || owners.contains(&found.st_uid)
        || rustix::fs::fstat(folder_of(path)?.0)?.st_uid == found.st_uid
    {
        return Ok((file, found));
    }
    Err(in_the_way(format!("it belongs to user {}", found.st_uid)))
}

/// Whether a user other than acc's and root can create files in this folder.
fn is_written_by_others(folder: &Stat) -> bool {
    let own = rustix::process::geteuid().as_raw();
    ![own, 0].contains(&folder.st_uid) || folder.st_mode & 0o022 != 0
}

/// The folder of a file, and the file's name in it.
fn folder_of(path: &Path) -> io::Result<(OwnedFd, &std::ffi::OsStr)> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((rustix::fs::open(folder, flags, Mode::empty())?, name))
}

/// Adds an explanation: the kernel's error for a link has none.
fn refused(errno: rustix::io::Errno) -> io::Error {
    match errno {
        rustix::io::Errno::LOOP => in_the_way("it is a link"),
        rustix::io::Errno::NXIO | rustix::io::Errno::ISDIR => {
            in_the_way("it is not a regular file")
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::{MetadataExt as _, symlink};

    const ALL: [To; 4] = [To::Read, To::Append, To::Cut, To::Make];

    #[test]
    fn what_is_not_a_file_of_its_own_is_refused_at_once_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("secret"), "for root only").unwrap();
        fs::write(at("twice"), "x").unwrap();
        fs::hard_link(at("twice"), at("second")).unwrap();
        symlink(at("secret"), at("link")).unwrap();
        symlink("loop", at("loop")).unwrap();
        symlink(at("new"), at("nowhere")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o777),
        )
        .unwrap();
        for name in [
            "twice", "second", "link", "loop", "nowhere", "folder", "pipe", "socket",
        ] {
            for to in ALL {
                let error = open(&at(name), to).unwrap_err();
                assert!(
                    is_in_the_way(&error) || error.kind() == io::ErrorKind::AlreadyExists,
                    "{name} {to:?}: {error}"
                );
            }
        }
        assert_eq!(fs::read_to_string(at("secret")).unwrap(), "for root only");
        assert!(!at("new").exists());
        assert!(
            open(&at("link").join("x"), To::Append).is_err()
                && !is_in_the_way(&open(&at("missing"), To::Read).unwrap_err())
        );
        // In a folder of acc's own its second name is somewhere else.
        fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        open(&at("twice"), To::Read).unwrap();
    }

    #[test]
    fn files_are_made_read_and_waited_for_as_usual() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let (mut file, _) = open(&path, To::Append).unwrap();
        file.write_all(b"text").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o137, 0);
        assert!(
            !rustix::fs::fcntl_getfl(&file)
                .unwrap()
                .contains(OFlags::NONBLOCK)
        );
        let mut text = String::new();
        open(&path, To::Cut)
            .unwrap()
            .0
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "text");
        assert!(open(&path, To::Make).is_err());
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        fs::write(&path, "").unwrap();
        std::os::unix::fs::chown(&path, Some(61_234), None).unwrap();
        let error = open_of(&path, To::Read, &[61_235]).unwrap_err();
        assert_eq!(error.to_string(), "it belongs to user 61234");
        open_of(&path, To::Read, &[61_234]).unwrap();
        std::os::unix::fs::chown(dir.path(), Some(61_234), None).unwrap();
        open_of(&path, To::Read, &[]).unwrap();
    }
}
