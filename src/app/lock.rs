//! The locks of an installation. The process that holds `run/owner.lock` runs verbs. The one master
//! listens: it holds `home/server.lock`, and `run/server.lock` together with the worker that
//! serves. The kernel releases a lock when its last holder dies, so a worker whose master has died
//! still holds one. The content of a lock file counts only while its holder lives.
//!
//! A cleaner of temporary folders may remove a lock file while it is held. The next process would
//! then make a new file and get the lock. So each lock is held twice: in `run`, where older
//! versions of acc check as well, and in `home`.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Booted, Config};
use crate::domain::instance::Process;
use crate::host::lockfile::{self, Held};
use crate::host::process;
use crate::service::error::{ErrorKind, ServiceError};
use crate::service::places;

/// How long a command waits for another one to end.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(5);

/// The owner's lock; dropping it releases it.
pub(super) struct OwnerLock {
    _lock: Held,
    _at_home: Held,
}

/// The master's lock; dropping it releases it. It consists of two open files, so that it can be
/// passed on to the next program in this process.
pub(super) struct ServerLock {
    /// In `run`; the serving worker holds it as well.
    file: OwnedFd,
    /// In `home`; only the master holds it.
    at_home: OwnedFd,
}

impl ServerLock {
    /// Made of these two files, which this process holds.
    pub(super) fn of(config: &Config, mut file: File, mut at_home: File) -> Self {
        lockfile::sign(&mut file);
        // For a command with this home that expects its server in another run folder.
        lockfile::note(&mut at_home, config.run.as_os_str().as_bytes());
        Self {
            file: file.into(),
            at_home: at_home.into(),
        }
    }

    /// The file in `home`.
    pub(super) fn at_home(&self) -> BorrowedFd<'_> {
        self.at_home.as_fd()
    }

    /// Makes the lock file again if it was removed; returns `true` if it was.
    pub(super) fn renew_lost(&mut self, config: &Config) -> std::io::Result<bool> {
        if !lockfile::is_lost(&self.file, &config.server_lock())? {
            return Ok(false);
        }
        let mut new =
            lockfile::try_lock(&config.server_lock())?.ok_or(std::io::ErrorKind::WouldBlock)?;
        lockfile::sign(&mut new);
        self.file = new.into();
        Ok(true)
    }
}

impl AsFd for ServerLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A place in the queue for the owner's lock ahead of all commands: many commands must not delay a
/// server or a boot.
#[derive(Default)]
pub(super) struct OwnerLockQueue {
    turn: Option<Held>,
}

impl OwnerLockQueue {
    /// Waits for the head of the queue, until a command that is about to take the lock has done so.
    pub(super) async fn at_head(config: &Config) -> Result<Self, ServiceError> {
        let path = next(config);
        let turn = until_free(&path, || make_run(config).and_then(|()| try_hold(&path))).await?;
        Ok(Self { turn: Some(turn) })
    }

    /// Takes the head of the queue if it is free, and then the lock if that is free.
    pub(super) fn try_take(&mut self, config: &Config) -> Result<Option<OwnerLock>, ServiceError> {
        make_run(config)?;
        if self.turn.is_none() {
            self.turn = try_hold(&next(config))?;
        }
        if self.turn.is_some() {
            try_owner(config)
        } else {
            Ok(None)
        }
    }

    /// Waits until another command, or the former server, releases the lock, and takes it.
    pub(super) async fn take(mut self, config: &Config) -> Result<OwnerLock, ServiceError> {
        until_free(&config.owner_lock(), || self.try_take(config)).await
    }
}

/// A cleaner may remove the run folder at any time: a server and a boot make it again.
fn make_run(config: &Config) -> Result<(), ServiceError> {
    if config.run.is_dir() {
        Ok(())
    } else {
        places::prepare(config)
    }
}

/// The file of the queue's head: while a process holds it, no command takes the lock.
fn next(config: &Config) -> PathBuf {
    config.owner_lock().with_extension("next")
}

/// Takes the lock if it is free and no server or boot waits for it.
pub(super) fn try_take(config: &Config) -> Result<Option<OwnerLock>, ServiceError> {
    // Without a run folder there is no queue; the holder of this lock makes the folder again.
    if try_hold(&config.home_owner_lock())?.is_none() {
        return Ok(None);
    }
    match unless_made_again(config, try_hold(&next(config)))? {
        Some(_turn) => unless_made_again(config, try_owner(config)),
        None => Ok(None),
    }
}

/// If the run folder is gone and a server runs, that will make it again: its locks count as held.
fn unless_made_again<T>(
    config: &Config,
    taken: Result<Option<T>, ServiceError>,
) -> Result<Option<T>, ServiceError> {
    match taken {
        Err(_) if !config.run.is_dir() && serving(config).is_some() => Ok(None),
        taken => taken,
    }
}

fn try_owner(config: &Config) -> Result<Option<OwnerLock>, ServiceError> {
    let Some(at_home) = try_hold(&config.home_owner_lock())? else {
        return Ok(None);
    };
    let Some(mut lock) = try_hold(&config.owner_lock())? else {
        return Ok(None);
    };
    lock.sign();
    Ok(Some(OwnerLock {
        _lock: lock,
        _at_home: at_home,
    }))
}

