//! One file per command: what was typed becomes a request, what comes back is printed. No
//! decisions.

pub(super) mod boot;
pub(super) mod completions;
pub(super) mod config;
pub(super) mod create;
pub(super) mod demo_app;
pub(super) mod desired;
pub(super) mod destroy;
pub(super) mod doctor;
pub(super) mod events;
mod for_each;
pub(super) mod halt;
pub(super) mod info;
pub(super) mod list;
pub(super) mod logs;
pub(super) mod man;
pub(super) mod models;
pub(super) mod monitor;
pub(super) mod names;
pub(super) mod prove;
pub(super) mod purge;
pub(super) mod reload;
pub(super) mod reset;
pub(super) mod restart;
pub(super) mod server;
pub(super) mod start;
pub(super) mod stop;
