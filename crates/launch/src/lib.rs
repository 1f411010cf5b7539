//! Turns a process into an instance: session, signals, limits, user, rights, socket and log, within
//! the process itself and in one place for both supervisors. acc writes a [`LaunchRequest`]. The
//! launcher (`main.rs`, or acc's own binary where that cannot be executed) reads it and becomes the
//! program by [`launch()`].
//!
//! Everything that needs memory is made before the first step: a step only makes system calls. This
//! crate starts no process and keeps no state.

mod confine;
mod launch;
mod process;
mod request;

pub use launch::{CANNOT_START, launch};
pub use request::{LaunchRequest, LaunchTextFault, UserIds};
