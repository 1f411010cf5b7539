//! Which process listens on the unix socket of each awake instance. The file may have been removed,
//! or another socket put in its place.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use super::owner::ListenerOwner;
use crate::domain::instance::Process;
use crate::driver::activity::unix_listeners;
use crate::host::holding::{self, Search};
use crate::host::unix_connect;

/// By path: the process whose socket was last seen there, and the socket's number.
type SeenSockets = HashMap<PathBuf, (Process, u64)>;

/// The sockets that were found to be their instance's own.
#[derive(Debug, Default)]
pub(super) struct PathListeners(RwLock<SeenSockets>);

impl PathListeners {
    /// Returns a [`ListenerOwner`] for each of these instances, in their order. They must be all
    /// that are awake. Reads the kernel's table once for all, and examines those whose sockets have
    /// changed. It blocks.
    pub(super) fn examine(
        &self,
        instances: &[(PathBuf, Process)],
    ) -> io::Result<Vec<io::Result<ListenerOwner>>> {
        let paths: Vec<&Path> = instances.iter().map(|(path, _)| path.as_path()).collect();
        let there = unix_listeners(&paths)?;
        let before = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (mut now, mut all) = (SeenSockets::new(), Vec::new());
        for ((path, process), sockets) in instances.iter().zip(there) {
            let same = before.get(path).filter(|(owner, number)| {
                owner == process && sockets.contains(number) && path.exists()
            });
            all.push(match same {
                Some(_) => Ok(ListenerOwner::Own),
                None => owner_at(path, *process, &sockets),
            });
            if let (Some(Ok(ListenerOwner::Own)), Some(number)) = (
                all.last(),
                same.map(|(_, number)| *number).or(only(&sockets)),
            ) {
                now.insert(path.clone(), (*process, number));
            }
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(all)
    }
}

fn only(sockets: &[u64]) -> Option<u64> {
    if let [one] = sockets {
        Some(*one)
    } else {
        None
    }
}

fn owner_at(path: &Path, process: Process, sockets: &[u64]) -> io::Result<ListenerOwner> {
    let gone = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(ListenerOwner::None),
        _ => Err(e),
    };
    if let Err(e) = fs::metadata(path) {
        return gone(e);
    }
    if sockets.is_empty() {
        // The table may have it under another name: bound by a relative path, or on an overlay file
        // system.
        return unix_connect::connect(path).map_or_else(gone, |_| Ok(ListenerOwner::Own));
    }
    let Search { left, hidden } = holding::search(process, sockets.iter().copied())?;
    // One socket of its own is enough: the table may also show an earlier one of the same path.
    let none_is_own = left.len() == sockets.len();
    Ok(if none_is_own && hidden.is_empty() {
        ListenerOwner::Stranger(format!(
            "a program that is not part of the instance listens on `{}`",
            path.display()
        ))
    } else {
        ListenerOwner::Own
    })
}
