//! Who listens on the unix sockets of instances that are awake: its file may have been removed, or another socket put in its place.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::{Found, Listeners};
use crate::domain::instance::Process;
use crate::driver::activity::unix_listeners;
use crate::host::holding::{self, Search};
use crate::host::peer;

/// By path: whose socket was last seen there, and its number.
pub(super) type Seen = HashMap<PathBuf, (Process, u64)>;

impl Listeners {
    /// [`Found`] for each of these instances, which are all that are awake, in their order: one look at the kernel's table for all,
    /// and a closer one at those whose sockets have changed. It blocks.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn on_paths(&self, instances: &[(PathBuf, Process)]) -> io::Result<Vec<io::Result<Found>>> {
        let paths: Vec<&Path> = instances.iter().map(|(path, _)| path.as_path()).collect();
        let there = unix_listeners(&paths)?;
        let before = self.on_paths.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut now, mut all) = (Seen::new(), Vec::new());
        for ((path, process), sockets) in instances.iter().zip(there) {
            let same = before.get(path).filter(|(whose, number)| whose == process && sockets.contains(number) && path.exists());
            all.push(match same {
                Some(_) => Ok(Found::Own),
                None => whose(path, *process, &sockets),
            });
            if let (Some(Ok(Found::Own)), Some(number)) = (all.last(), same.map(|(_, number)| *number).or(only(&sockets))) {
                now.insert(path.clone(), (*process, number));
            }
        }
        *self.on_paths.write().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(all)
    }
}

fn only(sockets: &[u64]) -> Option<u64> {
    if let [one] = sockets { Some(*one) } else { None }
}

fn whose(path: &Path, process: Process, sockets: &[u64]) -> io::Result<Found> {
    let gone = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(Found::Nobody),
        _ => Err(e),
    };
    if let Err(e) = fs::metadata(path) {
        return gone(e);
    }
    if sockets.is_empty() {
        // The table may name it otherwise: bound by a relative path, on a file system of layers.
        return peer::connect(path).map_or_else(gone, |_| Ok(Found::Own));
    }
    let Search { left, hidden } = holding::search(process, sockets.iter().copied())?;
    // One that is its own will do: the table may show a former one of the same path, too.
    let none_is_own = left.len() == sockets.len();
    Ok(if none_is_own && hidden.is_empty() {
        Found::Stranger(format!("a program that is not part of the instance listens on `{}`", path.display()))
    } else {
        Found::Own
    })
}
