//! Receives an instance's report that it is ready: a datagram socket with the protocol of
//! `sd_notify(3)`.
//!
//! The socket is in a folder of acc's, and only the instance's user may write to it. That user may
//! have other instances, so the sender counts. The kernel reports its pid (`SCM_CREDENTIALS`,
//! unix(7)), and a message is accepted if its sender is alive and in the process group or session
//! of the started process. `systemd-notify` waits until its message was read.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt::PassCred,
};
use nix::unistd::{Gid, Uid, chown};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::domain::account::Account;
use crate::domain::instance::Process;
use crate::host::fs::{make_dir, remove_file};
use crate::host::{listen, process};

/// Longest message read, and longest status shown.
const MESSAGE: usize = 4096;
const STATUS: usize = 200;
/// How long to keep reading after an instance has reported that it is ready.
const LINGER: Duration = Duration::from_secs(1);

/// The instances that have yet to report, each with its last `STATUS=`, or an empty text.
#[derive(Debug, Clone, Default)]
pub(super) struct Statuses(Arc<Mutex<HashMap<PathBuf, String>>>);

impl Statuses {
    pub(super) fn get(&self, path: &Path) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(path)
            .cloned()
    }

    fn set(&self, path: &Path, status: Option<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match status {
            Some(status) => drop(all.insert(path.to_owned(), status)),
            None => drop(all.remove(path)),
        }
    }
}

/// Receives the reports of one instance, from before its start until it is ready. The file stays:
/// the next start replaces it.
#[derive(Debug)]
pub struct NotifySocket {
    socket: Arc<UnixDatagram>,
    path: PathBuf,
    statuses: Statuses,
}

/// The parts of a message that acc uses; the rest of the protocol is ignored.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NotifyMessage {
    /// `READY=1`.
    pub ready: bool,
    /// `STATUS=`: one line, bounded, without control characters.
    pub status: Option<String>,
}

impl NotifySocket {
    /// Opens the socket for an instance of this account.
    pub(super) fn open(path: &Path, account: &Account, statuses: Statuses) -> Result<Self, String> {
        let open = || -> io::Result<UnixDatagram> {
            if let Some(dir) = path.parent() {
                make_dir(dir, 0o711)?;
            }
            remove_file(path)?;
            let socket = listen::datagrams(path, 0o600)?;
            socket.set_nonblocking(true)?;
            let socket = UnixDatagram::from_std(socket)?;
            setsockopt(&socket, PassCred, &true)?;
            if let Some((uid, gid)) = account.ids() {
                chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            Ok(socket)
        };
        let socket =
            open().map_err(|e| format!("could not listen on `{}`: {e}", path.display()))?;
        statuses.set(path, Some(String::new()));
        Ok(Self {
            socket: Arc::new(socket),
            path: path.to_owned(),
            statuses,
        })
    }

    /// Resolves once the process, or one that it started, has reported that it is ready. Earlier
    /// reports count.
    pub(super) async fn ready(&self, process: Process) {
        loop {
            let received = self
                .socket
                .async_io(Interest::READABLE, || receive(&self.socket))
                .await;
            let (sender, message) = match received {
                Ok(received) => received,
                Err(error) => {
                    // No report can arrive any more; the time limit of the start ends the wait.
                    tracing::warn!(path = %self.path.display(), %error, "could not read its readiness message");
                    return std::future::pending().await;
                }
            };
            if !sender.is_some_and(|pid| is_of(pid, process)) {
                tracing::debug!(path = %self.path.display(), ?sender, "ignoring a readiness message of another process");
                continue;
            }
            if message.status.is_some() {
                self.statuses.set(&self.path, message.status);
            }
            if message.ready {
                self.statuses.set(&self.path, None);
                tokio::spawn(linger(Arc::clone(&self.socket)));
                return;
            }
        }
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        self.statuses.set(&self.path, None);
    }
}

/// Reads messages that follow at once: `systemd-notify` waits until its message is read, and fails
/// without a reader.
async fn linger(socket: Arc<UnixDatagram>) {
    let rest = async {
        while socket
            .async_io(Interest::READABLE, || receive(&socket))
            .await
            .is_ok()
        {}
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// Receives one message and the pid of its sender.
fn receive(socket: &UnixDatagram) -> io::Result<(Option<i32>, NotifyMessage)> {
    let mut bytes = [0; MESSAGE];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    // No room for descriptors: the kernel closes them, and the sender of `BARRIER=1` waits for
    // exactly that. Such a message then has no sender.
    let mut control = nix::cmsg_space!(UnixCredentials);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let got = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let sender = got
        .cmsgs()
        .ok()
        .into_iter()
        .flatten()
        .find_map(|c| match c {
            ControlMessageOwned::ScmCredentials(who) => Some(who.pid()),
            _ => None,
        });
    let length = got.bytes;
    Ok((sender, NotifyMessage::read(&bytes[..length])))
}

impl NotifyMessage {
    /// Parses a message; any bytes are valid.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Self {
        let mut message = Self::default();
        for line in String::from_utf8_lossy(bytes).lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => message.ready = true,
                Some(("STATUS", text)) => {
                    message.status = Some(
                        text.chars()
                            .filter(|c| !c.is_control())
                            .take(STATUS)
                            .collect(),
                    )
                }
                _ => {}
            }
        }
        message
    }
}

