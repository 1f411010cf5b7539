//! Size-bounded logs: `app.log`, and up to three older ones beside it, `app.log.1` the newest of them.
//!
//! Before a start the file is renamed; while its process runs, which holds it open for appending, it is copied and then cut
//! to nothing. Links are never followed: the folder may belong to the user that the instance runs as.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown, fchown};
use std::path::{Path, PathBuf};

use crate::driver::host::fs::remove_file;
use crate::driver::host::spawn::UserIds;

/// How many older logs are kept.
const KEEP: usize = 3;

/// Opens a log for appending, made with mode 0640 when it is not there, after moving one that has outgrown `max` aside.
pub fn open(log: &Path, max: u64, user: Option<&UserIds>) -> io::Result<File> {
    let open = || {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW).open(log)?;
        let found = file.metadata()?;
        io::Result::Ok((file, found))
    };
    let mut opened = open();
    if let (Err(e), Some(dir)) = (&opened, log.parent())
        && e.kind() == io::ErrorKind::NotFound
    {
        // Its folder alone: what is above it is not a log's to make, and an instance whose folder is gone must not have an empty one.
        fs::DirBuilder::new().mode(0o750).create(dir)?;
        if let Some(user) = user {
            chown(dir, None, Some(user.gid))?;
        }
        opened = open();
    }
    let (mut file, mut found) = opened?;
    if found.is_file() && found.len() > max {
        shift(log)?;
        fs::rename(log, older(log, 1))?;
        (file, found) = open()?;
    }
    // A second name of another file could be planted here by the user that the log is about to be given to.
    if found.is_file() && found.nlink() > 1 {
        return Err(io::Error::other("it is a hard link"));
    }
    if let Some(user) = user.filter(|user| found.is_file() && found.uid() != user.uid) {
        fchown(&file, Some(user.uid), Some(user.gid))?;
    }
    Ok(file)
}

/// Copies a log that has outgrown `max` aside and cuts it to nothing; its writer goes on appending, at the new end.
pub fn trim(log: &Path, max: u64) -> io::Result<bool> {
    if size(log)? <= max {
        return Ok(false);
    }
    let mut from = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(log)?;
    let found = from.metadata()?;
    shift(log)?;
    let aside = older(log, 1);
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o640).custom_flags(libc::O_NOFOLLOW).open(&aside)?;
    if found.uid() != to.metadata()?.uid() {
        fchown(&to, Some(found.uid()), Some(found.gid()))?;
    }
    // Once more until nothing was added meanwhile: only what comes between the last read and the cut is lost.
    while io::copy(&mut from, &mut to)? > 0 {
        if to.metadata()?.len() > max.saturating_mul(4) {
            break;
        }
    }
    from.set_len(0)?;
    Ok(true)
}

/// `app.log` -> `app.log.N`.
fn older(log: &Path, number: usize) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Makes `app.log.1` free; the oldest one goes.
fn shift(log: &Path) -> io::Result<()> {
    remove_file(&older(log, KEEP))?;
    for number in (1..KEEP).rev() {
        match fs::rename(older(log, number), older(log, number + 1)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Bytes in a regular file; anything else is never rotated.
fn size(log: &Path) -> io::Result<u64> {
    match fs::symlink_metadata(log) {
        Ok(found) if found.is_file() => Ok(found.len()),
        Ok(_) => Ok(0),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    fn text(log: &Path, number: usize) -> String {
        fs::read_to_string(if number == 0 { log.to_owned() } else { older(log, number) }).unwrap_or_default()
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
            open(&log, 10, None).unwrap().write_all(format!("number {n} of six\n").as_bytes()).unwrap();
        }
        assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!([0, 1, 2, 3].map(|n| text(&log, n).chars().nth(7).unwrap()), ['5', '4', '3', '2']);
        assert!(!older(&log, 4).exists());
    }

    #[test]
    fn a_log_in_use_is_copied_and_cut_and_its_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("app.log");
        let mut writer = open(&log, 10, None).unwrap();
        assert!(!trim(&log, 10).unwrap());
        writer.write_all(b"a long first line\n").unwrap();
        assert!(trim(&log, 10).unwrap());
        writer.write_all(b"second\n").unwrap();
        assert_eq!((text(&log, 0).as_str(), text(&log, 1).as_str()), ("second\n", "a long first line\n"));
        assert!(!trim(&dir.path().join("missing"), 10).unwrap());
    }

    #[test]
    fn planted_links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, "a long secret text").unwrap();
        let (soft, hard) = (dir.path().join("soft.log"), dir.path().join("hard.log"));
        std::os::unix::fs::symlink(&secret, &soft).unwrap();
        fs::hard_link(&secret, &hard).unwrap();
        assert!(open(&soft, 1000, None).is_err());
        assert!(open(&hard, 1000, None).is_err());
        assert!(!trim(&soft, 10).unwrap());
        assert_eq!(fs::read_to_string(&secret).unwrap(), "a long secret text");
    }
}
