//! What acc does by itself, again and again: put idle instances to sleep, notice what has died,
//! start what is pinned, keep acc's own services up, and keep logs and the run folder in order.
//!
//! It decides nothing about a single instance: `domain::idle` and the state machine do.

pub(in crate::service) mod housekeeping;
mod idle;
pub mod listeners;
pub mod log_bound;
pub(in crate::service) mod own_services;
pub(in crate::service) mod pinned;
mod reconcile;
mod run;
pub(in crate::service) mod run_folder;
pub mod run_watch;

pub use run::*;
