//! Users of this host: looks them up, and changes the owner of files.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, initgroups, setgroups, setresgid, setresuid};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use crate::domain::account::Account;

/// Is acc root?
#[must_use]
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The name of a user; `None`: the host knows none, or cannot say.
#[must_use]
pub fn name(uid: u32) -> Option<String> {
    let user = User::from_uid(Uid::from_raw(uid)).ok()??;
    Some(user.name)
}

/// Becomes this user for good: their groups, and nothing of root's rights. `gid` is for one whom
/// the host has no name for. Their home folder, if they have a name.
///
/// # Errors
/// acc is not root, or the user would have root's group.
pub fn become_user(uid: u32, gid: u32) -> io::Result<Option<PathBuf>> {
    let wanted = Uid::from_raw(uid);
    let known = User::from_uid(wanted)?;
    let gid = known.as_ref().map_or(Gid::from_raw(gid), |user| user.gid);
    if uid == 0 || known.is_none() && gid.as_raw() == 0 {
        return Err(io::Error::other(format!(
            "this host has no user {uid} in its list of users"
        )));
    }
    match &known {
        Some(user) => initgroups(&CString::new(user.name.as_str())?, gid)?,
        None => setgroups(&[gid])?,
    }
    setresgid(gid, gid, gid)?;
    setresuid(wanted, wanted, wanted)?;
    Ok(known.map(|user| user.dir))
}

/// The ids of a user; an unknown one is an error that names it.
pub fn ids(user: &str) -> io::Result<(Uid, Gid)> {
    match User::from_name(user)? {
        Some(found) => Ok((found.uid, found.gid)),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no user `{user}`"),
        )),
    }
}

/// Gives an instance's folder to the account it runs under. The user's group can read everything; only
/// `data`, which the application writes, belongs to the user. The rest stays acc's, above all the
/// folder itself and `log`: root writes there, and their owner could put links in root's way. Links
/// in it are not followed. Does nothing where it runs as acc's own user.
pub fn settle(dir: &Path, account: &Account) -> io::Result<()> {
    let Some((uid, gid)) = account.ids() else {
        return Ok(());
    };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    share(dir, gid)?;
    give_tree(&dir.join("data"), uid, gid)
}

