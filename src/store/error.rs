//! The errors of the database, and SQLite's errors converted to them.
//!
//! It checks the file's folder where SQLite does not say enough (permissions, space), and never
//! opens the database.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::domain::name::{HostName, InstanceName};

/// What can be wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not exist yet.
    #[error("there is no database `{0}`")]
    Missing(PathBuf),
    /// Written by a newer acc.
    #[error("database `{path}` has version {found}; this acc supports versions up to {known}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that this acc supports.
        known: usize,
    },
    /// Not a database, or damaged.
    #[error("database `{path}` is damaged: {why}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// SQLite's message.
        why: String,
    },
    /// Another program holds a lock on it.
    #[error("database `{0}` is locked by another program")]
    Locked(PathBuf),
    /// No room.
    #[error("no space left on the disk of database `{0}`")]
    Full(PathBuf),
    /// It cannot be opened or written.
    #[error("database `{path}` cannot be used: {why}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// SQLite's message.
        why: String,
    },
    /// This user may not read or write it.
    #[error("no permission to use database `{0}`")]
    Forbidden(PathBuf),
    /// It is not used any more; the text says why.
    #[error("the database is not written any more: {0}")]
    Ended(&'static str),
    /// Something unique exists already; the text names it.
    #[error("{0} is taken")]
    Taken(Conflict),
}

/// What two instances may not share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// A name.
    #[error("the name `{0}`")]
    Name(InstanceName),
    /// A host name.
    #[error("the host `{0}`")]
    Host(HostName),
    /// A port.
    #[error("the port {0}")]
    Port(u16),
}

/// Whether there is less room than SQLite needs to open a database.
fn no_room(path: &Path) -> bool {
    let Some(dir) = path.parent() else {
        return false;
    };
    rustix::fs::statvfs(dir).is_ok_and(|at| at.f_bavail.saturating_mul(at.f_frsize) < 64 * 1024)
}

/// Converts SQLite's error.
pub(super) fn translate(path: &Path, e: &rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked(path),
        Some(ErrorCode::DiskFull) => StoreError::Full(path),
        // Some of its files cannot even be made; SQLite reports that as a disk error.
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if no_room(&path) => {
            StoreError::Full(path)
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt {
            path,
            why: e.to_string(),
        },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied)
            if forbidden(&path) =>
        {
            StoreError::Forbidden(path)
        }
        _ => StoreError::Unusable {
            path,
            why: e.to_string(),
        },
    }
}

/// Whether this user has no access, which SQLite does not report. Checked without opening the file:
/// closing it would release the locks of this process.
fn forbidden(path: &Path) -> bool {
    use rustix::fs::{Access, access};
    let kept_out = |path: &Path, wanted| access(path, wanted) == Err(rustix::io::Errno::ACCESS);
    kept_out(path, Access::READ_OK | Access::WRITE_OK)
        || path
            .parent()
            .is_some_and(|dir| kept_out(dir, Access::WRITE_OK | Access::EXEC_OK))
}
