//! Which process owns the socket that listens at an instance's address? Only a socket that the
//! instance's own processes hold is accepted.
//!
//! Any user can listen on a port of this host, and the first to do so gets the connections. So the
//! listener is checked before anything is sent to it: once thoroughly ([`Listeners::examine`]), and
//! from then on by its number, which the kernel never uses for another socket. As long as that
//! socket listens, no other can at this address, except one of the same user if the application set
//! `SO_REUSEPORT` itself. A monitor run finds that one ([`Listeners::strangers`]).
//!
//! This module ends no process.

mod owner;
mod unix;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::domain::account::Account;
use crate::domain::instance::Process;
use crate::driver::activity::unix_listener;
use crate::host::holding::{self, Search};
use crate::host::listening::{self, Listening, SocketIdentity};
use crate::host::{net, unix_connect};
pub use owner::ListenerOwner;

/// How much is shown of the command line of a program that listens in an instance's place.
const COMMAND_SHOWN: usize = 100;

/// The listeners that were found to be their instance's own.
#[derive(Debug, Clone, Default)]
pub struct Listeners {
    known: Arc<RwLock<HashMap<SocketAddr, KnownListener>>>,
    on_paths: Arc<unix::PathListeners>,
}

#[derive(Debug, Clone)]
struct KnownListener {
    process: Process,
    sockets: Vec<SocketIdentity>,
}

impl KnownListener {
    /// `/proc` has no cookie; then the inode number must be enough.
    fn has(&self, id: SocketIdentity) -> bool {
        self.sockets.iter().any(|s| {
            s.inode == id.inode && (s.cookie == id.cookie || s.cookie == 0 || id.cookie == 0)
        })
    }
}

impl Listeners {
    /// Whether the current listener was examined before and belongs to this process. One request to
    /// the kernel.
    #[must_use]
    pub fn is_known(&self, address: SocketAddr, process: Process) -> bool {
        let Ok(Some(now)) = listening::reached(address) else {
            return false;
        };
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&address)
            .is_some_and(|known| known.process == process && known.has(now.id))
    }

    /// Checks which processes hold the sockets that may answer at this address, and remembers them
    /// if all belong to this process, which runs under this account. Reads the open files of the instance's processes: it usually
    /// blocks for a fraction of a millisecond.
    ///
    /// # Errors
    /// The owner could not be determined.
    pub fn examine_now(
        &self,
        address: SocketAddr,
        process: Process,
        account: &Account,
    ) -> io::Result<ListenerOwner> {
        let mut there = listening::at_port(address.port())?;
        there.retain(|l| l.may_answer_at(address));
        self.judge(address, process, account, &there)
    }

    /// The same, on a thread that serves no requests.
    ///
    /// # Errors
    /// As for [`Self::examine_now`].
    pub async fn examine(
        &self,
        address: SocketAddr,
        process: Process,
        account: &Account,
    ) -> io::Result<ListenerOwner> {
        let (this, account) = (self.clone(), account.clone());
        tokio::task::spawn_blocking(move || this.examine_now(address, process, &account))
            .await
            .map_err(io::Error::other)?
    }

    /// Returns a [`ListenerOwner`] for each of these instances, in their order. Reads the kernel's
    /// table once for all, and examines those whose sockets have changed. It blocks.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn strangers(
        &self,
        instances: &[(SocketAddr, Process, Account)],
    ) -> io::Result<Vec<io::Result<ListenerOwner>>> {
        let mut by_port: HashMap<u16, Vec<Listening>> = HashMap::new();
        if !instances.is_empty() {
            listening::at_port(0)?
                .into_iter()
                .for_each(|l| by_port.entry(l.address.port()).or_default().push(l));
        }
        let owner = |(address, process, account): &(SocketAddr, Process, Account)| {
            let all = by_port.get(&address.port()).map_or(&[][..], Vec::as_slice);
            let there: Vec<Listening> = all
                .iter()
                .filter(|l| l.may_answer_at(*address))
                .copied()
                .collect();
            if self.are_known(*address, *process, &there) {
                return Ok(ListenerOwner::Own);
            }
            match self.judge(*address, *process, account, &there)? {
                // It may have ended since the table was read; then no process is found to hold it.
                ListenerOwner::Stranger(_) => self.examine_now(*address, *process, account),
                found => Ok(found),
            }
        };
        Ok(instances.iter().map(owner).collect())
    }

    fn are_known(&self, address: SocketAddr, process: Process, there: &[Listening]) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let all_in = |known: &KnownListener| {
            known.process == process && there.iter().all(|l| known.has(l.id))
        };
        !there.is_empty() && known.get(&address).is_some_and(all_in)
    }

    fn judge(
        &self,
        address: SocketAddr,
        process: Process,
        account: &Account,
        there: &[Listening],
    ) -> io::Result<ListenerOwner> {
        if there.is_empty() {
            return Ok(ListenerOwner::None);
        }
        let found = owner_among(process, account, there)?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match found {
            ListenerOwner::Own => drop(known.insert(
                address,
                KnownListener {
                    process,
                    sockets: there.iter().map(|l| l.id).collect(),
                },
            )),
            ListenerOwner::None | ListenerOwner::Stranger(_) => drop(known.remove(&address)),
        }
        Ok(found)
    }

    /// Returns a [`ListenerOwner`] for each of these instances, in their order. They must be all
    /// awake instances on unix sockets. It blocks.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn on_paths(
        &self,
        instances: &[(PathBuf, Process)],
    ) -> io::Result<Vec<io::Result<ListenerOwner>>> {
        self.on_paths.examine(instances)
    }

    /// Whether the process of this instance listens on the unix socket that this connection was
    /// made to, by way of `path`. `thorough` also finds a socket on which a process called `listen`
    /// that has ended since, which takes longer.
    #[must_use]
    pub fn is_own_unix(
        &self,
        stream: &UnixStream,
        path: &Path,
        process: Option<Process>,
        account: &Account,
        thorough: bool,
    ) -> bool {
        if unix_connect::check(stream, account.uid()).is_err() {
            return false;
        }
        let Some(process) = process else { return true };
        let listener = getsockopt(stream, PeerCredentials).map(|who| who.pid());
        if listener.is_ok_and(|pid| pid == process.pid || holding::belongs(pid, process)) {
            return true;
        }
        let Some(inode) = Some(path)
            .filter(|_| thorough)
            .and_then(|path| unix_listener(path).ok().flatten())
        else {
            return false;
        };
        holding::search(process, [inode]).is_ok_and(|found| found.left.is_empty())
    }
}

