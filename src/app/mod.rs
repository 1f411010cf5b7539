//! Wiring: makes drivers from settings, services from drivers, tasks from services. The only folder
//! that names concrete drivers.

mod binary;
mod boot;
mod dispatch;
mod drivers;
mod edge;
mod halt;
mod installation;
mod launch;
mod lock;
mod master;
mod reload;
mod serve;
mod signals;
mod verbs;
mod work;
mod world;

pub use boot::boot;
pub use dispatch::dispatch;
pub use halt::halt;
pub use launch::{launch, let_signals_in};
pub use master::run_master;
pub use work::run_worker;
