//! The master of `acc server`: a small process whose pid never changes, which holds the listening
//! sockets and keeps one worker (`app::serve`) running behind them.
//!
//! A worker that dies is replaced at once; new connections meanwhile wait in the kernel's backlog.
//! An upgrade starts a second worker from the new binary. Once that is prepared, the first one
//! releases the owner's lock and only finishes its current requests, however long that takes. Once
//! the second one serves, the master replaces itself with the new binary, with the same pid and the
//! same sockets. If the new binary does not start, nothing changes.
//!
//! When the master is killed, the worker continues to serve, and the next master takes it over
//! (`orphan`).
//!
//! It never reads a request, and never touches an instance or the database.

mod channel;
mod orphan;
mod reexec;
mod run;
mod signals;
mod sockets;
mod state;
mod worker;

pub(super) use channel::{Channel, MasterChannel, Word, current};
pub(super) use orphan::Inheritance;
pub use run::run_master;
pub(super) use sockets::Sockets;
