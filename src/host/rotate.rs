//! Size-limited logs: `app.log` and up to three older ones beside it, `app.log.1` the newest.
//! Together they take at most four times the limit of one, whatever the writer does to its file.
//!
//! Before a start the file is renamed. While the process runs, which holds the file open for
//! appending, its end is copied and then the file is truncated. A copy never fills the disk: if
//! there is no room, the log is truncated without one, and the result says so.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, chown, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, SeekFrom, Stat};

use super::spawn::UserIds;
use super::{fs::remove_file, untrusted};

/// Most bytes of a log, and of each older one, if it is rotated in time.
pub const LOG_MAX: u64 = 10 * 1024 * 1024;

/// How many older logs are kept.
const KEEP: usize = 3;

/// A copy is made only if there is room for this many of its size.
pub const ROOM: u64 = 4;

/// The result for a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trimmed {
    /// It is within its limit.
    Not,
    /// Its end was copied.
    Kept,
    /// It was truncated without a copy, as requested.
    Cut,
    /// It was truncated without a copy, because the disk has no room.
    NoRoom,
}

/// Opens a log for appending, or makes it with mode 0640. First renames one that is larger than
/// `max`, and anything else at its path.
pub fn open(log: &Path, max: u64, user: Option<&UserIds>) -> io::Result<File> {
    let owners: Vec<u32> = user.iter().map(|user| user.uid).collect();
    let open = || untrusted::open_of(log, untrusted::To::Append, &owners);
    let mut opened = open();
    if let (Err(e), Some(dir)) = (&opened, log.parent())
        && e.kind() == io::ErrorKind::NotFound
    {
        // Makes only its own folder: those above are not a log's to make, and an instance whose
        // folder is gone must not get an empty one.
        DirBuilder::new().mode(0o750).create(dir)?;
        if let Some(user) = user {
            chown(dir, None, Some(user.gid))?;
        }
        opened = open();
    }
    let too_long = |found: &Stat| size(found) > max;
    let (file, found) = match opened {
        Ok((file, found)) if !too_long(&found) => (file, found),
        Err(e) if !untrusted::is_in_the_way(&e) => return Err(e),
        _ => {
            shift(log)?;
            fs::rename(log, older(log, 1))?;
            open()?
        }
    };
    if let Some(user) = user.filter(|user| found.st_uid != user.uid) {
        fchown(&file, Some(user.uid), Some(user.gid))?;
    }
    Ok(file)
}

/// Whether a log of this size must be rotated. A little before it is full, so that what is added
/// meanwhile is kept, too.
#[must_use]
pub fn is_due(size: u64, max: u64) -> bool {
    size > max - max / 4
}

/// Truncates a log that is due; its writer continues at the new end. `keep`: first copies its last
/// `max` bytes, if there is room. Leaves a missing file, and anything that is not a log, alone.
pub fn trim(log: &Path, max: u64, keep: bool) -> io::Result<Trimmed> {
    let (file, found) = match untrusted::open(log, untrusted::To::Cut) {
        Ok(opened) => opened,
        Err(e) if e.kind() == io::ErrorKind::NotFound || untrusted::is_in_the_way(&e) => {
            return Ok(Trimmed::Not);
        }
        Err(e) => return Err(e),
    };
    if !is_due(size(&found), max) {
        return Ok(Trimmed::Not);
    }
    let kept = if keep {
        copy_end(log, &file, &found, max)
    } else {
        Ok(false)
    };
    file.set_len(0)?;
    match kept {
        Ok(true) => Ok(Trimmed::Kept),
        Ok(false) if keep => Ok(Trimmed::NoRoom),
        Ok(false) => Ok(Trimmed::Cut),
        Err(e)
            if [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&e.kind()) =>
        {
            remove_file(&older(log, 1))?;
            Ok(Trimmed::NoRoom)
        }
        Err(e) => Err(e),
    }
}

/// Copies the last `max` bytes of a log to `app.log.1`, or all of a shorter one with what is added
/// meanwhile; skips holes. `false`: there is no room.
fn copy_end(log: &Path, from: &File, found: &Stat, max: u64) -> io::Result<bool> {
    let mut at = size(found).saturating_sub(max);
    if at > 0 {
        // Reserves the room before copying: it is returned at once. Not every file system supports
        // this.
        let _ = rustix::fs::fallocate(
            from,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            0,
            at,
        );
    }
    shift(log)?;
    let disk = rustix::fs::fstatvfs(from)?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < max.saturating_mul(ROOM) {
        return Ok(false);
    }
    let (mut to, made) = untrusted::open(&older(log, 1), untrusted::To::Make)?;
    if made.st_uid != found.st_uid {
        fchown(&to, Some(found.st_uid), Some(found.st_gid))?;
    }
    let mut left = max;
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => at = data,
            Err(rustix::io::Errno::NXIO) => break,
            // A file system without support for holes.
            Err(_) => {}
        }
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = match from.read_at(&mut buffer[..most], at) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        to.write_all(&buffer[..read])?;
        (at, left) = (at + read as u64, left - read as u64);
    }
    Ok(true)
}

fn size(found: &Stat) -> u64 {
    u64::try_from(found.st_size).unwrap_or(0)
}

