//! Who runs verbs: whoever holds `run/owner.lock`. Who listens: the one keeper, which holds `run/server.lock` together with the
//! worker that serves. The kernel lets go of both when the last holder dies. What is in the files is believed of their holder only.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Booted, Config, SupervisorKind};
use crate::domain::instance::Process;
use crate::driver::host::lockfile::{self, Held};
use crate::driver::host::process;
use crate::service::error::{ErrorKind, ServiceError};

/// How long a command waits for another one to end.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(5);

/// The lock; dropped, it is free.
pub(super) struct Owner {
    _lock: Held,
}

/// The keeper's lock; dropped, it is free. It is an open file, so that it can be left to the next program in this process.
pub(super) struct Server {
    file: OwnedFd,
}

impl Server {
    /// The lock that the keeper before this one held.
    pub(super) fn taken(file: OwnedFd) -> Self {
        let mut file = File::from(file);
        lockfile::sign(&mut file);
        Self { file: file.into() }
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A place in the queue for the owner's lock that goes before all commands: a server and a boot are not kept waiting by a crowd.
#[derive(Default)]
pub(super) struct Place {
    turn: Option<Held>,
}

impl Place {
    /// Takes the head of the queue, waiting for a command that is about to take the lock.
    pub(super) async fn at_head(config: &Config) -> Result<Self, ServiceError> {
        let path = next(config);
        let turn = until_free(&path, || try_hold(&path)).await?;
        Ok(Self { turn: Some(turn) })
    }

    /// Takes the head of the queue if it is free, and then the lock if that is.
    pub(super) fn try_take(&mut self, config: &Config) -> Result<Option<Owner>, ServiceError> {
        if self.turn.is_none() {
            self.turn = try_hold(&next(config))?;
        }
        if self.turn.is_some() { try_owner(config) } else { Ok(None) }
    }

    /// Takes the lock, waiting for a command of somebody else, or for the server before this one, to let go of it.
    pub(super) async fn take(mut self, config: &Config) -> Result<Owner, ServiceError> {
        until_free(&config.owner_lock(), || self.try_take(config)).await
    }
}

/// The head of the queue: as long as somebody has it, no command takes the lock.
fn next(config: &Config) -> PathBuf {
    config.owner_lock().with_extension("next")
}

/// Takes the lock if it is free and nobody goes first.
pub(super) fn try_take(config: &Config) -> Result<Option<Owner>, ServiceError> {
    match try_hold(&next(config))? {
        Some(_turn) => try_owner(config),
        None => Ok(None),
    }
}

fn try_owner(config: &Config) -> Result<Option<Owner>, ServiceError> {
    let path = config.owner_lock();
    let lock = try_hold(&path)?;
    Ok(lock.map(|mut lock| {
        lock.sign();
        Owner { _lock: lock }
    }))
}

fn try_hold(path: &Path) -> Result<Option<Held>, ServiceError> {
    lockfile::try_hold(path).map_err(|e| refused(path, &e))
}

/// Takes the keeper's lock, waiting for one that is about to end. `None`: acc was halted while it waited.
pub(super) async fn server(config: &Config) -> Result<Option<Server>, ServiceError> {
    let path = config.server_lock();
    let try_it = || {
        let lock = lockfile::try_lock(&path).map_err(|e| refused(&path, &e))?;
        Ok(lock.map(|file| Server::taken(file.into())))
    };
    if let Some(lock) = try_it()? {
        return Ok(Some(lock));
    }
    // Another server may have outlived its supervisor: this one stands by for as long as that takes.
    let stands_by = || match config.booted() {
        Booted::No => false,
        Booted::InBackground => true,
        Booted::InForeground => config.supervisor == SupervisorKind::Supervisord,
    };
    loop {
        match until_free(&path, try_it).await {
            Ok(lock) => return Ok((config.booted() != Booted::No).then_some(lock)),
            Err(e) if e.kind == ErrorKind::TimedOut && stands_by() => {}
            Err(e) => return Err(e),
        }
    }
}

/// Ends the keeper that holds the lock although its supervisor did not know of it: whoever should have told was killed before it
/// could. Resolves when nobody holds the lock any more; `true`: somebody did.
pub(super) async fn end_server(config: &Config, patience: Duration) -> Result<bool, ServiceError> {
    let path = config.server_lock();
    if !path.try_exists().map_err(|e| refused(&path, &e))? {
        return Ok(false);
    }
    let (mut held, mut told) = (false, None);
    let free = || {
        if try_hold(&path)?.is_some() {
            return Ok(Some(()));
        }
        held = true;
        if let Some(keeper) = serving(config).filter(|keeper| told != Some(*keeper)) {
            told = Some(keeper);
            process::signal_one(keeper, libc::SIGTERM).map_err(|e| refused(&path, &e))?;
        }
        Ok(None)
    };
    until_free_for(&path, patience, free).await?;
    Ok(held)
}

async fn until_free<T>(path: &Path, try_it: impl FnMut() -> Result<Option<T>, ServiceError>) -> Result<T, ServiceError> {
    until_free_for(path, PATIENCE, try_it).await
}

async fn until_free_for<T>(
    path: &Path,
    patience: Duration,
    mut try_it: impl FnMut() -> Result<Option<T>, ServiceError>,
) -> Result<T, ServiceError> {
    let patience = tokio::time::sleep(patience);
    tokio::pin!(patience);
    loop {
        if let Some(lock) = try_it()? {
            return Ok(lock);
        }
        tokio::select! {
            () = &mut patience => return Err(held_by(path)),
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// The keeper that signed the server's lock last and holds it: the one that serves.
pub(super) fn serving(config: &Config) -> Option<Process> {
    lockfile::signed(&config.server_lock())
}

fn refused(path: &Path, e: &(dyn std::error::Error + 'static)) -> ServiceError {
    let kind = e.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    let hint = match kind {
        Some(std::io::ErrorKind::NotFound) => "run `acc boot` first",
        Some(std::io::ErrorKind::PermissionDenied) => "run as the user who booted acc (often root)",
        _ => "if it is not acc's, remove it; is it on a network file system? `run` must be local",
    };
    ServiceError::because(format!("could not lock `{}`", path.display()), e, hint)
}

/// Somebody else holds the owner's lock for too long.
pub(super) fn held(config: &Config) -> ServiceError {
    held_by(&config.owner_lock())
}

fn held_by(path: &Path) -> ServiceError {
    let holder = lockfile::holder(path).map_or_else(String::new, |pid| format!(" (process {pid})"));
    ServiceError::new(
        ErrorKind::TimedOut,
        format!("another acc{holder} is at work and holds `{}`", path.display()),
        "wait until it is done, or look at it with `ps`",
    )
}
