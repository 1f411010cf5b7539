//! What holds an instance within its bounds, as system calls: limits of resources, who is killed
//! first, no capability, and no way to more rights than it has.
//!
//! Each function decides nothing but whether a refusal matters: a process that may not raise a
//! limit is left with the one it has.

#![allow(
    unsafe_code,
    reason = "there is no safe way to make a system call without a library"
)]

use core::ffi::CStr;
use core::ptr;

use super::sys::{self, Errno, Result, call, number};

const PR_CAPBSET_DROP: usize = 24;
const PR_SET_NO_NEW_PRIVS: usize = 38;
const PR_CAP_AMBIENT: usize = 47;
const PR_CAP_AMBIENT_CLEAR_ALL: usize = 4;
/// The kernel refuses the first capability that it does not know.
const CAPABILITIES: usize = 64;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const PRIO_PROCESS: usize = 0;
const EPERM: Errno = Errno(1);

/// A limit of a resource, as `prlimit(2)` takes it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}

/// Sets a limit. Who may not raise it above what this process has gets that.
pub fn limit(resource: usize, wanted: Limit) -> Result<()> {
    let set = |limit: Limit| {
        // SAFETY: a number, and a structure of the kernel's form; no old one is asked for.
        unsafe {
            call(
                number::PRLIMIT64,
                [0, resource, ptr::from_ref(&limit) as usize, 0, 0, 0],
            )
        }
        .map(drop)
    };
    match set(wanted) {
        Err(EPERM) => {
            let mut has = Limit { soft: 0, hard: 0 };
            // SAFETY: a number, and a structure of the kernel's form that it writes to.
            unsafe {
                call(
                    number::PRLIMIT64,
                    [0, resource, 0, ptr::from_mut(&mut has) as usize, 0, 0],
                )
            }?;
            let hard = wanted.hard.min(has.hard);
            set(Limit {
                soft: wanted.soft.min(hard),
                hard,
            })
        }
        done => done,
    }
}

/// Its share of the processor is that of any other process, and when memory runs out it is killed
/// before those whose number is lower. What was inherited is left where it may not be changed.
pub fn settle(oom_score_adj: &CStr) {
    // SAFETY: numbers.
    let _ = unsafe { call(number::SETPRIORITY, [PRIO_PROCESS, 0, 0, 0, 0, 0]) };
    if let Ok(file) = sys::open_to_write(c"/proc/self/oom_score_adj") {
        let _ = sys::write(file, &[oom_score_adj.to_bytes()]);
        sys::close(file);
    }
}

/// No program that it executes can have a capability. Only root can; no other user has one to give
/// away.
pub fn drop_bounding_set() {
    for capability in 0..CAPABILITIES {
        // SAFETY: numbers.
        if unsafe { call(number::PRCTL, [PR_CAPBSET_DROP, capability, 0, 0, 0, 0]) }.is_err() {
            break;
        }
    }
}

/// Gives up every capability, and that a program with more rights (setuid, file capabilities) gives
/// any.
pub fn drop_rights() -> Result<()> {
    let header = [CAPABILITY_VERSION_3, 0];
    let none = [0_u32; 6];
    // SAFETY: numbers, and structures of the kernel's form for this version.
    unsafe {
        // A kernel before 4.3 has no such set.
        let _ = call(
            number::PRCTL,
            [PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0],
        );
        call(
            number::CAPSET,
            [header.as_ptr() as usize, none.as_ptr() as usize, 0, 0, 0, 0],
        )?;
        call(number::PRCTL, [PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0])?;
    }
    Ok(())
}
