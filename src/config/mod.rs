//! The checked settings of one acc installation, with every default filled in.
//!
//! `load` reads the file and the environment and reports every fault at once. It never creates or
//! changes anything.
//! changes anything.

pub mod accounts;
mod booted;
pub mod env;
pub(crate) mod fault;
pub mod in_force;
mod load;
mod paths;
mod public;
pub(crate) mod reader;
pub mod regular;
pub mod reload;
mod rules;
mod scheme;
mod sections;
mod settings;
mod show;
pub mod suggest;
#[cfg(test)]
mod tests;
pub mod trust;
pub(crate) mod value;

pub use booted::Booted;
pub use env::Env;
pub use fault::{ConfigErrors, ConfigFault};
pub use load::{EDGE_ACCOUNT, RUN_MAX, load, named, parse};
pub use paths::run_of_faulty;
pub use scheme::Scheme;
pub use settings::{
    Config, EdgeConfig, EdgeKind, EventsConfig, IdleConfig, LimitsConfig, LogConfig, LogFormat,
    StopConfig, SupervisorKind, WakeConfig,
};
