//! Whether the file at a path can be trusted. A user who can write to it, or replace a folder above
//! it, decides what is read there.
//!
//! A path is trusted if every folder, link and file on it belongs to this user or to root, and no
//! other user may write to it. A sticky folder such as `/tmp` may be above: in it a user cannot
//! replace another user's files. Each part is checked before the next is opened, so that others
//! cannot replace a part between check and use. This module changes nothing.
//! can be replaced by others between check and use. It changes nothing.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// The kernel's own limit.
const LINKS_MAX: u32 = 40;

/// Why a path is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distrust {
    /// The part of it that other users can change.
    pub path: PathBuf,
    /// What is wrong with that part, in words that follow its name.
    pub why: String,
    /// Its owner (user, group), if that is what is wrong.
    pub owner: Option<(u32, u32)>,
}

impl Distrust {
    /// The reason, for a user who named `path`: if another part of the path is at fault, it is
    /// named too.
    #[must_use]
    pub fn of(&self, path: &Path) -> String {
        if self.path == path {
            self.why.clone()
        } else {
            format!("is not safe: {self}, who could replace it")
        }
    }

    fn text(&self) -> String {
        format!("{self}: it is not used; {}", self.fix())
    }

    /// The command that corrects owner or mode, if the path itself is right.
    #[must_use]
    pub fn fix(&self) -> String {
        let own = rustix::process::geteuid().as_raw();
        let verb = if self.owner.is_some() {
            format!("chown {own}")
        } else {
            "chmod go-w".to_owned()
        };
        format!(
            "run `{verb} {}` if no other user may change it",
            self.path.display()
        )
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.path.display(), self.why)
    }
}

/// A file could not be read, or must not be read.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Other users can change it or a folder above it.
    #[error("{}", .0.text())]
    Distrust(Distrust),
    /// It could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<TrustError> for io::Error {
    fn from(e: TrustError) -> Self {
        match e {
            TrustError::Io(e) => e,
            TrustError::Distrust(_) => Self::new(io::ErrorKind::PermissionDenied, e.to_string()),
        }
    }
}

/// The end of a path: its real path without links, and its metadata; `None`: it does not exist.
type PathEnd = Option<(PathBuf, Metadata)>;

/// Why this folder must not be used, if so. For a missing folder, checks what is above it.
///
/// # Errors
/// It cannot be read.
pub fn distrust(dir: &Path) -> io::Result<Option<Distrust>> {
    let wrong = |path: PathBuf, why: String| {
        Ok(Some(Distrust {
            path,
            why,
            owner: None,
        }))
    };
    match walk(dir) {
        Ok(None) => Ok(None),
        Ok(Some((path, meta))) if !meta.is_dir() => wrong(path, "is not a folder".to_owned()),
        // Other users could add files beside acc's.
        Ok(Some((path, meta))) if meta.mode() & 0o022 != 0 => wrong(path, open_to_others(&meta)),
        Ok(Some(_)) => Ok(None),
        Err(TrustError::Distrust(found)) => Ok(Some(found)),
        Err(TrustError::Io(e)) => Err(e),
    }
}

/// The first part of a path that belongs to neither this user nor root. `None` also for an
/// unreadable path.
#[must_use]
pub fn stranger(path: &Path) -> Option<Distrust> {
    match walk(path) {
        Err(TrustError::Distrust(found)) => Some(found).filter(|found| found.owner.is_some()),
        Ok(_) | Err(TrustError::Io(_)) => None,
    }
}

/// The text of a trusted file. A pipe or a device is not accepted; `/dev/null` is an empty file.
///
/// # Errors
/// It is not trusted, or cannot be read.
pub fn read_to_string(path: &Path) -> Result<String, TrustError> {
    let mut text = String::new();
    if path != Path::new("/dev/null") {
        open(path)?.read_to_string(&mut text)?;
    }
    Ok(text)
}

/// Opens a trusted file for reading.
fn open(path: &Path) -> Result<File, TrustError> {
    let Some((real, _)) = walk(path)? else {
        return Err(io::Error::from_raw_os_error(libc::ENOENT).into());
    };
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&real)?;
    // Check the opened file itself.
    let meta = file.metadata()?;
    judge(&real, &meta, false)?;
    match () {
        () if meta.is_file() => Ok(file),
        () if meta.is_dir() => Err(io::Error::from_raw_os_error(libc::EISDIR).into()),
        () => Err(io::Error::other("it is not a regular file").into()),
    }
}

/// Follows a path from the root, including links.
fn walk(path: &Path) -> Result<PathEnd, TrustError> {
    let mut left: VecDeque<OsString> = parts(path);
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    let mut meta = fs::symlink_metadata(&at)?;
    judge(&at, &meta, true)?;
    while let Some(name) = left.pop_front() {
        if !meta.is_dir() {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR).into());
        }
        let next = if name == ".." {
            at.parent().unwrap_or(&at).to_owned()
        } else {
            at.join(&name)
        };
        meta = match fs::symlink_metadata(&next) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        judge(&next, &meta, true)?;
        if meta.is_symlink() {
            links += 1;
            if links > LINKS_MAX {
                return Err(io::Error::from_raw_os_error(libc::ELOOP).into());
            }
            let target = fs::read_link(&next)?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            parts(&target)
                .into_iter()
                .rev()
                .for_each(|part| left.push_front(part));
            meta = fs::symlink_metadata(&at)?;
        } else {
            at = next;
        }
    }
    Ok(Some((at, meta)))
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let named = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    named.map(|part| part.as_os_str().to_owned()).collect()
}

