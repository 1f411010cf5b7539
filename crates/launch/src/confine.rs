//! Confines an instance: resource limits, priority for the OOM killer, no capability, and no way to
//! gain more rights.
//!
//! Each function decides only whether a refusal matters: a process that may not raise a limit keeps
//! the one it has.

use std::ffi::CStr;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::process::write;

/// The kernel's value for "no limit".
const UNLIMITED: u64 = u64::MAX;

/// Sets a limit. A process that may not raise it gets the highest it may set.
pub(crate) fn limit(resource: Resource, soft: u64, hard: u64) -> Result<()> {
    let bound = |limit: u64| (limit != UNLIMITED).then_some(limit);
    let set = |soft, hard| {
        let limit = Rlimit {
            current: bound(soft),
            maximum: bound(hard),
        };
        setrlimit(resource, limit)
    };
    match set(soft, hard) {
        Err(Errno::PERM) => {
            let hard = hard.min(getrlimit(resource).maximum.unwrap_or(UNLIMITED));
            set(soft.min(hard), hard)
        }
        done => done,
    }
}

/// Gives it the same CPU share as any other process, and sets how early it is killed when memory
/// runs out (the highest number first). Keeps the inherited values where they may not be changed.
pub(crate) fn settle(oom_score_adj: &CStr) {
    let _ = setpriority_process(None, 0);
    let path = c"/proc/self/oom_score_adj";
    if let Ok(file) = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = write(&file, oom_score_adj.to_bytes());
    }
}

/// Prevents every program that it executes from getting a capability. Only root can do this; other
/// users have none to pass on. The kernel refuses the first capability number that it does not
/// know.
pub(crate) fn drop_bounding_set() {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if remove_capability_from_bounding_set(capability).is_err() {
            break;
        }
    }
}

/// Drops every capability, and prevents programs with more rights (setuid, file capabilities) from
/// granting any.
pub(crate) fn drop_rights() -> Result<()> {
    // A kernel before 4.3 has no such set.
    let _ = clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    set_capabilities(None, sets)?;
    set_no_new_privs(true)
}
