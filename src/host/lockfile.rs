//! Lock files (`flock`). A user who can open such a file can hold the lock, so only acc's user may:
//! the file has mode 0600.
//!
//! A file that others may have opened before (an older acc made it with mode 0644, or it has a
//! second name) is never relied on: as soon as no process of this user holds it, a new file
//! replaces it. Nothing is written to a file before it was checked.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::process;
use crate::domain::instance::Process;

/// How often to retry after another process of acc's was faster, before the lock counts as held.
const TRIES: u32 = 10;

/// A held lock. Dropping it releases the lock, even if a child has inherited the file.
#[derive(Debug)]
pub struct Held(File);

impl Held {
    /// See [`sign`].
    pub fn sign(&mut self) {
        sign(&mut self.0);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Takes the lock if it is free, until the value is dropped.
///
/// # Errors
/// See [`try_lock`].
pub fn try_hold(path: &Path) -> io::Result<Option<Held>> {
    Ok(try_lock(path)?.map(Held))
}

/// Takes the lock if it is free; `None`: it is held. It is released when the file is closed in
/// every process.
///
/// # Errors
/// The file cannot be opened or made, or is not a lock of this user.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    for _ in 0..TRIES {
        let file = open(path)?;
        let found = file.metadata()?;
        let taken = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => true,
            Err(rustix::io::Errno::WOULDBLOCK) => false,
            Err(e) => return Err(e.into()),
        };
        match (taken, is_exclusive(&found)) {
            // It may have been replaced before it was locked.
            (true, true) if is_at(&found, path)? => return Ok(Some(file)),
            (true, true) => {}
            (false, true) => return Ok(None),
            (false, false) if holders(&found).next().is_some() => return Ok(None),
            (_, false) => {
                if let Some(new) = replace(path, &found)? {
                    return Ok(Some(new));
                }
            }
        }
    }
    Ok(None)
}

/// Writes which process holds the lock, for [`signed`].
pub fn sign(file: &mut File) {
    note(file, std::process::id().to_string().as_bytes());
}

/// Writes another text to the lock's file.
pub fn note(file: &mut File, text: &[u8]) {
    let _ = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(text));
}

/// The process named in the lock's file, if it is another process and really holds the lock.
#[must_use]
pub fn signed(path: &Path) -> Option<Process> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let found = judge(&file).ok()?;
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
    // Identify the process first: later reads then belong to this one.
    let process = process::by_pid(pid).ok()??;
    (i32::try_from(std::process::id()).ok()? != pid && holds(pid, &found)).then_some(process)
}

/// Another process of this user that holds the lock, whatever the file says.
#[must_use]
pub fn holding(path: &Path) -> Option<Process> {
    let found = fs::symlink_metadata(path).ok()?;
    let process = process::by_pid(
        holders(&found)
            .find(|pid| i32::try_from(std::process::id()).is_ok_and(|own| own != *pid))?,
    )
    .ok()??;
    holds(process.pid, &found).then_some(process)
}

/// Whether the file is no longer at its path. The next process finds another file there, or none.
///
/// # Errors
/// The path cannot be read.
pub fn is_lost(file: impl AsFd, path: &Path) -> io::Result<bool> {
    let own = rustix::fs::fstat(file)?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) != (own.st_dev, own.st_ino)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e),
    }
}

/// A process of this user that holds the lock.
#[must_use]
pub fn holder(path: &Path) -> Option<i32> {
    holders(&fs::symlink_metadata(path).ok()?).next()
}

/// Opens or makes the file.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    let found = judge(&file)?;
    // A umask can only have cleared bits.
    if is_exclusive(&found) && found.mode() & 0o777 != 0o600 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

fn judge(file: &File) -> io::Result<Metadata> {
    let (found, own) = (file.metadata()?, rustix::process::geteuid().as_raw());
    if !found.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if found.uid() != own {
        return Err(io::Error::other(format!(
            "it belongs to user {}, not to user {own}",
            found.uid()
        )));
    }
    Ok(found)
}

/// Whether only this user can have opened it.
fn is_exclusive(found: &Metadata) -> bool {
    found.mode() & 0o077 == 0 && found.nlink() <= 1
}

