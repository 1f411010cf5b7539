//! File operations: atomic writes, and removals that accept a missing file.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::untrusted;

/// Writes `bytes` to a new file beside `path`, syncs it and renames it into place: a reader gets
/// the old text or the new one, also after a power cut.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".new-{}", std::process::id()));
    let beside = dir.join(name);
    let written = (|| {
        let mut file = make_file(&beside, mode)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Creates a new file with this mode, whatever the umask, which no other process can have open;
/// removes an older one.
pub fn make_file(path: &Path, mode: u32) -> io::Result<fs::File> {
    remove_file(path)?;
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // A umask can only have cleared bits.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// Removes temporary files of [`write_atomic`] (or of another writer that names its file
/// `….new-PID`) whose process was killed. A missing folder is success.
pub fn remove_leftovers(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let writer = name
            .to_str()
            .and_then(|n| n.rsplit_once(".new-"))
            .and_then(|(_, pid)| pid.parse::<i32>().ok());
        if writer.is_some_and(has_ended) {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether the process with this pid can no longer write. A zombie cannot, and some hosts
/// (containers) have no init that reaps it. A process that cannot be read may still write.
fn has_ended(pid: i32) -> bool {
    super::process::stat(pid).is_ok_and(|seen| seen.is_none_or(|seen| seen.zombie))
}

/// Makes a folder and its parents with this mode; one that exists is left as it is.
pub fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    // It usually exists, and a check is cheaper than a try.
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
}

/// Lets every user enter a folder of acc's; who may list it stays unchanged.
pub fn let_through(dir: &Path) -> io::Result<()> {
    let mode = fs::metadata(dir)?.permissions().mode() & 0o7777;
    if mode & 0o111 == 0o111 {
        Ok(())
    } else {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode | 0o111))
    }
}

/// Removes a file or link; a missing one is success.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Checks that files can be made in this folder, by making one: modes alone do not tell.
pub fn writable(dir: &Path) -> io::Result<()> {
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    make_file(&probe, 0o600)?;
    remove_file(&probe)
}

/// Whether something is at this path, including a broken link.
#[must_use]
pub fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The last `lines` non-empty lines of a text file; none if it cannot be read.
#[must_use]
pub fn last_lines(path: &Path, lines: usize) -> Vec<String> {
    const TAIL: u64 = 16 * 1024;
    let read = || -> io::Result<String> {
        let (mut file, found) = untrusted::open(path, untrusted::To::Read)?;
        let start = u64::try_from(found.st_size)
            .unwrap_or(0)
            .saturating_sub(TAIL);
        file.seek(io::SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        // The writer may add lines faster than this reads.
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let all: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..]
        .iter()
        .map(|l| (*l).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic(&path, b"old", 0o600).unwrap();
        assert!(write_atomic(&dir.path().join("missing/a"), b"new", 0o600).is_err());
        write_atomic(&path, b"new", 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_what_dead_writers_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let own = format!("a.conf.new-{}", std::process::id());
        for name in [
            "a.conf",
            "a.conf.new-2147483646",
            "b.new-x",
            ".c.new-2147483646",
            own.as_str(),
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        remove_leftovers(dir.path()).unwrap();
        remove_leftovers(&dir.path().join("missing")).unwrap();
        let mut left: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["a.conf", &own, "b.new-x"]);
        // Dead, and not collected.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        fs::write(dir.path().join(format!("d.new-{pid}")), "").unwrap();
        while !has_ended(pid) {
            std::thread::yield_now();
        }
        remove_leftovers(dir.path()).unwrap();
        assert!(!exists(&dir.path().join(format!("d.new-{pid}"))));
        child.wait().unwrap();
    }
}
