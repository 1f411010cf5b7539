//! One live instance: its task, its start and its stop, and the registry of those that have a task.
//!
//! It never parses a command and never decides what an instance should do: the state machine of
//! `domain::lifecycle` decides.

pub(in crate::service) mod actor;
pub(in crate::service) mod free_port;
pub(crate) mod handle;
pub(in crate::service) mod kinds;
pub(in crate::service) mod preflight;
pub(in crate::service) mod registry;
pub(in crate::service) mod revive;
pub(in crate::service) mod start;
pub(in crate::service) mod step;
pub(in crate::service) mod tickets;
pub(in crate::service) mod transition;
pub mod wake_timing;
