//! What the kernel allows the bench itself.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many open files as are allowed at all.
pub fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