/// Makes a folder, inside one that only acc can write, for this user alone (`None`: acc's own), or
/// corrects an existing one: owner, mode 0700, and the owner of the files in it. Only root can make
/// it for another user; otherwise it belongs to acc's user.
pub fn private_folder(path: &Path, user: Option<&str>) -> io::Result<()> {
    let (uid, gid) = match user.filter(|_| is_root()) {
        Some(user) => ids(user)?,
        None => (Uid::effective(), Gid::effective()),
    };
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let folder = rustix::fs::open(path, flags, Mode::empty())?;
    let found = rustix::fs::fstat(&folder)?;
    if found.st_mode & 0o7777 != 0o700 {
        rustix::fs::fchmod(&folder, Mode::RWXU)?;
    }
    if is_root() && found.st_uid != uid.as_raw() {
        let owner = (
            Some(rustix::fs::Uid::from_raw(uid.as_raw())),
            Some(rustix::fs::Gid::from_raw(gid.as_raw())),
        );
        rustix::fs::fchown(&folder, owner.0, owner.1)?;
        // From here on the former owner can add nothing; an existing entry may be a second name of
        // any user's file.
        for entry in rustix::fs::Dir::read_from(&folder)? {
            let entry = entry?;
            let seen = rustix::fs::statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(seen.st_mode) == FileType::RegularFile && seen.st_nlink == 1
            {
                rustix::fs::chownat(
                    &folder,
                    entry.file_name(),
                    owner.0,
                    owner.1,
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
            }
        }
    }
    Ok(())
}

/// The folders in this one whose `data` belongs to a user other than this, in order. Skips what
/// cannot be read.
#[must_use]
pub fn of_others(dir: &Path, uid: u32) -> Vec<String> {
    let names = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let others = names.filter(|name| {
        fs::symlink_metadata(dir.join(name).join("data")).is_ok_and(|data| data.uid() != uid)
    });
    let mut others: Vec<String> = others.collect();
    others.sort();
    others
}

/// Gives a file, socket or folder to root, with this group and mode; returns `true` if that changed
/// anything. Only acc may be able to write above it. Only root can do this.
pub fn share_with(path: &Path, gid: u32, mode: u32) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    if (found.uid(), found.gid(), found.mode() & 0o7777) == (0, gid, mode) {
        return Ok(false);
    }
    // The mode last: a change of the owner may clear bits.
    lchown(path, Some(0), Some(gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(true)
}

/// Gives a folder and the files directly in it to root; subfolders keep their owner. Only root can
/// do this.
pub fn keep(dir: &Path) -> io::Result<()> {
    lchown(dir, Some(0), Some(0))?;
    entries(dir, |entry| {
        if fs::symlink_metadata(entry)?.is_dir() {
            Ok(())
        } else {
            lchown(entry, Some(0), Some(0))
        }
    })
}

/// Gives a file, socket or folder with all its contents to a user. Does nothing unless acc is root.
pub fn give(path: &Path, user: &str) -> io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    let (uid, gid) = ids(user)?;
    give_tree(path, uid, gid)
}

/// The contents before the folder itself: until then the new owner can replace nothing.
fn give_tree(path: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    entries(path, |entry| give_tree(entry, uid, gid))?;
    lchown(path, Some(uid.as_raw()), Some(gid.as_raw()))
}

/// Gives the group the owner's read permissions and no write permission.
fn share(path: &Path, gid: Gid) -> io::Result<()> {
    lchown(path, None, Some(gid.as_raw()))?;
    let found = fs::symlink_metadata(path)?;
    if !found.is_symlink() {
        let mode = found.permissions().mode() & 0o7777;
        fs::set_permissions(
            path,
            fs::Permissions::from_mode((mode & !0o070) | ((mode & 0o500) >> 3)),
        )?;
    }
    entries(path, |entry| share(entry, gid))
}

fn entries(path: &Path, mut each: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            each(&entry?.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_owns_only_what_it_writes() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for below in ["data", "log"] {
            fs::create_dir(dir.path().join(below)).unwrap();
        }
        fs::write(dir.path().join("secret.conf"), "x").unwrap();
        fs::set_permissions(
            dir.path().join("secret.conf"),
            fs::Permissions::from_mode(0o600),
        )
        .unwrap();
        let (uid, gid) = ids("nobody").unwrap();
        let account = Account::User {
            name: "nobody".into(),
            uid: uid.as_raw(),
            gid: gid.as_raw(),
        };
        settle(dir.path(), &account).unwrap();
        let of = |below: &str| {
            let found = fs::metadata(dir.path().join(below)).unwrap();
            (found.uid(), found.gid(), found.mode() & 0o777)
        };
        for acc in ["", "log", "secret.conf"] {
            assert_eq!((of(acc).0, of(acc).1), (0, gid.as_raw()), "{acc}");
        }
        assert_eq!(of("secret.conf").2, 0o640);
        assert_eq!((of("data").0, of("data").1), (uid.as_raw(), gid.as_raw()));
        assert!(
            ids("no-such-user")
                .unwrap_err()
                .to_string()
                .contains("`no-such-user`")
        );
    }

    #[test]
    fn a_private_folder_follows_its_user_with_its_files_and_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, elsewhere) = (dir.path().join("a"), dir.path().join("secret"));
        private_folder(&folder, None).unwrap();
        fs::write(folder.join("x.log"), "x").unwrap();
        fs::write(&elsewhere, "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, folder.join("link")).unwrap();
        fs::hard_link(&elsewhere, folder.join("second")).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        private_folder(&folder, Some("nobody")).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o7777, 0o700);
        if is_root() {
            let uid = ids("nobody").unwrap().0.as_raw();
            let owner = |path: &Path| fs::metadata(path).unwrap().uid();
            assert_eq!(
                (
                    owner(&folder),
                    owner(&folder.join("x.log")),
                    owner(&elsewhere)
                ),
                (uid, uid, 0)
            );
            private_folder(&folder, None).unwrap();
            assert_eq!((owner(&folder), owner(&folder.join("x.log"))), (0, 0));
        }
        std::os::unix::fs::symlink(&folder, dir.path().join("b")).unwrap();
        assert!(
            private_folder(&dir.path().join("b"), None).is_err(),
            "a link to a folder"
        );
    }
}
