//! What acc can do: one verb a file, and behind them the actor, the registry and the journal.

pub mod door;
pub mod error;
pub mod outcome;
pub mod request;
pub mod view;
