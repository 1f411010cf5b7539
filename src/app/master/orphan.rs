//! A worker whose master was killed continues to serve and looks for the next one, which takes over
//! the listening sockets, the lock and the worker itself: no client is refused, no stream is cut.
//!
//! The lock decides which process is the master. Nothing is started or ended here.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use tokio::net::UnixListener;

use super::channel::{Channel, Word};
use super::sockets::Sockets;
use super::worker::Worker;
use crate::app::lock::{self, ServerLock};
use crate::config::{Booted, Config};
use crate::host::{fd_passing, fs, listen, unix_connect};
use crate::service::error::{ServiceError, chain};

/// How often a worker looks for a master, and a master for the lock.
const CHECK_EVERY: Duration = Duration::from_millis(50);
/// How long the holder of the owner's lock may take to identify itself as a worker without a
/// master.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);
/// How long a connected worker may take to send the files.
const SENT_WITHIN: Duration = Duration::from_secs(1);

/// What a worker keeps for the next master. As long as it exists, no master with other sockets can
/// replace it.
pub(in crate::app) struct Inheritance {
    sockets: Sockets,
    lock: OwnedFd,
}

impl Inheritance {
    /// Keeps the sockets and the lock that the master has left to its worker.
    pub(in crate::app) fn new(sockets: &Sockets, lock: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            sockets: sockets.try_clone()?,
            lock,
        })
    }

    /// Waits for the next master and lets it take over. Returns the channel to it and its pid.
    pub(in crate::app) async fn claimed(&self, config: &Config) -> (Channel, i32) {
        loop {
            match self.offer(&config.master_socket()) {
                Ok(claimed) => return claimed,
                Err(error) => tracing::trace!(%error, "no master yet"),
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }

    /// Connects to the next master, if there is one.
    fn offer(&self, path: &Path) -> io::Result<(Channel, i32)> {
        let stream = unix_connect::connect(path)?;
        let peer = socket_peercred(&stream)?;
        if !is_trusted(peer.uid.as_raw()) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let master = peer.pid.as_raw_nonzero().get();
        let mut files = vec![self.lock.as_fd()];
        files.extend(self.sockets.files());
        fd_passing::send(&stream, Word::Ready.byte(), &files)?;
        Ok((Channel::of(stream.into())?, master))
    }
}

/// How a process became the master.
pub(super) enum Turn {
    /// There is no server: the sockets must be made.
    First(ServerLock),
    /// A worker whose master has died continues to serve.
    After(ServerLock, Sockets, Worker),
}

/// Waits until this process is the only master. `None`: acc was halted while it waited.
pub(super) async fn turn(config: &Config) -> Result<Option<Turn>, ServiceError> {
    let Some(at_home) = lock::master(config).await? else {
        return Ok(None);
    };
    let path = config.master_socket();
    let listener = listen::unix(&path, 0o600, None).map_err(|e| {
        ServiceError::failed(chain(&e), "check free space, owner and mode of `run`")
    })?;
    let unusable = |e| ServiceError::because("could not wait for a worker", &e, "try again");
    listener.set_nonblocking(true).map_err(unusable)?;
    let listener = UnixListener::from_std(listener).map_err(unusable)?;
    let (began, mut waited) = (tokio::time::Instant::now(), false);
    let turn = loop {
        match lock::try_server(config)? {
            // The lock file may have been removed while a worker holds the owner's lock.
            Some(_) if began.elapsed() < SHOWN_WITHIN && lock::is_owned(config)? => {}
            Some(_) if waited && config.booted() == Booted::No => break None,
            Some(file) => break Some(Turn::First(ServerLock::of(config, file, at_home))),
            None => waited = true,
        }
        let came = tokio::select! {
            came = listener.accept() => came,
            () = tokio::time::sleep(CHECK_EVERY) => continue,
        };
        match take_over(came.map(|(stream, _)| stream)).await {
            Ok((file, sockets, worker)) => {
                let lock = ServerLock::of(config, file, at_home);
                break Some(Turn::After(lock, sockets, worker));
            }
            Err(error) => tracing::warn!(%error, "could not take over a worker"),
        }
        tokio::time::sleep(CHECK_EVERY).await;
    };
    let _ = fs::remove_file(&path);
    Ok(turn)
}

/// Whether this user is root or acc's own.
fn is_trusted(uid: u32) -> bool {
    [0, rustix::process::geteuid().as_raw()].contains(&uid)
}

/// Receives what the connected worker sends, and the worker itself.
async fn take_over(
    came: io::Result<tokio::net::UnixStream>,
) -> io::Result<(File, Sockets, Worker)> {
    let stream = came?;
    let peer = stream.peer_cred()?;
    let pid = peer.pid().filter(|pid| is_trusted(peer.uid()) && *pid > 1);
    let pid = pid.ok_or(io::ErrorKind::PermissionDenied)?;
    let receive = stream.async_io(tokio::io::Interest::READABLE, || {
        fd_passing::receive(&stream)
    });
    let (word, files) = tokio::time::timeout(SENT_WITHIN, receive).await??;
    let mut files = files.into_iter();
    let lock = files.next().filter(|_| word == Word::Ready.byte());
    let lock = lock.ok_or(io::ErrorKind::InvalidData)?;
    let sockets = Sockets::of(files)?;
    let stream: UnixStream = stream.into_std()?;
    Ok((
        lock.into(),
        sockets,
        Worker::of(pid, Channel::of(stream.into())?),
    ))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener as StdListener;

    use super::*;
    use crate::config::env::Env;
    use crate::host::lockfile;

    #[tokio::test]
    async fn the_next_master_takes_over_what_a_worker_has() {
        let dir = tempfile::tempdir().unwrap();
        let (env, at) = (Env::bare(0, dir.path()), dir.path().display());
        let text = format!("home = \"{at}/home\"\nrun = \"{at}/run\"\n");
        let config = crate::config::parse(&text, None, &env).unwrap();
        std::fs::create_dir_all(&config.home).unwrap();
        std::fs::create_dir_all(&config.run).unwrap();
        std::fs::write(config.run.join("booted"), "background").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let sockets = Sockets {
            control: StdListener::bind(config.control_socket()).unwrap(),
            wake: StdListener::bind(config.wake_socket()).unwrap(),
            tcp: vec![tcp],
        };
        let held = lockfile::try_lock(&config.server_lock()).unwrap().unwrap();
        let inheritance = Inheritance::new(&sockets, held.into()).unwrap();
        drop(sockets);
        let (taken, (channel, master)) = tokio::join!(turn(&config), inheritance.claimed(&config));
        let Ok(Some(Turn::After(lock, sockets, worker))) = taken else {
            panic!("there was a worker");
        };
        drop(inheritance);
        assert_eq!(master.cast_unsigned(), std::process::id());
        assert_eq!(worker.pid, master);
        assert_eq!(sockets.tcp[0].local_addr().unwrap(), address);
        assert!(!config.master_socket().exists());
        assert!(
            lock::try_server(&config).unwrap().is_none(),
            "it was let go"
        );
        channel.say(Word::Upgrade);
        assert_eq!(worker.channel.hear().await, Some(Word::Upgrade));
        worker.channel.say(Word::Retire);
        assert_eq!(channel.hear().await, Some(Word::Retire));
        // A third waits for both.
        drop((worker, sockets, lock));
        assert!(matches!(turn(&config).await, Ok(Some(Turn::First(_)))));
    }
}
