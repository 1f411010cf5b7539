//! The launcher's beginning, where nothing of acc is: compiled by `build.rs` alone. The start-up of the standard library would
//! cost more than the launcher itself, and is left out.

#![no_main]

mod program;

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Called by the C library with the file that says what to become.
#[allow(unsafe_code, reason = "what the C library calls has this name and this form")]
#[unsafe(no_mangle)]
pub extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    if count != 2 {
        return 126;
    }
    // SAFETY: the C library gives as many words as it says, each ended by a zero byte, for the life of the process.
    let file = unsafe { CStr::from_ptr(*words.add(1)) };
    program::launch(Path::new(OsStr::from_bytes(file.to_bytes()))).into()
}
