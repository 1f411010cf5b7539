//! The terms of acc and the decisions made with them: names, instances, models, the lifecycle, the
//! idle rule.
//!
//! Pure: no I/O, no clock, no environment, no async, no serialisation. Everything that a decision
//! needs is an argument.

pub mod account;
pub mod admission;
pub mod edge_headers;
pub mod event_kind;
pub mod gate;
pub mod idle;
pub mod instance;
pub mod lifecycle;
pub mod model;
pub mod name;
pub mod operation;
pub mod port;
pub mod rule;
pub mod time;
