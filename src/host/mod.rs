//! This host: clocks, files, processes, programs and sockets, for all layers above. It contains no
//! policy of acc.

pub mod append;
pub mod census;
pub mod cgroup;
mod cgroup_mounts;
pub mod cleaners;
pub mod clock;
pub mod coalesce;
pub mod command;
pub mod command_line;
pub mod error_chain;
pub mod failpoint;
pub mod fd_passing;
pub mod file_work;
pub mod fs;
pub mod holding;
pub mod io_threads;
pub mod limits;
pub mod listen;
pub mod listening;
pub mod lockfile;
pub mod net;
pub mod process;
pub mod reclaim;
pub mod removal;
pub mod rotate;
pub mod short_sleep;
pub mod sock_diag;
pub mod spawn;
pub mod spool;
pub mod stat;
pub mod stopped;
pub mod taken_away;
pub mod unix_connect;
pub mod untrusted;
pub mod users;
