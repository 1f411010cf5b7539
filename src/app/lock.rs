//! Who runs verbs: whoever holds `run/owner.lock`. Who listens: the one keeper, which holds `run/server.lock` together with the
//! worker that serves. The kernel lets go of both when the last holder dies.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::config::{Booted, Config, SupervisorKind};
use crate::driver::host::process;
use crate::service::error::{ErrorKind, ServiceError};

/// How long a command waits for another one to end.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(5);

/// The lock; dropped, it is free.
pub(super) struct Owner {
    _lock: Flock<File>,
}

/// The keeper's lock; dropped, it is free. It is an open file, so that it can be left to the next program in this process.
pub(super) struct Server {
    file: OwnedFd,
}

impl Server {
    /// The lock that the keeper before this one held.
    pub(super) fn taken(file: OwnedFd) -> Self {
        let mut file = File::from(file);
        sign(&mut file);
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
    turn: Option<Flock<File>>,
}

impl Place {
    /// Takes the head of the queue if it is free, and then the lock if that is.
    pub(super) fn try_take(&mut self, config: &Config) -> Result<Option<Owner>, ServiceError> {
        if self.turn.is_none() {
            self.turn = try_turn(config)?;
        }
        if self.turn.is_some() { try_owner(config) } else { Ok(None) }
    }
}

/// The head of the queue: as long as somebody has it, no command takes the lock.
fn try_turn(config: &Config) -> Result<Option<Flock<File>>, ServiceError> {
    let path = config.owner_lock().with_extension("next");
    match Flock::lock(open(&path)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EAGAIN)) => Ok(None),
        Err((_, e)) => Err(refused(&path, &e)),
    }
}

/// Takes the lock if it is free and nobody goes first.
pub(super) fn try_take(config: &Config) -> Result<Option<Owner>, ServiceError> {
    match try_turn(config)? {
        Some(_turn) => try_owner(config),
        None => Ok(None),
    }
}

fn try_owner(config: &Config) -> Result<Option<Owner>, ServiceError> {
    let path = config.owner_lock();
    match Flock::lock(open(&path)?, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            sign(&mut lock);
            Ok(Some(Owner { _lock: lock }))
        }
        Err((_, nix::errno::Errno::EAGAIN)) => Ok(None),
        Err((_, e)) => Err(refused(&path, &e)),
    }
}

/// Takes the lock, waiting for a command of somebody else, or for the server before this one, to let go of it.
pub(super) async fn take(config: &Config) -> Result<Owner, ServiceError> {
    let mut place = Place::default();
    until_free(&config.owner_lock(), || place.try_take(config)).await
}

/// Takes the keeper's lock, waiting for one that is about to end. `None`: acc was halted while it waited.
pub(super) async fn server(config: &Config) -> Result<Option<Server>, ServiceError> {
    let path = config.server_lock();
    let try_it = || {
        let mut file = open(&path)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                sign(&mut file);
                Ok(Some(Server { file: file.into() }))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(refused(&path, &e)),
        }
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
    let as_opened = path.canonicalize().map_err(|e| refused(&path, &e))?;
    let (mut held, mut told) = (false, None);
    let free = || {
        match rustix::fs::flock(open(&path)?, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(())),
            Err(rustix::io::Errno::WOULDBLOCK) => held = true,
            Err(e) => return Err(refused(&path, &e)),
        }
        // The pid may be another process's by now.
        let keeper = serving(config).filter(|pid| told != Some(*pid) && process::has_open(*pid, &as_opened));
        if let Some(keeper) = keeper.and_then(|pid| process::by_pid(pid).ok().flatten()) {
            told = Some(keeper.pid);
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

fn open(path: &Path) -> Result<File, ServiceError> {
    let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    file.map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::NotFound => "run `acc boot` first",
            _ => "run as the user who booted acc (often root)",
        };
        ServiceError::because(format!("could not open `{}`", path.display()), &e, hint)
    })
}

/// Writes down who holds it, for an error message of others; the lock itself does not depend on it.
fn sign(file: &mut File) {
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
}

/// The keeper that signed the server's lock last, as long as it lives: the one that serves.
pub(super) fn serving(config: &Config) -> Option<i32> {
    let pid = std::fs::read_to_string(config.server_lock()).ok()?.trim().parse().ok()?;
    let own = i32::try_from(std::process::id()).ok()?;
    (pid != own && process::start_time(pid).ok()?.is_some()).then_some(pid)
}

fn refused(path: &Path, e: &(dyn std::error::Error + 'static)) -> ServiceError {
    ServiceError::because(format!("could not lock `{}`", path.display()), e, "is it on a network file system? `run` must be local")
}

/// Somebody else holds the owner's lock for too long.
pub(super) fn held(config: &Config) -> ServiceError {
    held_by(&config.owner_lock())
}

fn held_by(path: &Path) -> ServiceError {
    let mut holder = String::new();
    if let Ok(mut file) = File::open(path) {
        let _ = file.read_to_string(&mut holder);
    }
    ServiceError::new(
        ErrorKind::TimedOut,
        format!("another acc (process {}) is at work and holds `{}`", holder.trim(), path.display()),
        "wait until it is done, or look at it with `ps`",
    )
}
