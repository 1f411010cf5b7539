//! Who may connect to the socket of an instance: the instance's user, and nginx's workers through
//! their group. Set at every start and checked once the instance answers, because applications
//! make, chmod and chown their sockets as they like.
//!
//! The folder lies in one that only acc can write, and belongs to the instance's user. The socket
//! belongs to the instance: acc changes it through a descriptor, follows no link, and touches only
//! a socket of that user.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchmod, fchown, fstat, open, openat,
};

use crate::config::accounts::Owner;
use crate::domain::account::Account;
use crate::host::fs::make_dir;

/// The instance has full access, nginx's workers may enter, and new files get the workers' group.
const FOLDER: u32 = 0o2710;
/// The instance listens, nginx's workers connect.
const SOCKET: u32 = 0o660;

/// Makes the folder of a socket, or corrects it: accessible to the application and nginx's workers,
/// and to no other user.
pub(super) fn make(dir: &Path, account: &Account, edge: Option<Owner>) -> io::Result<()> {
    if let Some(parent) = dir.parent().filter(|_| !dir.is_dir()) {
        // Can be entered, not listed.
        make_dir(parent, 0o711)?;
    }
    let wanted = match FolderAccess::of(account, edge) {
        Some(wanted) => wanted,
        // It may date from a time when instances had a user of their own.
        None if rustix::process::geteuid().is_root() => FolderAccess {
            uid: 0,
            gid: 0,
            mode: 0o750,
        },
        None => return make_dir(dir, 0o750),
    };
    make_dir(dir, 0o700)?;
    let folder = open(
        dir,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    wanted.put_right(&folder)
}

/// Lets nginx's workers connect to an existing socket; `true`: they could not.
///
/// # Errors
/// The file is not a socket of the instance's user, or could not be changed.
pub(super) fn let_workers_in(
    path: &Path,
    account: &Account,
    edge: Option<Owner>,
) -> io::Result<bool> {
    let (Some(edge), Some(wanted)) = (edge, FolderAccess::of(account, edge)) else {
        return Ok(false);
    };
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(false);
    };
    let folder = open(
        dir,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let closed = !wanted.is_right(&fstat(&folder)?);
    if closed {
        wanted.put_right(&folder)?;
    }
    let socket = openat(
        &folder,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let found = fstat(&socket)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket || found.st_uid != wanted.uid {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is not a socket of the instance's user",
        ));
    }
    if found.st_gid == edge.gid && found.st_mode & 0o777 == SOCKET {
        return Ok(closed);
    }
    // The group first: with the mode first, a group that the application chose could connect in
    // between.
    chownat(
        &socket,
        "",
        None,
        Some(Gid::from_raw(edge.gid)),
        AtFlags::EMPTY_PATH,
    )?;
    set_mode(&socket, SOCKET)?;
    Ok(closed || !(found.st_gid == edge.gid && found.st_mode & 0o060 == 0o060))
}

/// Sets the mode through a descriptor opened with `O_PATH`, which fchmod(2) refuses.
fn set_mode(file: &OwnedFd, mode: u32) -> io::Result<()> {
    fs::set_permissions(
        format!("/proc/self/fd/{}", file.as_raw_fd()),
        fs::Permissions::from_mode(mode),
    )
}

/// The required owner and mode of a socket's folder.
struct FolderAccess {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl FolderAccess {
    /// `None`: everything runs as acc's user, and no other user needs access.
    fn of(account: &Account, edge: Option<Owner>) -> Option<Self> {
        let instance = account.ids();
        Some(Self {
            uid: instance.map_or(0, |(uid, _)| uid),
            gid: edge.map(|edge| edge.gid).or(instance.map(|(_, gid)| gid))?,
            mode: if edge.is_some() { FOLDER } else { 0o750 },
        })
    }

    fn is_right(&self, found: &Stat) -> bool {
        (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (self.uid, self.gid, self.mode)
    }

    /// Sets the mode last: a change of the owner may clear bits.
    fn put_right(&self, folder: &impl AsFd) -> io::Result<()> {
        if !self.is_right(&fstat(folder)?) {
            fchown(
                folder,
                Some(Uid::from_raw(self.uid)),
                Some(Gid::from_raw(self.gid)),
            )?;
            fchmod(folder, Mode::from_raw_mode(self.mode))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// The instance runs as 61234, workers as 61235; `None` without root.
    fn accounts() -> Option<(Account, Option<Owner>)> {
        let account = Account::User {
            name: "a".into(),
            uid: 61_234,
            gid: 61_234,
        };
        let edge = Owner {
            uid: 61_235,
            gid: 61_235,
        };
        let root = rustix::process::geteuid().is_root();
        root.then_some((account, Some(edge)))
    }

    fn of(path: &Path) -> (u32, u32, u32) {
        let found = fs::symlink_metadata(path).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    }

    #[test]
    fn the_folder_is_put_right_at_every_start() {
        let Some((account, edge)) = accounts() else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("sock/a");
        make(&folder, &account, edge).unwrap();
        assert_eq!(
            (of(&folder), of(&dir.path().join("sock")).2),
            ((61_234, 61_235, 0o2710), 0o711)
        );
        for mode in [0o700, 0o777, 0o000] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            chown(&folder, None, Some(61_234)).unwrap();
            make(&folder, &account, edge).unwrap();
            assert_eq!(of(&folder), (61_234, 61_235, 0o2710));
        }
        make(&folder, &account, None).unwrap();
        assert_eq!(of(&folder), (61_234, 61_234, 0o750));
    }

    #[test]
    fn workers_are_let_in_whatever_the_application_did_to_its_socket() {
        let Some((account, edge)) = accounts() else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a");
        make(&folder, &account, edge).unwrap();
        let path = folder.join("app.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        for (gid, mode) in [
            (61_234, 0o777),
            (61_235, 0o600),
            (61_235, 0o755),
            (61_234, 0o660),
            (61_235, 0o770),
        ] {
            chown(&path, Some(61_234), Some(gid)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(
                let_workers_in(&path, &account, edge).unwrap(),
                (gid, mode) != (61_235, 0o770),
                "{gid} {mode:o}"
            );
            assert_eq!(of(&path), (61_234, 61_235, 0o660));
            assert!(!let_workers_in(&path, &account, edge).unwrap());
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(
            let_workers_in(&path, &account, edge).unwrap(),
            "the application has closed its folder"
        );
        assert!(
            !let_workers_in(&path, &Account::SameAsAcc, None).unwrap(),
            "no access is needed"
        );
    }

    #[test]
    fn nothing_but_a_socket_of_the_instance_is_touched() {
        let Some((account, edge)) = accounts() else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a");
        make(&folder, &account, edge).unwrap();
        let roots = dir.path().join("root.sock");
        let _listener = UnixListener::bind(&roots).unwrap();
        fs::set_permissions(&roots, fs::Permissions::from_mode(0o600)).unwrap();
        let path = folder.join("app.sock");
        symlink(&roots, &path).unwrap();
        assert!(let_workers_in(&path, &account, edge).is_err(), "a link");
        fs::remove_file(&path).unwrap();
        fs::hard_link(&roots, &path).unwrap();
        assert!(
            let_workers_in(&path, &account, edge).is_err(),
            "a socket of root's"
        );
        fs::remove_file(&path).unwrap();
        fs::write(&path, "x").unwrap();
        chown(&path, Some(61_234), None).unwrap();
        assert!(let_workers_in(&path, &account, edge).is_err(), "a file");
        assert_eq!((of(&roots).1, of(&roots).2), (0, 0o600));
        assert!(let_workers_in(&folder.join("none"), &account, edge).is_err());
    }
}
