//! When is an instance ready: it answered on its own socket. Told by inotify where possible, else asked in growing steps.
//!
//! It never gives up by itself: the machine's timer does, and drops the future.

pub mod fake;
mod health;
mod socket;
#[cfg(test)]
mod tests;
mod wait;
mod watch;

use async_trait::async_trait;

pub use self::fake::FakeProbe;
pub use self::socket::{Owner, SocketProbe};
use crate::domain::instance::Listen;

/// What to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Where it will listen.
    pub listen: Listen,
    /// Path that must answer 2xx or 3xx; `None`: an accepted connection is enough.
    pub health: Option<String>,
    /// `Host` header of the health request.
    pub host: String,
}

/// Waits for readiness.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Removes what a former run left behind (a stale socket file) and makes the folder of the socket. An error names what
    /// is in the way: a port taken by another program, a folder that cannot be written. Called before the start.
    async fn clear(&self, question: &Question) -> Result<(), String>;

    /// Resolves once it answers.
    async fn ready(&self, question: &Question);

    /// Looks once, for people: what it is waiting for just now, e.g. "a connection on `/run/…/app.sock`".
    fn describe(&self, question: &Question) -> String;
}
