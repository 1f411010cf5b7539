//! Who runs verbs: whoever holds `run/owner.lock`. The kernel lets go of it when the holder dies.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::config::{Booted, Config};
use crate::service::error::ServiceError;

/// How long a command waits for another one to end.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(20);
/// After this a server that waits says so.
const SAY_AFTER: Duration = Duration::from_secs(2);

/// The lock; dropped, it is free.
pub(super) struct Owner {
    _lock: Flock<File>,
}

/// Takes the lock if it is free.
pub(super) fn try_take(config: &Config) -> Result<Option<Owner>, ServiceError> {
    let path = config.owner_lock();
    let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::NotFound => "run `acc boot` first",
            _ => "run as the user who booted acc (often root)",
        };
        ServiceError::because(format!("could not open `{}`", path.display()), &e, hint)
    })?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // Who holds it, for an error message of others; the lock itself does not depend on it.
            let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| write!(lock, "{}", std::process::id()));
            Ok(Some(Owner { _lock: lock }))
        }
        Err((_, nix::errno::Errno::EAGAIN)) => Ok(None),
        Err((_, e)) => Err(ServiceError::because(
            format!("could not lock `{}`", path.display()),
            &e,
            "is it on a network file system? `run` must be local",
        )),
    }
}

/// Takes the lock, waiting for a command of somebody else to end.
pub(super) async fn take(config: &Config) -> Result<Owner, ServiceError> {
    let patience = tokio::time::sleep(PATIENCE);
    tokio::pin!(patience);
    loop {
        if let Some(owner) = try_take(config)? {
            return Ok(owner);
        }
        tokio::select! {
            () = &mut patience => return Err(held(config)),
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Takes the lock for a server, which waits as long as another one works: it is then the one that takes over. `None`: acc was
/// halted meanwhile.
pub(super) async fn take_over(config: &Config) -> Result<Option<Owner>, ServiceError> {
    if let Some(owner) = try_take(config)? {
        return Ok(Some(owner));
    }
    let patience = tokio::time::Instant::now() + SAY_AFTER;
    let mut said = false;
    loop {
        if let Some(owner) = try_take(config)? {
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