fn try_hold(path: &Path) -> Result<Option<Held>, ServiceError> {
    lockfile::try_hold(path).map_err(|e| refused(path, &e))
}

/// Takes the part of the master's lock that only a master holds; waits for a master that is about
/// to end. `None`: acc was halted meanwhile.
pub(super) async fn master(config: &Config) -> Result<Option<File>, ServiceError> {
    let path = config.home_server_lock();
    let try_it = || lockfile::try_lock(&path).map_err(|e| refused(&path, &e));
    if let Some(lock) = try_it()? {
        return Ok(Some(lock));
    }
    // Another server may have outlived its supervisor: this one stands by until that ends.
    let stands_by = || match config.booted() {
        Booted::No => false,
        Booted::InBackground => true,
        Booted::InForeground => config.supervisor.has_daemon(),
    };
    loop {
        match until_free(&path, try_it).await {
            Ok(lock) => return Ok((config.booted() != Booted::No).then_some(lock)),
            Err(e) if e.kind == ErrorKind::TimedOut && stands_by() => {}
            Err(e) => return Err(e),
        }
    }
}

/// Takes the part that the worker holds as well; `None`: a worker whose master has died holds it.
pub(super) fn try_server(config: &Config) -> Result<Option<File>, ServiceError> {
    let path = config.server_lock();
    lockfile::try_lock(&path).map_err(|e| refused(&path, &e))
}

/// Whether a process runs verbs. Checked in `home`, where no cleaner removes the lock file.
pub(super) fn is_owned(config: &Config) -> Result<bool, ServiceError> {
    Ok(try_hold(&config.home_owner_lock())?.is_none())
}

/// Ends the process that holds the master's lock without its supervisor knowing it: a worker whose
/// master was killed, or a server that was started by hand. Resolves when no process holds the lock
/// any more; `true`: one did.
pub(super) async fn end_server(config: &Config, patience: Duration) -> Result<bool, ServiceError> {
    let (path, at_home) = (config.server_lock(), config.home_server_lock());
    let is_free = |path: &Path| -> Result<bool, ServiceError> {
        Ok(!path.try_exists().map_err(|e| refused(path, &e))? || try_hold(path)?.is_some())
    };
    let (mut held, mut signalled) = (false, None);
    let free = || {
        if is_free(&path)? && is_free(&at_home)? {
            return Ok(Some(()));
        }
        held = true;
        let holder = serving(config).or_else(|| lockfile::holding(&path));
        if let Some(holder) = holder.filter(|holder| signalled != Some(*holder)) {
            signalled = Some(holder);
            process::signal_one(holder, libc::SIGTERM).map_err(|e| refused(&path, &e))?;
        }
        Ok(None)
    };
    until_free_for(&path, patience, free).await?;
    Ok(held)
}

async fn until_free<T>(
    path: &Path,
    try_it: impl FnMut() -> Result<Option<T>, ServiceError>,
) -> Result<T, ServiceError> {
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

/// Refuses to use the home of a server that runs with another run folder: neither would know the
/// other's instances.
pub(super) fn refuse_elsewhere(config: &Config) -> Result<(), ServiceError> {
    let path = config.home_server_lock();
    let run = std::fs::read(&path).unwrap_or_default();
    if run.is_empty() || run == config.run.as_os_str().as_bytes() {
        return Ok(());
    }
    let Some(master) = lockfile::holding(&path) else {
        return Ok(());
    };
    let (home, before, now) = (
        config.home.display(),
        String::from_utf8_lossy(&run),
        config.run.display(),
    );
    let message = format!(
        "acc runs with home `{home}` and run `{before}` (process {}), but the config has run `{now}`",
        master.pid
    );
    Err(ServiceError::new(
        ErrorKind::Denied,
        message,
        format!("set `run = \"{before}\"` in the config until the next `acc halt`"),
    ))
}

/// The master that serves: it signed the server's lock last and holds it. Only the master holds the
/// file in `home`.
pub(super) fn serving(config: &Config) -> Option<Process> {
    lockfile::signed(&config.server_lock())
        .or_else(|| lockfile::holding(&config.home_server_lock()))
}

fn refused(path: &Path, e: &(dyn std::error::Error + 'static)) -> ServiceError {
    let kind = e.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    let hint = match kind {
        Some(std::io::ErrorKind::NotFound) => "run `acc boot` first",
        Some(std::io::ErrorKind::PermissionDenied) => {
            "run this command as the user who booted acc (often root)"
        }
        _ => "remove it if it does not belong to acc; `run` must be on a local file system",
    };
    ServiceError::because(format!("could not lock `{}`", path.display()), e, hint)
}

/// The error if another process holds the owner's lock for too long.
pub(super) fn held(config: &Config) -> ServiceError {
    held_by(&config.owner_lock())
}

fn held_by(path: &Path) -> ServiceError {
    let holder = lockfile::holder(path).map_or_else(String::new, |pid| format!(" (process {pid})"));
    ServiceError::new(
        ErrorKind::TimedOut,
        format!(
            "another acc{holder} is running and holds `{}`",
            path.display()
        ),
        "wait until it has ended, or find it with `ps`",
    )
}
