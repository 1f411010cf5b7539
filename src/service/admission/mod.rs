//! Whether a request may pass to an instance, and how it waits for one that sleeps.
//!
//! It knows no HTTP and never starts a process itself: it asks the instance's task for a start.

pub mod clients;
mod ticket;
pub(in crate::service) mod wait;

pub use ticket::*;
