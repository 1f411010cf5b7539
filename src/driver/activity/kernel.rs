//! Reads the kernel's socket table and the access logs.
//!
//! It uses netlink, and `/proc` where netlink is refused. If neither works it returns an error.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::count::{Counter, FileId};
use super::gone::Gone;
use super::{Activity, ActivityError, LogMark, Seen, Target, netlink, procfs};
use crate::domain::instance::Listen;
use crate::host::clock::{Clock, SystemClock};

/// Reads the kernel's socket table.
#[derive(Debug, Clone, Default)]
pub struct KernelActivity {
    gone: Arc<Gone>,
}

#[async_trait]
impl Activity for KernelActivity {
    async fn sample(&self, targets: &[Target]) -> Result<Vec<Seen>, ActivityError> {
        let targets = targets.to_vec();
        let gone = self.gone.clone();
        let sampled = tokio::task::spawn_blocking(move || sample(&targets, &gone)).await;
        sampled.map_err(|e| ActivityError {
            what: "the answer was cut short".into(),
            source: io::Error::other(e),
        })?
    }
}

fn sample(targets: &[Target], gone: &Gone) -> Result<Vec<Seen>, ActivityError> {
    // Connections first: a request that ends between the two reads has then written its log line.
    let listens: Vec<&Listen> = targets.iter().map(|t| &t.listen).collect();
    let counts = count(&listens, gone)?;
    Ok(targets
        .iter()
        .zip(counts)
        .map(|(target, connections)| Seen {
            connections,
            mark: mark(target.log.as_deref()),
        })
        .collect())
}

/// Counts, and counts again if a target had no connection. A connection that is accepted while the
/// table is read moves from the listener's queue to a part that may have been read already, and
/// would be missed. The second read finds it.
fn count(listens: &[&Listen], gone: &Gone) -> Result<Vec<u32>, ActivityError> {
    let first = count_once(listens, gone)?;
    if first.iter().all(|n| *n > 0) {
        return Ok(first);
    }
    let second = count_once(listens, gone)?;
    Ok(first
        .into_iter()
        .zip(second)
        .map(|(a, b)| a.max(b))
        .collect())
}

fn count_once(listens: &[&Listen], gone: &Gone) -> Result<Vec<u32>, ActivityError> {
    if listens.is_empty() {
        return Ok(Vec::new());
    }
    let new = || Counter::new(listens.iter().copied(), file_of);
    let mut counter = new();
    let now = SystemClock.now();
    let Err(refused) = netlink::count(&mut counter) else {
        return Ok(counter.finish(|id| gone.is_use(id, now)));
    };
    let mut counter = new();
    match procfs::count(&mut counter) {
        Ok(()) => Ok(counter.finish(|id| gone.is_use(id, now))),
        Err(source) => Err(ActivityError {
            what: format!("netlink: {refused}, then /proc/net"),
            source,
        }),
    }
}

/// How many connections wait at this unix socket to be accepted. `None`: no process listens there,
/// or the kernel does not report it. Blocks briefly.
#[must_use]
pub fn unaccepted(path: &Path) -> Option<u32> {
    netlink::listener(path, file_of(path))
        .ok()
        .flatten()
        .map(|listener| listener.queue)
}

/// The number of the unix socket that listens at this path; `None`: there is none. Blocks briefly.
///
/// # Errors
/// The kernel cannot be asked.
pub fn unix_listener(path: &Path) -> io::Result<Option<u64>> {
    Ok(netlink::listener(path, file_of(path))?.map(|listener| listener.inode.into()))
}

/// The numbers of the unix sockets that listen at each of these paths, from one read. Empty: no
/// process listens there, or the table has it under another name. Blocks briefly.
///
/// # Errors
/// The kernel cannot be asked.
pub fn unix_listeners(paths: &[&Path]) -> io::Result<Vec<Vec<u64>>> {
    if paths.is_empty() {
        Ok(Vec::new())
    } else {
        netlink::listeners(paths, file_of)
    }
}

/// The file of a socket as the kernel's table names it. `None`: it cannot be read, so the path is
/// compared instead.
fn file_of(path: &Path) -> Option<FileId> {
    let meta = fs::metadata(path).ok()?;
    let (major, minor) = (libc::major(meta.dev()), libc::minor(meta.dev()));
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the table has only the low half"
    )]
    let inode = meta.ino() as u32;
    Some(FileId {
        device: (major << 20) | minor,
        inode,
    })
}

/// The state of the log. A missing file is a valid answer. A file that cannot be read counts as
/// written just now: that keeps its own instance awake and no other.
fn mark(log: Option<&Path>) -> LogMark {
    let Some(path) = log else {
        return LogMark::default();
    };
    match fs::symlink_metadata(path) {
        Ok(meta) => LogMark {
            inode: meta.ino(),
            size: meta.len(),
            modified: meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000,
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => LogMark::default(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read an access log; its instance counts as in use");
            LogMark {
                inode: 0,
                size: 0,
                modified: SystemClock.wall().0,
            }
        }
    }
}

#[cfg(test)]
pub(super) mod by {
    //! Each source by itself, for the tests.
    use super::*;

    /// By netlink.
    pub(in crate::driver::activity) fn netlink(listen: &Listen) -> u32 {
        let mut counter = Counter::new([listen], file_of);
        netlink::count(&mut counter).unwrap();
        counter.finish(|_| true)[0]
    }

    /// By `/proc`.
    pub(in crate::driver::activity) fn procfs(listen: &Listen) -> u32 {
        let mut counter = Counter::new([listen], file_of);
        procfs::count(&mut counter).unwrap();
        counter.finish(|_| true)[0]
    }
}