/// Whether this pid is the process, or in its group or session. `false` if it cannot be read.
fn is_of(pid: i32, process: Process) -> bool {
    let leader = matches!(process::is_same(process), Ok(true));
    let seen = process::stat(pid).ok().flatten();
    leader
        && seen.is_some_and(|s| {
            pid == process.pid || s.group == process.pid || s.session == process.pid
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn messages_are_read() {
        let said = |text: &str| NotifyMessage::read(text.as_bytes());
        assert!(said("READY=1").ready && said("STATUS=x\nREADY=1\n").ready);
        for no in [
            "",
            "READY=0",
            "READY=",
            "READY",
            "XREADY=1",
            "ready=1",
            "STOPPING=1",
        ] {
            assert!(!said(no).ready, "{no}");
        }
        assert_eq!(
            said("STATUS=loading=3\tof 4\nMAINPID=7").status.as_deref(),
            Some("loading=3of 4")
        );
        assert_eq!(
            said(&format!("STATUS={}", "é".repeat(500)))
                .status
                .unwrap()
                .chars()
                .count(),
            STATUS
        );
        assert_eq!(
            NotifyMessage::read(&[0xff, b'\n', 0]),
            NotifyMessage::default()
        );
    }

    fn me() -> Process {
        process::by_pid(std::process::id().cast_signed())
            .unwrap()
            .unwrap()
    }

    #[tokio::test]
    async fn accepts_messages_of_the_process_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify/a.sock");
        let statuses = Statuses::default();
        let notify_socket =
            NotifySocket::open(&path, &Account::SameAsAcc, statuses.clone()).unwrap();
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let other = process::by_pid(child.id().cast_signed()).unwrap().unwrap();
        let voice = UnixDatagram::unbound().unwrap();
        voice
            .send_to(b"STATUS=of a stranger\nREADY=1", &path)
            .await
            .unwrap();
        let ignored = tokio::time::timeout(Duration::from_millis(100), notify_socket.ready(other))
            .await
            .is_err();
        assert!(ignored && statuses.get(&path).as_deref() == Some(""));
        voice.send_to(b"STATUS=nearly", &path).await.unwrap();
        assert!(
            tokio::time::timeout(Duration::from_millis(100), notify_socket.ready(me()))
                .await
                .is_err()
        );
        assert_eq!(statuses.get(&path).as_deref(), Some("nearly"));
        // Before any process waits, too.
        voice.send_to(b"READY=1\n", &path).await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), notify_socket.ready(me()))
            .await
            .unwrap();
        // The next start has a new one in its place.
        let next = NotifySocket::open(&path, &Account::SameAsAcc, statuses.clone()).unwrap();
        drop(notify_socket);
        voice.send_to(b"READY=1", &path).await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), next.ready(me()))
            .await
            .unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn descriptors_that_come_along_are_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let notify_socket =
            NotifySocket::open(&path, &Account::SameAsAcc, Statuses::default()).unwrap();
        let (mut kept, given) = std::os::unix::net::UnixStream::pair().unwrap();
        let voice = std::os::unix::net::UnixDatagram::unbound().unwrap();
        voice.connect(&path).unwrap();
        let fds = [given.as_raw_fd()];
        let control = [nix::sys::socket::ControlMessage::ScmRights(&fds)];
        nix::sys::socket::sendmsg::<()>(
            voice.as_raw_fd(),
            &[io::IoSlice::new(b"BARRIER=1")],
            &control,
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        drop(given);
        voice.send(b"READY=1").unwrap();
        tokio::time::timeout(Duration::from_secs(10), notify_socket.ready(me()))
            .await
            .unwrap();
        kept.set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        assert_eq!(
            io::Read::read(&mut kept, &mut [0]).unwrap(),
            0,
            "it is still open somewhere"
        );
    }
}
