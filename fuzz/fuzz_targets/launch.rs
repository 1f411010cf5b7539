//! Drives `tenants::launch`.

#![no_main]

#[allow(dead_code, reason = "each program drives one of them")]
#[path = "../tenants.rs"]
mod tenants;

libfuzzer_sys::fuzz_target!(|data: &[u8]| tenants::launch(data));
