//! Whether awake instances can be reached where they should listen. Reads each of the kernel's
//! tables once for all of them.
//!
//! It reports and stops no process.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::ProbeTarget;
use crate::domain::account::Account;
use crate::domain::instance::{Listen, Process};
use crate::driver::listener::{ListenerOwner, Listeners};
use crate::host::short_sleep::short_sleep;

/// If a running instance does not listen for this long, it does not intend to listen again.
const SILENT: Duration = Duration::from_secs(1);

/// What is wrong with each of these, in their order; `None`: nothing is, or it could not be
/// checked.
pub(super) async fn misplaced(
    listeners: &Listeners,
    awake: &[(ProbeTarget, Process)],
) -> Vec<Option<String>> {
    let mut found = sample(listeners, awake).await;
    if found.contains(&Some(ListenerOwner::None)) {
        // It may be about to bind again.
        short_sleep(SILENT).await;
        found = sample(listeners, awake).await;
    }
    let why = |((target, _), found): (&(ProbeTarget, Process), Option<ListenerOwner>)| match (
        found?,
        &target.listen,
    ) {
        (ListenerOwner::Own, _) => None,
        (ListenerOwner::Stranger(who), _) => Some(who),
        (ListenerOwner::None, Listen::Tcp(address)) => {
            Some(format!("it no longer listens on `{address}`"))
        }
        (ListenerOwner::None, Listen::Unix(path)) => Some(format!(
            "it can no longer be reached on `{}`",
            path.display()
        )),
    };
    awake.iter().zip(found).map(why).collect()
}

/// The owner of each listener; `None`: could not be determined.
async fn sample(
    listeners: &Listeners,
    awake: &[(ProbeTarget, Process)],
) -> Vec<Option<ListenerOwner>> {
    let mut tcp: Vec<(SocketAddr, Process, Account)> = Vec::new();
    let mut unix: Vec<(PathBuf, Process)> = Vec::new();
    for (target, process) in awake {
        match &target.listen {
            Listen::Tcp(address) => tcp.push((*address, *process, target.account.clone())),
            Listen::Unix(path) => unix.push((path.clone(), *process)),
        }
    }
    let listeners = listeners.clone();
    let sampled = tokio::task::spawn_blocking(move || {
        let (of_tcp, of_unix) = (tcp.len(), unix.len());
        (
            known(listeners.strangers(&tcp), of_tcp),
            known(listeners.on_paths(&unix), of_unix),
        )
    });
    let Ok((tcp, unix)) = sampled.await else {
        return vec![None; awake.len()];
    };
    let (mut tcp, mut unix) = (tcp.into_iter(), unix.into_iter());
    let next = |(target, _): &(ProbeTarget, Process)| {
        if matches!(target.listen, Listen::Tcp(_)) {
            tcp.next()
        } else {
            unix.next()
        }
        .flatten()
    };
    awake.iter().map(next).collect()
}

fn known(
    sampled: io::Result<Vec<io::Result<ListenerOwner>>>,
    count: usize,
) -> Vec<Option<ListenerOwner>> {
    match sampled {
        Ok(found) => found.into_iter().map(Result::ok).collect(),
        Err(error) => {
            tracing::warn!(%error, "could not check which processes hold the instances' listening sockets");
            vec![None; count]
        }
    }
}
