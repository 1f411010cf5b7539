//! Who runs verbs: whoever holds `run/owner.lock`. The kernel lets go of it when the holder dies.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::config::{Booted, Config};
use crate::service::error::ServiceError;

const AGAIN: Duration = Duration::from_millis(20);
/// After this a server that waits says so.
const SAY_AFTER: Duration = Duration::from_secs(2);

/// The lock; dropped, it is free.
pub(super) struct Owner {
    _lock: Flock<File>,
}

/// The first in the queue: as long as a server or a boot waits, no command takes the lock before it.
struct Turn {
    _lock: Flock<File>,
}

/// Takes the lock if it is free and nobody goes first.
pub(super) fn try_take(config: &Config) -> Result<Option<Owner>, ServiceError> {
    match try_turn(config)? {
        Some(_turn) => try_owner(config),
        None => Ok(None),
    }
}

fn try_turn(config: &Config) -> Result<Option<Turn>, ServiceError> {
    let (path, file) = open(config.owner_lock().with_extension("next"))?;
    Ok(try_lock(&path, file)?.map(|lock| Turn { _lock: lock }))
}

fn try_owner(config: &Config) -> Result<Option<Owner>, ServiceError> {
    let (path, file) = open(config.owner_lock())?;
    Ok(try_lock(&path, file)?.map(|mut lock| {
        // Who holds it, for an error message of others; the lock itself does not depend on it.
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| write!(lock, "{}", std::process::id()));
        Owner { _lock: lock }
    }))
}

fn open(path: PathBuf) -> Result<(PathBuf, File), ServiceError> {
    match std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path) {
        Ok(file) => Ok((path, file)),
        Err(e) => {
            let hint = match e.kind() {
                std::io::ErrorKind::NotFound => "run `acc boot` first",
                std::io::ErrorKind::StorageFull => "free some space",
                _ => "run as the user who booted acc (often root)",
            };
            Err(ServiceError::because(format!("could not open `{}`", path.display()), &e, hint))
        }
    }
}

fn try_lock(path: &Path, file: File) -> Result<Option<Flock<File>>, ServiceError> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EAGAIN)) => Ok(None),
        Err((_, e)) => Err(ServiceError::because(
            format!("could not lock `{}`", path.display()),
            &e,
            "is it on a network file system? `run` must be local",
        )),
    }
}

/// A place in the queue that goes before all commands.
#[derive(Default)]
pub(super) struct Place {
    turn: Option<Turn>,
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

/// Takes the lock for a server, which waits as long as another one works: it is then the one that takes over. `None`: acc was
/// halted meanwhile.
pub(super) async fn take_over(config: &Config) -> Result<Option<Owner>, ServiceError> {
    let mut place = Place::default();
    if let Some(owner) = place.try_take(config)? {
        return Ok(Some(owner));
    }
    let patience = tokio::time::Instant::now() + SAY_AFTER;
    let mut said = false;
    loop {
        if let Some(owner) = place.try_take(config)? {
            if config.booted() == Booted::No {
                tracing::info!("acc was halted while this server waited for its turn: it ends");
                return Ok(None);
            }
            return Ok(Some(owner));
        }
        if !said && tokio::time::Instant::now() > patience {
            said = true;
            tracing::info!("another acc holds `{}`: standing by", config.owner_lock().display());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Somebody else holds it for too long.
pub(super) fn held(config: &Config) -> ServiceError {
    let mut holder = String::new();
    if let Ok(mut file) = File::open(config.owner_lock()) {
        let _ = file.read_to_string(&mut holder);
    }
    ServiceError::new(
        crate::service::error::ErrorKind::TimedOut,
        format!("another acc (process {}) is at work and holds `{}`", holder.trim(), config.owner_lock().display()),
        "wait until it is done, or look at it with `ps`",
    )
}