fn owner_among(
    process: Process,
    account: &Account,
    there: &[Listening],
) -> io::Result<ListenerOwner> {
    // Instances that start as root may switch to any user: then only the open files of their
    // processes count.
    let own = nix::unistd::geteuid();
    let expected = account
        .uid()
        .or_else(|| (!own.is_root()).then_some(own.as_raw()));
    if let Some(other) = there
        .iter()
        .find(|l| expected.is_some_and(|user| user != l.uid))
    {
        return Ok(ListenerOwner::Stranger(described(other)));
    }
    let Search { left, hidden } = holding::search(process, there.iter().map(|l| l.id.inode))?;
    let mut others = there.iter().filter(|l| left.contains(&l.id.inode));
    let Some(other) = others.next() else {
        return Ok(ListenerOwner::Own);
    };
    // acc may be unable to read the open files of an instance's process, because the process
    // prevents it or acc lacks permission. Then the user decides, unless another process is
    // found to hold the socket.
    let may_be_own =
        |l: &Listening| hidden.contains(&l.uid) && net::holders(&[l.id.inode]).is_empty();
    if may_be_own(other) && others.all(may_be_own) {
        Ok(ListenerOwner::Own)
    } else {
        Ok(ListenerOwner::Stranger(described(other)))
    }
}

/// Describes it for people: the program's name is shown without control characters.
fn described(listening: &Listening) -> String {
    let holders = net::holders(&[listening.id.inode]);
    let who = holders
        .first()
        .map(|l| format!(": pid {}, `{}`", l.pid, shown(&l.command)))
        .unwrap_or_default();
    format!(
        "a program of user {} that is not part of the instance listens on `{}`{who}",
        listening.uid, listening.address
    )
}

/// The command line of the other program: shortened, and without control characters.
#[must_use]
pub fn shown(command: &str) -> String {
    let escaped = |c: char| {
        if matches!(c, '"' | '\'') {
            c.to_string()
        } else {
            c.escape_debug().to_string()
        }
    };
    command.chars().take(COMMAND_SHOWN).map(escaped).collect()
}

#[cfg(test)]
mod tests;
