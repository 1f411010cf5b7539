//! The edge with a real nginx: each test runs its own, in its own folder, on a port the kernel
//! chose.

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod hostile;
mod logs;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod routing;

use super::*;

/// An edge whose nginx does not run, and its folder: for the suite of all kinds.
pub(crate) fn for_suite() -> (Arc<Nginx>, tempfile::TempDir) {
    let fixture = fixture::Fixture::new(|_, _| {});
    (fixture.edge.clone(), fixture.into_dir())
}

/// Is the program there? (Says so, and fails in CI, when it is not.)
pub(crate) fn is_installed() -> bool {
    fixture::need_nginx()
}
