//! What makes a process an instance: session, signals, limits, user, rights, socket and log, in the
//! process itself and in one place for both supervisors. acc writes a [`LaunchRequest`]; the
//! launcher (`main.rs`, or acc's own binary where that cannot be executed) reads it and becomes the
//! program by [`launch()`].
//!
//! Everything that needs memory is made before the first step: a step makes system calls and
//! nothing else. It starts no process, asks none, and keeps nothing.

mod confine;
mod launch;
mod process;
mod request;

pub use launch::{CANNOT_START, launch};
pub use request::{LaunchRequest, LaunchTextFault, UserIds};
