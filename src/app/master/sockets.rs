//! The listening sockets: made once by the master, used by one worker after the other, never closed
//! in between.
//!
//! A connection made while no worker accepts waits in the kernel's backlog and is not refused. This
//! module never reads from a connection.

use std::fmt::Write as _;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use crate::app::installation::accounts;
use crate::config::Config;
use crate::control;
use crate::host::{fd_passing, listen};
use crate::service::error::{ServiceError, chain};

/// All listening sockets.
pub(in crate::app) struct Sockets {
    /// For verbs.
    pub(in crate::app) control: UnixListener,
    /// For requests that nginx, or an older acc, cannot serve.
    pub(in crate::app) wake: UnixListener,
    /// The addresses of acc's own edge; empty behind nginx.
    pub(in crate::app) tcp: Vec<TcpListener>,
}

impl Sockets {
    /// Makes them. The caller is the only master of this installation.
    pub(super) fn open(config: &Config) -> Result<Self, ServiceError> {
        let mut tcp = Vec::new();
        let own = config.edge.own_addresses();
        if !own.is_empty() {
            tcp = given();
            if tcp.is_empty() {
                for address in own {
                    tcp.push(listen::tcp(*address).map_err(|e| taken(&e))?);
                }
            }
        }
        Ok(Self {
            control: control(config)?,
            wake: wake(config)?,
            tcp,
        })
    }

    /// Makes those again whose file was removed, because clients cannot reach them any more.
    /// Returns their paths.
    pub(super) fn renew_lost(&mut self, config: &Config) -> Result<Vec<PathBuf>, ServiceError> {
        let mut renewed = Vec::new();
        if listen::is_lost(&config.wake_socket()) {
            self.wake = wake(config)?;
            renewed.push(config.wake_socket());
        }
        if listen::is_lost(&config.control_socket()) {
            self.control = control(config)?;
            renewed.push(config.control_socket());
        }
        Ok(renewed)
    }

    /// Uses those that a worker has sent, in the order of [`Self::files`].
    pub(super) fn of(mut sent: impl Iterator<Item = OwnedFd>) -> io::Result<Self> {
        // Those that systemd passed in are the same sockets.
        drop(given());
        let mut next = || sent.next().ok_or(io::ErrorKind::InvalidData);
        Ok(Self {
            control: next()?.into(),
            wake: next()?.into(),
            tcp: sent.map(TcpListener::from).collect(),
        })
    }

    /// Uses those that were left to this process, by the text of [`Self::names`].
    pub(in crate::app) fn taken(names: &str) -> io::Result<Self> {
        let (mut control, mut wake, mut tcp) = (None, None, Vec::new());
        for (name, file) in take_all(names)? {
            match name {
                "control" => control = Some(UnixListener::from(file)),
                "wake" => wake = Some(UnixListener::from(file)),
                "tcp" => tcp.push(TcpListener::from(file)),
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!("`{name}` is not a socket of acc's"),
                    ));
                }
            }
        }
        let missing =
            || io::Error::new(io::ErrorKind::InvalidInput, "a socket was not handed over");
        Ok(Self {
            control: control.ok_or_else(missing)?,
            wake: wake.ok_or_else(missing)?,
            tcp,
        })
    }

    /// Duplicates them.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let tcp = self
            .tcp
            .iter()
            .map(TcpListener::try_clone)
            .collect::<io::Result<_>>()?;
        Ok(Self {
            control: self.control.try_clone()?,
            wake: self.wake.try_clone()?,
            tcp,
        })
    }

    /// Their names and numbers, for the command line of a process that inherits them.
    pub(super) fn names(&self) -> String {
        let mut text = format!(
            "control={},wake={}",
            self.control.as_raw_fd(),
            self.wake.as_raw_fd()
        );
        for listener in &self.tcp {
            let _ = write!(text, ",tcp={}", listener.as_raw_fd());
        }
        text
    }

    /// Their open files.
    pub(super) fn files(&self) -> Vec<BorrowedFd<'_>> {
        let mut files = vec![self.control.as_fd(), self.wake.as_fd()];
        files.extend(self.tcp.iter().map(AsFd::as_fd));
        files
    }
}

/// The ports that systemd has passed to this process.
fn given() -> Vec<TcpListener> {
    let mut given = listenfd::ListenFd::from_env();
    (0..given.len())
        .filter_map(|n| given.take_tcp_listener(n).ok().flatten())
        .collect()
}

/// The wake socket belongs to root, and nginx's workers may connect. `proxy::listen` checks the
/// user of each client once more.
fn wake(config: &Config) -> Result<UnixListener, ServiceError> {
    let edge = accounts(config)?.edge;
    let mode = if edge.is_some() { 0o660 } else { 0o600 };
    listen::unix(&config.wake_socket(), mode, edge.map(|owner| owner.gid)).map_err(|e| taken(&e))
}

fn control(config: &Config) -> Result<UnixListener, ServiceError> {
    control::bind(&config.control_socket())
        .and_then(tokio::net::UnixListener::into_std)
        .map_err(|e| {
            let hint = "check `run` in the config: is it short enough, writable, on a local disk?";
            ServiceError::because(
                format!(
                    "could not listen on `{}`",
                    config.control_socket().display()
                ),
                &e,
                hint,
            )
        })
}

fn taken(e: &listen::ListenError) -> ServiceError {
    let hint = "stop the other program, or choose another address in `edge.listen`; a port below 1024 needs root";
    ServiceError::failed(chain(e), hint)
}

/// Takes all files of a text like `control=3,wake=4`.
pub(super) fn take_all(names: &str) -> io::Result<Vec<(&str, OwnedFd)>> {
    let wrong = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{names}` names no open files"),
        )
    };
    let mut taken = Vec::new();
    for part in names.split(',') {
        let (name, number) = part.split_once('=').ok_or_else(wrong)?;
        taken.push((
            name,
            fd_passing::take(number.parse().map_err(|_| wrong())?)?,
        ));
    }
    Ok(taken)
}
