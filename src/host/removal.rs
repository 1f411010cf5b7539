//! Removes trees that another user has made and may still be writing to, of any depth and width.
//!
//! A tree is first moved into a folder of acc's own, which other users cannot reach by path. There
//! it is removed without recursion: a folder is closed to all other users, its files are removed,
//! and its subfolders are moved up beside it. So two descriptors are enough for any depth, no path
//! grows, and a program that keeps creating files fails once its folder is closed. Each call works
//! for a limited time; the next call continues. Links are never followed.
//! followed.

use std::ffi::CStr;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::clock::{Clock, SystemClock};
use super::users::is_root;
use crate::domain::time::Timestamp;

/// How many entries are removed between two readings of the clock.
const ENTRIES_PER_CHECK: u32 = 64;

/// Two removals of the same tree would disturb each other.
static ALONE: Mutex<()> = Mutex::new(());

/// Removes the file or tree at `path`: moves it into the folder `trash` and empties that for at
/// most this long. [`empty`] removes the rest later. A missing `path` is success. If it cannot be
/// moved (the trash is on another file system, or full) it is removed in place.
///
/// # Errors
/// Something could not be removed, or a removal in place did not finish in that time.
pub fn remove(path: &Path, trash: &Path, within: Duration) -> io::Result<()> {
    match discard(path, trash) {
        Ok(true) => empty(trash, within).map(drop),
        Ok(false) => Ok(()),
        Err(_) => match empty(path, within) {
            Ok(true) => rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR)
                .or_else(missing_is_fine)
                .map_err(Into::into),
            Ok(false) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "it could not be removed within the time limit",
            )),
            Err(e) => Err(e),
        },
    }
}

/// Moves what is at `path` into the folder `trash`, which is made for acc's user if missing;
/// `false`: nothing is at `path`.
pub fn discard(path: &Path, trash: &Path) -> io::Result<bool> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    match DirBuilder::new().mode(0o700).create(trash) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let trash = open_folder(CWD, trash)?;
    let from = match rustix::fs::open(
        folder,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(from) => from,
        Err(Errno::NOENT) => return Ok(false),
        Err(e) => return Err(e.into()),
    };
    let mut number = 0_u32;
    loop {
        let mut to = name.to_os_string();
        to.push(format!(".{number}"));
        match rustix::fs::renameat(&from, name, &trash, &to) {
            Ok(()) => return Ok(true),
            Err(Errno::NOENT) => return Ok(false),
            Err(e) if is_taken(e) && number < u32::MAX => number += 1,
            Err(e) => return Err(e.into()),
        }
    }
}

/// Removes everything in a folder of acc's own, for at most this long; `true`: nothing is left.
///
/// # Errors
/// Something in it cannot be removed; everything else was.
pub fn empty(folder: &Path, within: Duration) -> io::Result<bool> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let root = match open_folder(CWD, folder) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(true),
        Err(e) => return Err(e.into()),
    };
    let mut work = RemovalJob {
        root,
        number: 0,
        until: SystemClock.now().after(within),
        count: 0,
        failed: None,
        removed: false,
    };
    loop {
        (work.removed, work.failed) = (false, None);
        let found = work.sweep()?;
        match found {
            Swept::Nothing => return Ok(true),
            Swept::TooMuch => return Ok(false),
            Swept::Left if work.removed => {}
            Swept::Left => return work.failed.map_or(Ok(false), |e| Err(e.into())),
        }
    }
}

/// The result of one pass over all entries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Swept {
    Nothing,
    /// Some were there; the next pass shows whether they were removed.
    Left,
    /// The time is over.
    TooMuch,
}

struct RemovalJob {
    root: OwnedFd,
    /// Number of the last folder that was moved up.
    number: u64,
    until: Timestamp,
    count: u32,
    /// The first error of a removal.
    failed: Option<Errno>,
    removed: bool,
}

impl RemovalJob {
    fn is_late(&mut self) -> bool {
        self.count = self.count.wrapping_add(1);
        self.count.is_multiple_of(ENTRIES_PER_CHECK) && SystemClock.now() >= self.until
    }

