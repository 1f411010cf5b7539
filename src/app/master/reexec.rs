//! A master that becomes a newer program in the same process: what it leaves, and how it is taken
//! up again.
//!
//! Signals that come in between wait. Nothing is started or ended here.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::channel::Channel;
use super::signals::{let_signals_in, signals};
use super::sockets::{Sockets, take_all};
use super::state::Master;
use super::worker::{Worker, options};
use crate::app::lock::ServerLock;
use crate::config::Config;
use crate::host::fd_passing;
use crate::service::error::ServiceError;

impl Master {
    /// Becomes the program in place. Returns only when that did not work, with the reason.
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

    /// Takes up what the program before this one has left.
    pub(super) fn resumed(config: Config, left: &str) -> Result<Self, ServiceError> {
        let wrong = |e: io::Error| {
            ServiceError::because(
                "could not take up what the master before has left",
                &e,
                "this option is not for people",
            )
        };
        let mut parts = left.split(';');
        let mut next = || {
            parts
                .next()
                .ok_or_else(|| wrong(io::Error::other("it is not complete")))
        };
        let sockets = Sockets::taken(next()?).map_err(wrong)?;
        let mut locks = take_all(next()?).map_err(wrong)?.into_iter().map(|l| l.1);
        let (Some(at_home), Some(lock)) = (locks.next(), locks.next()) else {
            return Err(wrong(io::Error::other("there is no lock")));
        };
        let lock = ServerLock::of(&config, lock.into(), at_home.into());
        let mut workers = Vec::new();
        for part in parts {
            for (pid, file) in take_all(part).map_err(wrong)? {
                let pid = pid
                    .parse()
                    .map_err(|_| wrong(io::Error::other("a worker has no number")))?;
                workers.push(Worker::of(pid, Channel::of(file).map_err(wrong)?));
            }
        }
        let mut master = Self::with(config, lock, sockets);
        let mut workers = workers.into_iter();
        (master.serving, master.served) = (workers.next(), true);
        master.leaving = workers.collect();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            "took up what the master before has left"
        );
        Ok(master)
    }
}