/// Checks one part of a path. The mode of a link means nothing.
fn judge(path: &Path, meta: &Metadata, sticky_will_do: bool) -> Result<(), TrustError> {
    let mut owner = None;
    let why = if !trusted_owner(meta.uid())? {
        owner = Some((meta.uid(), meta.gid()));
        format!(
            "belongs to user {}, not to user {}",
            meta.uid(),
            rustix::process::geteuid().as_raw()
        )
    } else if meta.is_symlink()
        || meta.mode() & 0o022 == 0
        || sticky_will_do && meta.is_dir() && meta.mode() & 0o1000 != 0
    {
        return Ok(());
    } else {
        open_to_others(meta)
    };
    Err(TrustError::Distrust(Distrust {
        path: path.to_owned(),
        why,
        owner,
    }))
}

/// Whether this user is trusted: acc's own, root, and the owner of `/` (in a user namespace without
/// root, no user owns `/`).
fn trusted_owner(uid: u32) -> io::Result<bool> {
    Ok(uid == 0
        || uid == rustix::process::geteuid().as_raw()
        || uid == fs::symlink_metadata("/")?.uid())
}

/// Why other users can change this entry of a trusted folder, if so.
#[must_use]
pub fn of_entry(meta: &Metadata) -> Option<String> {
    match judge(Path::new(""), meta, false) {
        Err(TrustError::Distrust(found)) => Some(found.why),
        Err(TrustError::Io(e)) => Some(format!("cannot be judged: {e}")),
        Ok(()) => None,
    }
}

fn open_to_others(meta: &Metadata) -> String {
    format!(
        "can be written by others (mode {:04o})",
        meta.mode() & 0o7777
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn why(path: &Path) -> String {
        distrust(path)
            .unwrap()
            .map(|found| found.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn folders_that_others_can_write_or_exchange_are_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let (above, link) = (dir.path().join("above"), dir.path().join("link"));
        let folder = above.join("folder");
        fs::create_dir_all(&folder).unwrap();
        symlink("above/./../above/folder", &link).unwrap();
        let (shown, shown_above) = (
            format!("`{}`", folder.display()),
            format!("`{}`", above.display()),
        );
        for (of_above, of_folder, expected) in [
            (0o755, 0o755, String::new()),
            (
                0o755,
                0o775,
                format!("{shown} can be written by others (mode 0775)"),
            ),
            (
                0o755,
                0o1777,
                format!("{shown} can be written by others (mode 1777)"),
            ),
            (
                0o777,
                0o755,
                format!("{shown_above} can be written by others (mode 0777)"),
            ),
            (0o1777, 0o755, String::new()),
        ] {
            mode(&above, of_above);
            mode(&folder, of_folder);
            assert_eq!(why(&folder), expected, "{of_above:o} {of_folder:o}");
            assert_eq!(why(&link), expected, "{of_above:o} {of_folder:o} by a link");
            let below = if of_above == 0o777 {
                expected
            } else {
                String::new()
            };
            assert_eq!(
                why(&above.join("not/there")),
                below,
                "{of_above:o}, not there"
            );
        }
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(why(&dir.path().join("file")).ends_with("is not a folder"));
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(distrust(&dir.path().join("loop")).is_err());
        if !rustix::process::geteuid().is_root() {
            return;
        }
        lchown(&link, Some(65_534), None).unwrap();
        assert_eq!(
            why(&link),
            format!("`{}` belongs to user 65534, not to user 0", link.display())
        );
        chown(&above, Some(65_534), None).unwrap();
        assert_eq!(
            why(&folder),
            format!("{shown_above} belongs to user 65534, not to user 0")
        );
    }

    #[test]
    fn only_regular_files_that_nobody_else_can_change_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link, pipe) = (
            dir.path().join("file"),
            dir.path().join("link"),
            dir.path().join("pipe"),
        );
        fs::write(&file, "text").unwrap();
        symlink(&file, &link).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let read = |path: &Path| read_to_string(path).map_err(|e| e.to_string());
        assert_eq!(
            (read(&file), read(&link)),
            (Ok("text".to_owned()), Ok("text".to_owned()))
        );
        assert_eq!(read(Path::new("/dev/null")), Ok(String::new()));
        assert_eq!(read(&pipe), Err("it is not a regular file".to_owned()));
        assert!(read(dir.path()).unwrap_err().contains("directory"));
        mode(&file, 0o666);
        for path in [&file, &link] {
            let said = read(path).unwrap_err();
            assert!(
                said.contains("can be written by others (mode 0666)")
                    && said.contains("`chmod go-w "),
                "{said}"
            );
        }
    }
}