    fn sweep(&mut self) -> io::Result<Swept> {
        let mut found = Swept::Nothing;
        for entry in Dir::read_from(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            found = Swept::Left;
            let done = match unlink(&self.root, name) {
                Err(Errno::ISDIR) => match self.take_apart(name) {
                    Ok(true) => rustix::fs::unlinkat(&self.root, name, AtFlags::REMOVEDIR)
                        .or_else(missing_is_fine),
                    Ok(false) => return Ok(Swept::TooMuch),
                    Err(e) => Err(e),
                },
                other => other,
            };
            self.note(done);
            if self.is_late() {
                return Ok(Swept::TooMuch);
            }
        }
        Ok(found)
    }

    /// Removes the files of a folder and moves its subfolders up; `false`: the time is over.
    fn take_apart(&mut self, name: &CStr) -> Result<bool, Errno> {
        let folder = open_closed(&self.root, name)?;
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let child = entry.file_name();
            if is_dots(child) {
                continue;
            }
            let done = match unlink(&folder, child) {
                Err(Errno::ISDIR) => self.move_up(&folder, child),
                other => other,
            };
            self.note(done);
            if self.is_late() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn move_up(&mut self, folder: &OwnedFd, child: &CStr) -> Result<(), Errno> {
        // It is empty: the usual case at the end of a tree.
        if rustix::fs::unlinkat(folder, child, AtFlags::REMOVEDIR).is_ok() {
            return Ok(());
        }
        loop {
            self.number += 1;
            let to = format!(".{}", self.number);
            match rustix::fs::renameat(folder, child, &self.root, to.as_str()) {
                Err(e) if is_taken(e) => {}
                // Changing its `..` requires write permission in it.
                Err(Errno::ACCESS) if !is_root() && open_up(folder, child) => {}
                other => return other.or_else(missing_is_fine),
            }
        }
    }

    fn note(&mut self, done: Result<(), Errno>) {
        match done {
            Ok(()) => self.removed = true,
            // Another process has written to it meanwhile: the next pass removes that.
            Err(Errno::NOTEMPTY) => {}
            Err(e) => self.failed = self.failed.or(Some(e)),
        }
    }
}

fn is_dots(name: &CStr) -> bool {
    [&b"."[..], b".."].contains(&name.to_bytes())
}

/// Whether something is at the place to which a folder was to be moved.
fn is_taken(e: Errno) -> bool {
    [Errno::EXIST, Errno::NOTEMPTY, Errno::NOTDIR, Errno::ISDIR].contains(&e)
}

fn missing_is_fine(e: Errno) -> Result<(), Errno> {
    if e == Errno::NOENT { Ok(()) } else { Err(e) }
}

/// Removes an entry that is not a folder.
fn unlink(folder: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    rustix::fs::unlinkat(folder, name, AtFlags::empty()).or_else(missing_is_fine)
}

fn open_folder(at: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        at,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens a folder after closing it to all users but acc's.
fn open_closed(at: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let folder = match open_folder(at, name) {
        Err(Errno::ACCESS) if !is_root() && open_up(at, name) => open_folder(at, name)?,
        other => other?,
    };
    if is_root() {
        rustix::fs::fchown(&folder, Some(Uid::ROOT), None)?;
    }
    rustix::fs::fchmod(&folder, Mode::RWXU)?;
    Ok(folder)
}

/// Gives acc, if it is not root, all permissions in a folder of its own.
fn open_up(at: &OwnedFd, name: &CStr) -> bool {
    rustix::fs::chmodat(at, name, Mode::RWXU, AtFlags::empty()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    const LONG: Duration = Duration::from_secs(60);

    struct Fixture {
        dir: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let fixture = Self {
                dir: tempfile::tempdir().unwrap(),
            };
            fs::create_dir(fixture.tree()).unwrap();
            fixture
        }

        fn tree(&self) -> std::path::PathBuf {
            self.dir.path().join("tree")
        }

        fn trash(&self) -> std::path::PathBuf {
            self.dir.path().join("trash")
        }

        fn is_gone(&self) -> bool {
            !self.tree().exists() && fs::read_dir(self.trash()).unwrap().next().is_none()
        }
    }

    /// Folders in folders, deeper than any path can be.
    fn dig(into: &Path, levels: usize) {
        let mut at = open_folder(CWD, into).unwrap();
        for _ in 0..levels {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open_folder(&at, "d").unwrap();
        }
        rustix::fs::openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
    }

    #[test]
    fn a_tree_of_any_depth_goes_on_a_small_stack() {
        let fixture = Fixture::new();
        dig(&fixture.tree(), 20_000);
        let (tree, trash) = (fixture.tree(), fixture.trash());
        let small = std::thread::Builder::new().stack_size(128 * 1024);
        small
            .spawn(move || remove(&tree, &trash, LONG))
            .unwrap()
            .join()
            .unwrap()
            .unwrap();
        assert!(fixture.is_gone());
    }

    #[test]
    fn everything_goes_and_nothing_that_a_link_leads_to() {
        let fixture = Fixture::new();
        let kept = fixture.dir.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        for n in 0..30 {
            let below = fixture.tree().join(format!("a{n}/b/c"));
            fs::create_dir_all(&below).unwrap();
            fs::write(below.join("file"), "").unwrap();
            symlink(&kept, below.join("link")).unwrap();
        }
        symlink(&kept, fixture.tree().join("link")).unwrap();
        nix::unistd::mkfifo(&fixture.tree().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::set_permissions(
            fixture.tree().join("a1"),
            std::os::unix::fs::PermissionsExt::from_mode(0o000),
        )
        .unwrap();
        remove(&fixture.tree(), &fixture.trash(), LONG).unwrap();
        assert!(fixture.is_gone() && kept.join("file").exists());
        // Once more, of a file, and of a link to a folder.
        remove(&fixture.tree(), &fixture.trash(), LONG).unwrap();
        fs::write(fixture.tree(), "").unwrap();
        remove(&fixture.tree(), &fixture.trash(), LONG).unwrap();
        symlink(&kept, fixture.tree()).unwrap();
        remove(&fixture.tree(), &fixture.trash(), LONG).unwrap();
        assert!(fixture.is_gone() && kept.join("file").exists());
    }

    #[test]
    fn what_is_not_done_in_time_is_out_of_the_way_and_done_later() {
        let fixture = Fixture::new();
        dig(&fixture.tree(), 500);
        remove(&fixture.tree(), &fixture.trash(), Duration::ZERO).unwrap();
        assert!(!fixture.tree().exists() && !fixture.is_gone());
        // Another one of the same name comes and goes meanwhile.
        fs::create_dir(fixture.tree()).unwrap();
        assert!(discard(&fixture.tree(), &fixture.trash()).unwrap());
        assert!(empty(&fixture.trash(), LONG).unwrap() && fixture.is_gone());
        assert!(empty(&fixture.dir.path().join("missing"), LONG).unwrap());
    }

    #[test]
    fn without_a_trash_it_is_taken_apart_where_it_is() {
        let fixture = Fixture::new();
        dig(&fixture.tree(), 50);
        remove(
            &fixture.tree(),
            &fixture.dir.path().join("no/such/trash"),
            LONG,
        )
        .unwrap();
        assert!(!fixture.tree().exists());
    }

    /// A program of the tenant continues to make folders through its open descriptor.
    #[test]
    fn who_goes_on_writing_does_not_keep_it_from_its_end() {
        let fixture = Fixture::new();
        let over = AtomicBool::new(false);
        let inside = open_folder(CWD, fixture.tree()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0_u64.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let _ = rustix::fs::mkdirat(&inside, format!("x{n}"), Mode::RWXU);
                }
            });
            let within = Duration::from_millis(500);
            let began = SystemClock.now();
            remove(&fixture.tree(), &fixture.trash(), within).unwrap();
            assert!(SystemClock.now().since(began) < LONG / 4);
            assert!(!fixture.tree().exists());
            over.store(true, Ordering::Relaxed);
        });
        assert!(empty(&fixture.trash(), LONG).unwrap() && fixture.is_gone());
    }
}
