//! One installation: its accounts, its database, and the record of its boot.
//!
//! It starts nothing and ends nothing.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::accounts::Accounts;
use crate::config::{Booted, Config};
use crate::host::clock::{Clock as _, SystemClock};
use crate::host::fs;
use crate::host::limits::OpenFiles;
use crate::service::error::ServiceError;
use crate::store::StoreError;
use crate::store::sqlite::SqliteStore;

/// The users of instances and of nginx's workers, if they are not acc's own.
pub(super) fn accounts(config: &Config) -> Result<Accounts, ServiceError> {
    Accounts::of(config).map_err(|fault| ServiceError::failed(fault.message, fault.hint))
}

/// Records how acc was booted, because dead processes are restarted only while this record exists.
/// Also records the limit of open files, which instances get.
pub(super) fn note_boot(config: &Config, booted: Booted) -> Result<(), ServiceError> {
    let failed = |path: PathBuf| {
        move |e| {
            ServiceError::because(
                format!("could not write `{}`", path.display()),
                &e,
                "check free space, owner and mode",
            )
        }
    };
    for limits in [config.home_open_files_file(), config.open_files_file()] {
        OpenFiles::own().note(&limits).map_err(failed(limits))?;
    }
    let in_home = booted.text_for_home(&config.run);
    for (path, text) in [
        (config.home_booted_file(), in_home.as_str()),
        (config.booted_file(), booted.as_str()),
    ] {
        fs::write_atomic(&path, text.as_bytes(), 0o644).map_err(failed(path))?;
    }
    Ok(())
}

/// The database of this installation.
pub(super) fn open_store(config: &Config) -> Result<SqliteStore, ServiceError> {
    SqliteStore::open(&config.database()).map_err(crate::service::error::store)
}

/// Pause before another try to open a database that another program has locked.
const LOCKED_PAUSE: Duration = Duration::from_millis(200);

/// Opens the database for a server, whose clients wait: if another program has locked it, tries for
/// as long as a request may be held.
pub(super) async fn open_store_patiently(config: &Config) -> Result<SqliteStore, ServiceError> {
    let give_up = SystemClock.now().after(config.wake.timeout);
    loop {
        match SqliteStore::open(&config.database()) {
            Err(e @ StoreError::Locked(_)) if SystemClock.now() < give_up => {
                tracing::warn!("waiting: {e}")
            }
            opened => return opened.map_err(crate::service::error::store),
        }
        // SQLite itself waits for most locks, but not for all.
        tokio::time::sleep(LOCKED_PAUSE).await;
    }
}
