//! `acc server` as others see it: one small process whose pid never changes, which holds the
//! listening sockets and keeps one worker (`app::serve`) running behind them.
//!
//! A worker that dies is replaced at once; connections made meanwhile wait in the kernel's queue.
//! An upgrade is a second worker from the new binary: once it is prepared the first gives up the
//! say and only finishes what it carries, however long that takes; once the second serves, the
//! master becomes the new binary itself, with the same pid and the same sockets. A new binary that
//! does not come up changes nothing.
//!
//! When the master itself is killed, the worker goes on serving, and the next master, whoever starts
//! it, takes it over (`orphan`).
//!
//! It never reads a request, never touches an instance or the database.

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
