//! A worker whose master was killed starts the next one around itself, with the same sockets and
//! the same lock, and goes on serving meanwhile: nobody is refused, nothing is cut.
//!
//! Whether there shall be a next one decides `serve`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use super::channel::Channel;
use super::reexec::RESPAWNED;
use super::sockets::Sockets;
use super::worker::options;
use crate::app::binary::own_binary;
use crate::host::fd_passing;

/// What a worker needs for another master. As long as it lives, no master from elsewhere takes the
/// sockets' place.
pub(in crate::app) struct SpareMaster {
    sockets: Sockets,
    lock: OwnedFd,
    /// The master started here, once there was need.
    master: Option<Child>,
}

impl SpareMaster {
    /// With the sockets and the lock that the master has left to its worker.
    pub(in crate::app) fn new(sockets: &Sockets, lock: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            sockets: sockets.try_clone()?,
            lock,
            master: None,
        })
    }

    /// Starts a master of the program that runs here, which takes this process for its worker. Its
    /// process id, and the channel to it.
    pub(in crate::app) fn start(&mut self) -> io::Result<(Channel, u32)> {
        if let Some(mut before) = self.master.take() {
            // It has just died and is collected; nobody waits for it.
            let _ = before.try_wait();
        }
        let (own, other) = Channel::pair()?;
        let (lock, channel) = (self.lock.as_raw_fd(), other.as_raw_fd());
        let left = format!(
            "{};{RESPAWNED}={lock};{}={channel}",
            self.sockets.names(),
            std::process::id()
        );
        let mut command = Command::new("/proc/self/exe");
        // A group of its own: it must not be ended with what is left of the one before.
        command
            .arg0(own_binary())
            .args(options())
            .arg("server")
            .args(["--resume", &left])
            .process_group(0);
        let mut files = self.sockets.files();
        files.extend([self.lock.as_fd(), other.as_fd()]);
        fd_passing::leave(&mut command, &files);
        let child = command.spawn()?;
        let pid = child.id();
        self.master = Some(child);
        Ok((own, pid))
    }
}
