//! acc as the launcher of an instance, and what every other start of acc does first.

use std::ffi::OsString;

use super::binary::own_binary;

/// The hidden word that makes acc a launcher. Known to [`launch`] alone, which checks for it before
/// anything is parsed.
const LAUNCH: &str = "launch";

/// When acc was called as the launcher of an instance: becomes the instance, and returns only with
/// the exit code of one that could not. Nothing else of acc may have begun: it is on the way of a
/// wake, and must stay the only thread.
#[must_use]
pub fn launch(mut args: impl Iterator<Item = OsString>) -> Option<u8> {
    let (_, word, file, after) = (args.next()?, args.next()?, args.next()?, args.next());
    (word == LAUNCH && after.is_none()).then(|| crate::driver::supervisor::launch(file.as_ref()))
}

/// Unblocks signals that acc's parent process has blocked, as many runtimes do in their threads:
/// else neither acc nor what it starts could be ended by one. A master that has just replaced
/// itself does so by itself, once it obeys them.
pub fn let_signals_in(mut args: impl Iterator<Item = OsString>) {
    if !args.any(|arg| arg == "--resume") {
        // Refused by no kernel.
        let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    }
}

/// What stands in for the launcher where that may not be executed.
pub(super) fn standin() -> Vec<String> {
    vec![own_binary().display().to_string(), LAUNCH.into()]
}
