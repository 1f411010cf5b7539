//! The kernel's limits for the benchmark itself.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files as far as allowed.
pub fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
