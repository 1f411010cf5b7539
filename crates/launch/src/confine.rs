//! What holds an instance within its bounds: limits of resources, who is killed first, no
//! capability, and no way to more rights than it has.
//!
//! Each function decides nothing but whether a refusal matters: a process that may not raise a
//! limit is left with the one it has.

use std::ffi::CStr;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::process::write;

/// The number that the kernel takes for "no limit".
const UNLIMITED: u64 = u64::MAX;

/// Sets a limit. Who may not raise it above what this process has gets that.
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

/// Its share of the processor is that of any other process, and when memory runs out it is killed
/// before those whose number is lower. What was inherited is left where it may not be changed.
pub(crate) fn settle(oom_score_adj: &CStr) {
    let _ = setpriority_process(None, 0);
    let path = c"/proc/self/oom_score_adj";
    if let Ok(file) = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = write(&file, oom_score_adj.to_bytes());
    }
}

/// No program that it executes can have a capability. Only root can; no other user has one to give
/// away. The kernel refuses the first capability that it does not know.
pub(crate) fn drop_bounding_set() {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if remove_capability_from_bounding_set(capability).is_err() {
            break;
        }
    }
}

/// Gives up every capability, and that a program with more rights (setuid, file capabilities) gives
/// any.
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