fn is_at(found: &Metadata, path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(there) => Ok(same(&there, found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Replaces a file that others may have open with a new one, and holds it; `None`: another process
/// of acc's was faster. The new file is locked before it is renamed, so that two simultaneous
/// replacements do not undo each other.
fn replace(path: &Path, old: &Metadata) -> io::Result<Option<File>> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let new = open(beside)?;
    if flock(&new, FlockOperation::NonBlockingLockExclusive).is_err()
        || !is_at(&new.metadata()?, beside)?
    {
        return Ok(None);
    }
    if !is_exclusive(&new.metadata()?) || !is_at(old, path)? {
        fs::remove_file(beside)?;
        return Ok(None);
    }
    fs::rename(beside, path)?;
    tracing::warn!(
        "`{}` could be opened by other users; created a new one",
        path.display()
    );
    Ok(Some(new))
}

/// The processes of this user that hold the lock of this file.
fn holders(found: &Metadata) -> impl Iterator<Item = i32> + '_ {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| holds(*pid, found))
}

/// Whether this process of this user holds the lock of this file. The kernel lists the locks of
/// each open file.
fn holds(pid: i32, found: &Metadata) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let Ok(links) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let mut links = links.flatten();
    fs::metadata(format!("/proc/{pid}")).is_ok_and(|process| process.uid() == own)
        && links.any(|link| {
            let locked = || {
                fs::read_to_string(format!(
                    "/proc/{pid}/fdinfo/{}",
                    link.file_name().to_string_lossy()
                ))
            };
            fs::metadata(link.path()).is_ok_and(|open| same(&open, found))
                && locked().is_ok_and(|text| {
                    text.lines().any(|l| {
                        l.starts_with("lock:") && l.contains("FLOCK") && l.contains("WRITE")
                    })
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn one_holds_it_and_says_who_that_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let mut first = try_lock(&path).unwrap().unwrap();
        assert_eq!(mode(&path), 0o600);
        sign(&mut first);
        assert!(try_lock(&path).unwrap().is_none());
        assert_eq!(holder(&path), i32::try_from(std::process::id()).ok());
        assert_eq!(signed(&path), None, "this process cannot ask itself");
        drop(first);
        assert_eq!(holder(&path), None);
        drop(try_hold(&path).unwrap().unwrap());
        assert!(try_hold(&path).unwrap().is_some());
    }

    #[test]
    fn a_number_is_believed_of_a_holder_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let lock = try_lock(&path).unwrap().unwrap();
        let mut sleeps = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        fs::write(&path, sleeps.id().to_string()).unwrap();
        assert_eq!(signed(&path), None, "it does not hold it");
        sleeps.kill().unwrap();
        sleeps.wait().unwrap();
        // One that holds it: the file is its standard input, and closed here.
        let mut holds = std::process::Command::new("sleep")
            .arg("60")
            .stdin(lock)
            .spawn()
            .unwrap();
        fs::write(&path, holds.id().to_string()).unwrap();
        assert_eq!(
            signed(&path).map(|process| process.pid),
            i32::try_from(holds.id()).ok()
        );
        holds.kill().unwrap();
        holds.wait().unwrap();
        assert_eq!(signed(&path), None);
    }

    #[test]
    fn one_that_others_could_open_is_replaced_once_none_of_ours_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        for (loose, second_name) in [(0o644, false), (0o666, false), (0o600, true)] {
            fs::write(&path, "123").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(loose)).unwrap();
            let other = dir.path().join("other");
            if second_name {
                fs::hard_link(&path, &other).unwrap();
            }
            let before = File::open(&path).unwrap();
            // Held by a stranger, with a lock of the kind that acc never takes.
            flock(&before, FlockOperation::NonBlockingLockShared).unwrap();
            let lock = try_lock(&path)
                .unwrap()
                .expect("another user's lock does not matter");
            assert_eq!(mode(&path), 0o600);
            assert!(!same(
                &before.metadata().unwrap(),
                &lock.metadata().unwrap()
            ));
            drop(lock);
            fs::remove_file(&path).unwrap();
            let _ = fs::remove_file(&other);
        }
        fs::write(&path, "123").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let ours = File::open(&path).unwrap();
        flock(&ours, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(
            try_lock(&path).unwrap().is_none(),
            "an earlier acc of this user's holds it"
        );
        assert_eq!(
            (mode(&path), fs::read_to_string(&path).unwrap()),
            (0o644, "123".to_owned())
        );
    }

    #[test]
    fn what_is_no_lock_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, target) = (dir.path().join("a.lock"), dir.path().join("target"));
        fs::write(&target, "kept").unwrap();
        symlink(&target, &path).unwrap();
        assert!(try_lock(&path).is_err() && signed(&path).is_none());
        assert_eq!(fs::read_to_string(&target).unwrap(), "kept");
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(
            try_lock(&path)
                .unwrap_err()
                .to_string()
                .contains("not a regular file")
        );
        fs::remove_file(&path).unwrap();
        if rustix::process::geteuid().is_root() {
            fs::write(&path, "").unwrap();
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            assert!(
                try_lock(&path)
                    .unwrap_err()
                    .to_string()
                    .contains("belongs to user 65534")
            );
        }
    }

    /// Many at once with a loose file in place: one holds it at a time, and all have their turn.
    #[test]
    fn those_who_replace_it_at_once_do_not_undo_each_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        for _ in 0..20 {
            let _ = fs::remove_file(&path);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            let inside = std::sync::atomic::AtomicU32::new(0);
            let one = || {
                let held = loop {
                    match try_hold(&path).unwrap() {
                        Some(held) => break held,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(
                    inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst),
                    0,
                    "two hold it"
                );
                inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                drop(held);
            };
            std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(one))));
        }
    }
}
