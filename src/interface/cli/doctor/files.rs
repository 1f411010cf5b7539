//! Home and run: are they there, whose are they, is there room; the database.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access, statfs, statvfs};

use super::finding::{Finding, bad, ok, warn};
use crate::config::accounts::Owner;
use crate::config::{Config, trust};
use crate::host::rotate::{LOG_MAX, ROOM};
use crate::host::users;
use crate::service::error;
use crate::store::sqlite::{SqliteStore, WAL_TOO_LARGE};
use crate::store::{Filter, InstanceStore};

/// `f_type` of a tmpfs, see statfs(2).
const TMPFS: i64 = 0x0102_1994;

const MIB: u64 = 1024 * 1024;

pub(super) fn all(config: &Config) -> Vec<Finding> {
    let mut findings = vec![folder("home", &config.home), folder("run", &config.run)];
    findings.extend(room(&config.home));
    findings.push(memory(&config.run));
    findings.push(database(config));
    findings.extend(owners(config));
    findings
}

/// Instances that were made for another user than the one they run as now: they cannot read their
/// files or write their data.
fn owners(config: &Config) -> Option<Finding> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let user = config.user.as_deref().unwrap_or("root");
    let owner = Owner::of(Some(user)).ok()??;
    let others = users::of_others(&config.home.join("instances"), owner.uid);
    let first = others.first()?;
    let what = format!(
        "the data of {} (such as `{first}`) does not belong to user `{user}`, as which instances run now",
        count(others.len(), "instance")
    );
    Some(bad(
        what,
        "docs/operating.md, \"Run instances as another user\", explains how to change the owner",
    ))
}

fn count(number: usize, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}

/// There, ours, writable, and not for everybody; or it can be made.
fn folder(word: &str, path: &Path) -> Finding {
    let shown = path.display();
    let not_checked = |e: std::io::Error| {
        bad(
            format!("could not check {word} `{shown}`: {e}"),
            "check that this user may read its parent folders",
        )
    };
    match trust::distrust(path) {
        Ok(None) => {}
        Ok(Some(found)) if found.path == path && found.why == "is not a folder" => {
            return bad(
                format!("{word} `{shown}` is not a folder"),
                format!("remove it, or set `{word}` in the config"),
            );
        }
        Ok(Some(found)) => {
            let hint = format!(
                "run acc as its owner; {}; or set `{word}` in the config to another place",
                found.fix()
            );
            return bad(
                format!("{word} `{shown}` {}: acc does not use it", found.of(path)),
                hint,
            );
        }
        Err(e) => return not_checked(e),
    }
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return to_be_made(word, path),
        Err(e) => return not_checked(e),
    };
    let own = rustix::process::geteuid().as_raw();
    if access(path, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return bad(
            format!(
                "{word} `{shown}` of user {} is not writable for user {own}",
                meta.uid()
            ),
            format!(
                "run this command as root or as the user who booted acc, or set `{word}` in the config"
            ),
        );
    }
    ok(format!(
        "{word} `{shown}`: user {}, mode {:04o}",
        meta.uid(),
        meta.mode() & 0o7777
    ))
}

fn to_be_made(word: &str, path: &Path) -> Finding {
    let above = existing(path);
    match access(above, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => ok(format!(
            "{word} `{}` does not exist yet: `acc boot` creates it",
            path.display()
        )),
        Err(_) => bad(
            format!(
                "{word} `{}` does not exist, and `{}` is not writable",
                path.display(),
                above.display()
            ),
            format!(
                "create it as root and give it to the user who runs acc, or set `{word}` in the config"
            ),
        ),
    }
}

/// The nearest folder above (or the path itself) that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|p| p.exists())
        .unwrap_or(Path::new("/"))
}

/// Space and inodes where home is or will be.
fn room(home: &Path) -> Vec<Finding> {
    match statvfs(existing(home)) {
        Ok(s) => vec![
            space(s.f_bavail * s.f_frsize, s.f_blocks * s.f_frsize),
            inodes(s.f_favail, s.f_files),
        ],
        Err(e) => vec![warn(
            format!(
                "could not query the free space below `{}`: {e}",
                home.display()
            ),
            "`df` may show more",
        )],
    }
}