/// `app.log` -> `app.log.N`.
fn older(log: &Path, number: usize) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Renames the older logs to make `app.log.1` free; removes the oldest.
fn shift(log: &Path) -> io::Result<()> {
    let oldest = older(log, KEEP);
    match remove_file(&oldest) {
        // A folder that was in the place of a log.
        Err(e) if e.kind() == io::ErrorKind::IsADirectory => fs::remove_dir(&oldest)?,
        other => other?,
    }
    for number in (1..KEEP).rev() {
        match fs::rename(older(log, number), older(log, number + 1)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    fn text(log: &Path, number: usize) -> String {
        fs::read_to_string(if number == 0 {
            log.to_owned()
        } else {
            older(log, number)
        })
        .unwrap_or_default()
    }

    #[test]
    fn the_folder_of_the_log_is_made_and_nothing_above_it() {
        let dir = tempfile::tempdir().unwrap();
        open(&dir.path().join("log/app.log"), 10, None).unwrap();
        assert!(open(&dir.path().join("gone/log/app.log"), 10, None).is_err());
        assert!(!dir.path().join("gone").exists());
    }

    #[test]
    fn a_log_that_has_outgrown_its_bound_moves_aside_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log/app.log");
        for n in 0..6 {
            open(&log, 10, None)
                .unwrap()
                .write_all(format!("number {n} of six\n").as_bytes())
                .unwrap();
        }
        assert_eq!(
            fs::metadata(&log).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(
            [0, 1, 2, 3].map(|n| text(&log, n).chars().nth(7).unwrap()),
            ['5', '4', '3', '2']
        );
        assert!(!older(&log, 4).exists());
    }

    #[test]
    fn a_log_in_use_is_copied_and_cut_and_its_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("app.log");
        let mut writer = open(&log, 20, None).unwrap();
        assert_eq!(trim(&log, 20, true).unwrap(), Trimmed::Not);
        writer.write_all(b"a long first line\n").unwrap();
        assert_eq!(trim(&log, 20, true).unwrap(), Trimmed::Kept);
        writer.write_all(b"second\n").unwrap();
        assert_eq!(
            (text(&log, 0).as_str(), text(&log, 1).as_str()),
            ("second\n", "a long first line\n")
        );
        assert_eq!(
            trim(&dir.path().join("missing"), 10, true).unwrap(),
            Trimmed::Not
        );
        writer.write_all(b"a third line that is cut\n").unwrap();
        assert_eq!(trim(&log, 20, false).unwrap(), Trimmed::Cut);
        assert_eq!(
            (text(&log, 0).as_str(), text(&log, 1).as_str()),
            ("", "a long first line\n")
        );
    }

    #[test]
    fn only_the_end_of_a_long_log_is_kept_and_a_hole_costs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("app.log");
        let on_disk = || {
            fs::read_dir(dir.path())
                .unwrap()
                .map(|e| e.unwrap().metadata().unwrap().blocks() * 512)
                .sum::<u64>()
        };
        fs::write(&log, [vec![b'a'; 300_000], vec![b'b'; 100_000]].concat()).unwrap();
        assert_eq!(trim(&log, 100_000, true).unwrap(), Trimmed::Kept);
        assert_eq!(text(&log, 1), "b".repeat(100_000));
        for _ in 0..5 {
            let mut writer = open(&log, 100_000, None).unwrap();
            writer.set_len(40 << 30).unwrap();
            writer.write_all(b"end").unwrap();
            assert_eq!(trim(&log, 100_000, true).unwrap(), Trimmed::Kept);
            assert!(text(&log, 1).ends_with("end"));
        }
        assert!(on_disk() < 500_000, "{}", on_disk());
    }

    #[test]
    fn a_link_is_not_followed_and_gives_way_to_a_new_log() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, log) = (dir.path().join("secret"), dir.path().join("app.log"));
        fs::write(&secret, "a long secret text").unwrap();
        std::os::unix::fs::symlink(&secret, &log).unwrap();
        assert_eq!(trim(&log, 10, true).unwrap(), Trimmed::Not);
        open(&log, 1000, None).unwrap().write_all(b"new").unwrap();
        assert_eq!(
            (
                text(&log, 0).as_str(),
                fs::read_to_string(&secret).unwrap().as_str()
            ),
            ("new", "a long secret text")
        );
        for n in 0..5 {
            fs::remove_file(&log).unwrap();
            match n {
                0 => fs::create_dir(&log).unwrap(),
                _ => nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            }
            open(&log, 1000, None).unwrap().write_all(b"new").unwrap();
        }
        assert_eq!(fs::read_to_string(&secret).unwrap(), "a long secret text");
    }

    /// In a folder of acc's no other user can have put it: its owner has made the second name
    /// elsewhere.
    #[test]
    fn a_log_with_a_second_name_elsewhere_is_used_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("app.log");
        let mut writer = open(&log, 100, None).unwrap();
        fs::hard_link(&log, dir.path().join("second")).unwrap();
        writer.write_all(&[b'x'; 200]).unwrap();
        drop(open(&log, 1000, None).unwrap());
        assert_eq!(trim(&log, 100, true).unwrap(), Trimmed::Kept);
        assert_eq!(fs::metadata(&log).unwrap().len(), 0);
    }
}
