//! What happens when something breaks: acc stopped after every single step, power cuts, full disks,
//! clocks that jump, processes killed, and many commands at once, against the real binary.
//!
//! Each test ends with the same question (`crash::truth`): is every phase true, is nothing left
//! over, and does everything still work?

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a test may panic and print"
)]

mod support;

mod crash {
    pub mod crowd;
    pub mod daemons;
    pub mod disk;
    pub mod failure;
    pub mod power;
    pub mod steps;
    pub mod truth;
}
