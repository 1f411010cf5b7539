//! Whether an instance is in use, seen from outside: connections counted by the kernel, and the
//! last line of the access log.
//!
//! It changes nothing. It never reports "no use" when it could not read.
//!
//! `kernel` reads the kernel's table (`netlink`, else `procfs`) and passes the sockets to `count`,
//! which decides what counts as use.

mod count;
pub mod fake;
mod gone;
mod kernel;
mod netlink;
mod procfs;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use async_trait::async_trait;

pub use self::count::{TcpSocket, UnixSocket};
pub use self::fake::FakeActivity;
pub use self::kernel::{KernelActivity, unaccepted, unix_listener, unix_listeners};
pub use self::procfs::{tcp_socket, unix_socket};
use crate::domain::instance::Listen;

/// What to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where the instance listens.
    pub listen: Listen,
    /// The file that grows with every request that counts as use; `None`: no edge writes one.
    pub log: Option<PathBuf>,
}

/// A fingerprint of the access log. If it differs from an earlier one, there was use in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct LogMark {
    /// Inode (0: no file).
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Modification time, wall clock, ms since 1970.
    pub modified: i64,
}

/// The result of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Established connections plus those waiting in the backlog, without those that the peer
    /// closed seconds ago and the application has not.
    pub connections: u32,
    /// The access log.
    pub mark: LogMark,
}

/// The check failed.
#[derive(Debug, thiserror::Error)]
#[error("could not count connections: {what}")]
pub struct ActivityError {
    /// What failed.
    pub what: String,
    /// The reason.
    #[source]
    pub source: std::io::Error,
}

/// Samples many instances at once (one dump of the kernel's socket table, for any number of
/// targets).
#[async_trait]
pub trait Activity: Send + Sync {
    /// Returns one [`Seen`] per target, in their order.
    async fn sample(&self, targets: &[Target]) -> Result<Vec<Seen>, ActivityError>;
}
