//! The verbs that change instances, one a file. Each takes the service's world and a name, and
//! answers with an outcome or an error.
//!
//! A verb never prints, never knows who asked, and acts on an instance only through its task.

pub(in crate::service) mod create;
pub(in crate::service) mod desired;
pub(in crate::service) mod destroy;
pub(in crate::service) mod failed_logs;
pub(in crate::service) mod purge;
pub(in crate::service) mod restart;
pub(in crate::service) mod start;
pub(in crate::service) mod stop;
pub(in crate::service) mod stop_all;
