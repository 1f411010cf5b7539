//! A master that replaces itself with a newer program in the same process: what it passes on, and
//! how the new program continues.
//!
//! Signals that arrive meanwhile stay pending. Nothing is started or ended here.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::channel::Channel;
use super::signals::{let_signals_in, signals};
use super::sockets::{Sockets, take_all};
use super::state::Master;
use super::worker::{Worker, options};
use crate::app::lock::ServerLock;
use crate::config::Config;
use crate::host::{fd_passing, lockfile};
use crate::service::error::ServiceError;

/// The locks that were passed on. If the old program did not pass on the one in `home`, it was
/// released and is taken again.
fn take_locks(config: &Config, passed: Vec<(&str, OwnedFd)>) -> io::Result<ServerLock> {
    let (mut at_home, mut in_run) = (None, None);
    for (name, file) in passed {
        match name {
            "home" => at_home = Some(File::from(file)),
            _ => in_run = Some(File::from(file)),
        }
    }
    let missing = || io::Error::other("a lock is missing");
    let at_home = match at_home {
        Some(file) => file,
        None => lockfile::try_lock(&config.home_server_lock())?.ok_or_else(missing)?,
    };
    Ok(ServerLock::of(config, in_run.ok_or_else(missing)?, at_home))
}

impl Master {
    /// Executes the program at the path. Returns only if that failed, with the reason.
    pub(super) fn become_new(&self) -> io::Error {
        let mut left = self.sockets.files();
        left.extend([self.lock.at_home(), self.lock.as_fd()]);
        left.extend(self.all().map(|w| w.channel.file().as_fd()));
        if let Err(e) = fd_passing::pass(&left, true)
            .and_then(|()| signals().thread_block().map_err(io::Error::from))
        {
            return e;
        }
        let mut command = Command::new(self.binary.path());
        command
            .args(options())
            .arg("server")
            .args(["--resume", &self.left()]);
        let error = command.exec();
        let_signals_in();
        match fd_passing::pass(&left, false) {
            Ok(()) => error,
            Err(e) => e,
        }
    }

    /// `SOCKETS;LOCKS;PID=FILE of the serving worker;PID=FILE of each that leaves`.
    fn left(&self) -> String {
        let mut text = format!(
            "{};home={},lock={}",
            self.sockets.names(),
            self.lock.at_home().as_raw_fd(),
            self.lock.as_fd().as_raw_fd()
        );
        for worker in self.all() {
            let _ = write!(
                text,
                ";{}={}",
                worker.pid,
                worker.channel.file().as_raw_fd()
            );
        }
        text
    }

    /// Continues with what the program before this one has passed on.
    pub(super) fn resumed(config: Config, left: &str) -> Result<Self, ServiceError> {
        let wrong = |e: io::Error| {
            ServiceError::because(
                "could not resume from the previous program",
                &e,
                "`--resume` is for acc alone; run `acc boot`",
            )
        };
        let mut parts = left.split(';');
        let mut next = || {
            parts
                .next()
                .ok_or_else(|| wrong(io::Error::other("the description is incomplete")))
        };
        let sockets = Sockets::taken(next()?).map_err(wrong)?;
        let lock = take_locks(&config, take_all(next()?).map_err(wrong)?).map_err(wrong)?;
        let mut workers = Vec::new();
        for part in parts {
            for (pid, file) in take_all(part).map_err(wrong)? {
                let pid = pid
                    .parse()
                    .map_err(|_| wrong(io::Error::other("a worker has no process id")))?;
                workers.push(Worker::of(pid, Channel::of(file).map_err(wrong)?));
            }
        }
        let mut master = Self::with(config, lock, sockets);
        let mut workers = workers.into_iter();
        (master.serving, master.served) = (workers.next(), true);
        master.leaving = workers.collect();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            "resumed from the previous program"
        );
        Ok(master)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::env::Env;

    #[test]
    fn a_lock_that_an_older_program_did_not_pass_on_is_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let (env, at) = (Env::bare(0, dir.path()), dir.path().display());
        let text = format!("home = \"{at}/home\"\nrun = \"{at}/run\"\n");
        let config = crate::config::parse(&text, None, &env).unwrap();
        std::fs::create_dir_all(&config.home).unwrap();
        std::fs::create_dir_all(&config.run).unwrap();
        let file = |path| -> OwnedFd { lockfile::try_lock(path).unwrap().unwrap().into() };
        let (home, run) = (config.home_server_lock(), config.server_lock());
        let is_free = |path| lockfile::try_lock(path).unwrap().is_some();
        let old = take_locks(&config, vec![("lock", file(&run))]).unwrap();
        assert!(!is_free(&home) && !is_free(&run));
        drop(old);
        let new = take_locks(&config, vec![("home", file(&home)), ("lock", file(&run))]).unwrap();
        assert!(!is_free(&home) && !is_free(&run));
        drop(new);
        assert!(is_free(&home) && is_free(&run));
        assert!(take_locks(&config, vec![("home", file(&home))]).is_err());
        // Another master has it.
        let _other = file(&home);
        assert!(take_locks(&config, vec![("lock", file(&run))]).is_err());
    }
}
