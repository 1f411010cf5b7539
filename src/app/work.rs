//! The start of a worker: takes the sockets, the lock and the channel that its master has passed
//! on, and serves.
//!
//! It does nothing if its parent is not the master.

use super::master::{Channel, Sockets};
use super::serve::{Handed, serve};
use crate::config::Config;
use crate::host::fd_passing;
use crate::interface::cli::{Reload, WorkerArgs};
use crate::service::error::ServiceError;

/// Serves, as a child of the master `master`, with the open files of these numbers.
///
/// # Errors
/// Those of all steps; also if this process is not a child of the master, or got other files.
pub async fn run_worker(
    config: Config,
    left: &WorkerArgs,
    reload: Reload,
) -> Result<(), ServiceError> {
    let wrong = |e: std::io::Error| {
        ServiceError::because(
            "could not take over from the master",
            &e,
            "run `acc server`",
        )
    };
    let sockets = Sockets::taken(&left.sockets).map_err(wrong)?;
    let channel = fd_passing::take(left.channel)
        .and_then(Channel::of)
        .map_err(wrong)?;
    let lock = fd_passing::take(left.lock).map_err(wrong)?;
    // Until it serves, it must not outlive its master: no process would watch it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|e| wrong(e.into()))?;
    if std::os::unix::process::parent_id() != left.master {
        return Err(wrong(std::io::Error::other("it has ended")));
    }
    serve(
        config,
        Handed {
            sockets,
            channel,
            lock,
            master: left.master.cast_signed(),
        },
        reload,
    )
    .await
}
