//! One worker, as the master sees it: starts it with the sockets, sends and receives messages.
//!
//! It never waits for a worker's end: the master reaps all its children in one place.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::process::Command;

use futures_util::future::select_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::channel::{Channel, Word};
use super::sockets::Sockets;
use crate::host::fd_passing;

/// A child of the master, or of a former one that was killed.
pub(super) struct Worker {
    pub(super) pid: i32,
    pub(super) channel: Channel,
    /// The worker has closed its end of the channel.
    silent: bool,
}

impl Worker {
    /// Starts a worker from this program, with the options of the master itself.
    pub(super) fn start(
        program: &Path,
        sockets: &Sockets,
        lock: BorrowedFd<'_>,
    ) -> io::Result<Self> {
        let (channel, other) = Channel::pair()?;
        let mut left = sockets.files();
        left.extend([other.as_fd(), lock]);
        let mut command = Command::new(program);
        command
            .args(options())
            .arg("worker")
            .args(["--sockets", &sockets.names()]);
        command.args([
            "--channel",
            &other.as_raw_fd().to_string(),
            "--master",
            &std::process::id().to_string(),
        ]);
        command.args(["--lock", &lock.as_raw_fd().to_string()]);
        // systemd's variables are meant for the master only.
        for name in [
            "LISTEN_PID",
            "LISTEN_FDS",
            "LISTEN_FDNAMES",
            "NOTIFY_SOCKET",
            "WATCHDOG_PID",
            "WATCHDOG_USEC",
        ] {
            command.env_remove(name);
        }
        // This process has one thread and starts nothing else meanwhile, so only this child
        // inherits them.
        fd_passing::pass(&left, true)?;
        let child = command.spawn();
        fd_passing::pass(&left, false)?;
        let pid = i32::try_from(child?.id()).map_err(io::Error::other)?;
        Ok(Self::of(pid, channel))
    }

    pub(super) fn of(pid: i32, channel: Channel) -> Self {
        Self {
            pid,
            channel,
            silent: false,
        }
    }

    /// A child is not reaped yet, and a worker that was taken over has its channel open: so the pid
    /// is still its own.
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(error) = kill(Pid::from_raw(self.pid), signal) {
            tracing::warn!(pid = self.pid, %error, "could not signal a worker");
        }
    }
}

/// Receives the next message of a worker whose channel is open.
pub(super) async fn hear(worker: &mut Option<Worker>) -> Option<Word> {
    match worker {
        Some(worker) if !worker.silent => {
            let word = worker.channel.hear().await;
            worker.silent = word.is_none();
            word
        }
        _ => std::future::pending().await,
    }
}

/// Waits for the end of its channel.
async fn end(worker: &mut Worker) -> i32 {
    while worker.channel.hear().await.is_some() {}
    worker.silent = true;
    worker.pid
}

/// The pid of the next leaving worker whose channel ends.
pub(super) async fn parted(leaving: &mut [Worker]) -> i32 {
    let all: Vec<_> = leaving
        .iter_mut()
        .filter(|w| !w.silent)
        .map(|w| Box::pin(end(w)))
        .collect();
    match all.is_empty() {
        true => std::future::pending().await,
        false => select_all(all).await.0,
    }
}

/// The options of this process, without its own command and what was passed on: masters and workers
/// share them.
pub(super) fn options() -> Vec<OsString> {
    let mut given: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(place) = given.iter().position(|word| word == "--resume") {
        given.drain(place..(place + 2).min(given.len()));
    }
    match given
        .iter()
        .rposition(|word| word == "server" || word == "serve" || word == "worker")
    {
        // All arguments that follow were passed on by the master.
        Some(place) if given[place] == "worker" => given.truncate(place),
        Some(place) => drop(given.remove(place)),
        None => {}
    }
    given
}