fn space(free: u64, all: u64) -> Finding {
    // Below that a log that has grown too long is cut, and its end is not kept.
    let cut = if free < ROOM * LOG_MAX {
        ": too little to keep a copy of logs that grow too long"
    } else {
        ""
    };
    let text = format!("{} MiB free of {} for home{cut}", free / MIB, all / MIB);
    let hint = "free some space, for instance with `acc purge` for destroyed instances";
    match free {
        _ if free < 64 * MIB => bad(text, hint),
        _ if free < 1024 * MIB => warn(text, hint),
        _ => ok(text),
    }
}

/// Some file systems have no fixed number of inodes and say 0.
fn inodes(free: u64, all: u64) -> Finding {
    let text = format!("{free} of {all} inodes free for home");
    match (free, all) {
        (_, 0) => ok("inodes for home: no fixed number"),
        (0..1000, _) => bad(text, "remove small files below home"),
        _ if free < all / 20 => warn(text, "remove small files below home"),
        _ => ok(text),
    }
}

/// Run must be empty after a reboot: then every gate is closed by itself.
fn memory(run: &Path) -> Finding {
    #[allow(clippy::unnecessary_cast)] // the type differs between architectures
    let kind = statfs(existing(run)).map(|s| s.f_type as i64);
    match kind {
        Ok(TMPFS) => ok("run is on a tmpfs: empty after a reboot"),
        // `run` is already below /run: no other folder can be suggested.
        Ok(_) if run.starts_with("/run") => warn(
            "run is below /run, but /run is not a tmpfs on this host: after a host crash, old sockets and gates may remain there",
            "no action is needed: `acc boot` removes them",
        ),
        Ok(_) => warn(
            "run is not on a tmpfs: after a host crash, old sockets and gates may remain there",
            "set `run` to a folder below /run; `acc boot` removes old sockets and gates in any case",
        ),
        Err(e) => warn(
            format!("could not query the file system of run: {e}"),
            "`df` may show more",
        ),
    }
}

fn database(config: &Config) -> Finding {
    let path = config.database();
    if !matches!(trust::distrust(&config.home), Ok(None)) {
        return warn(
            format!("the database `{}` was not opened", path.display()),
            "fix the finding about home first",
        );
    }
    match path.try_exists() {
        Ok(false) => return ok("no database yet: `acc boot` creates it"),
        Err(e) => {
            return bad(
                format!("could not check the database `{}`: {e}", path.display()),
                "check that this user may read home",
            );
        }
        Ok(true) => {}
    }
    let first = Filter {
        limit: Some(1),
        ..Filter::default()
    };
    let read = SqliteStore::open_readonly(&path)
        .and_then(|store| store.list(&first).map(|_| store.wal_size()))
        .map_err(error::store);
    match read {
        Ok(size) if size >= WAL_TOO_LARGE => warn(
            format!(
                "the write-ahead log of database `{}` has grown to {} MiB",
                path.display(),
                size / MIB
            ),
            "a program keeps the database open for reading: find it with `fuser -v PATH` and end it; then acc truncates the log",
        ),
        Ok(_) => ok(format!("database `{}` can be read", path.display())),
        Err(error) => bad(error.message, error.hint),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::finding::Level;
    use super::*;

    #[test]
    fn folders_are_judged() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(folder("home", dir.path()).level, Level::Ok);
        let missing = folder("home", &dir.path().join("a/b"));
        assert_eq!(missing.level, Level::Ok);
        assert!(missing.what.contains("`acc boot` creates it"));
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(folder("home", &dir.path().join("file")).level, Level::Bad);
        assert_eq!(
            folder("home", &dir.path().join("file/below")).level,
            Level::Bad
        );
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(folder("run", dir.path()).hint.contains("chmod go-w"));
    }

    #[test]
    fn room_is_judged() {
        assert_eq!(space(10 * MIB, 9999 * MIB).level, Level::Bad);
        assert!(
            space(10 * MIB, 9999 * MIB).what.contains("too little")
                && !space(100 * MIB, 9999 * MIB).what.contains("cut")
        );
        assert_eq!(space(100 * MIB, 9999 * MIB).level, Level::Warn);
        assert_eq!(space(5000 * MIB, 9999 * MIB).level, Level::Ok);
        assert_eq!(inodes(0, 0).level, Level::Ok);
        assert_eq!(inodes(5, 1_000_000).level, Level::Bad);
        assert_eq!(inodes(5000, 1_000_000).level, Level::Warn);
        assert_eq!(inodes(900_000, 1_000_000).level, Level::Ok);
        assert_eq!(room(Path::new("/no/such/folder")).len(), 2);
        assert_ne!(memory(Path::new("/")).level, Level::Bad);
    }
}
