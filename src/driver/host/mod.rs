//! This host: its clocks, files, processes and programs. The only folder that uses `std::fs`, clocks and `Command` directly.

pub mod accounts;
pub mod append;
pub mod clock;
pub mod command;
pub mod fault;
pub mod file_work;
pub mod fs;
pub mod gather;
pub mod handover;
pub mod lanes;
pub mod limits;
pub mod listen;
pub mod lockfile;
pub mod memory;
pub mod net;
pub mod pause;
pub mod peer;
pub mod process;
pub mod removal;
pub mod rotate;
pub mod sent;
pub mod spawn;
pub mod stat;
pub mod stopped;
pub mod untrusted;
pub mod users;
