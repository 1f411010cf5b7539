//! acc as the launcher of an instance, and the first step of every other start of acc.

use std::ffi::OsString;

use super::binary::own_binary;

/// The hidden argument that makes acc a launcher. [`launch`] checks for it before anything is
/// parsed.
const LAUNCH: &str = "launch";

/// Becomes the instance if acc was called as its launcher. Returns only if that failed, with the
/// exit code. Nothing else of acc may have started: this is part of a wake and must remain the only
/// thread.
#[must_use]
pub fn launch(mut args: impl Iterator<Item = OsString>) -> Option<u8> {
    let (_, word, file, after) = (args.next()?, args.next()?, args.next()?, args.next());
    (word == LAUNCH && after.is_none()).then(|| crate::driver::supervisor::launch(file.as_ref()))
}

/// Unblocks signals that acc's parent has blocked, as many runtimes do in their threads: otherwise
/// neither acc nor its children could be ended by a signal. A master that has just replaced itself
/// does so later, when it handles signals.
pub fn let_signals_in(mut args: impl Iterator<Item = OsString>) {
    if !args.any(|arg| arg == "--resume") {
        // This call cannot fail.
        let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    }
}

/// The command that replaces the launcher where that must not be executed.
pub(super) fn standin() -> Vec<String> {
    vec![own_binary().display().to_string(), LAUNCH.into()]
}
