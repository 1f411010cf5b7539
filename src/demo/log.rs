//! Records what the demo application did and when, a line each: `WORD ns pid …`, with ns of the
//! monotonic clock.
//!
//! Each line is one `write` to a file opened for appending, so several runs can share a file
//! without mixing lines.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;

/// The log; does nothing if none was requested.
pub(super) struct Log {
    file: Option<File>,
}

impl Log {
    /// Opens `path` for appending.
    pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let open = |p: &Path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o640)
                .open(p)
                .with_context(|| format!("could not open `{}`", p.display()))
        };
        Ok(Self {
            file: path.map(open).transpose()?,
        })
    }

    /// Appends one line. A failure is ignored, because it is not a failure of the request; a test
    /// that counts will notice.
    pub(super) fn write(&self, word: &str, rest: &str) {
        let Some(mut file) = self.file.as_ref() else {
            return;
        };
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let ns = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
        let gap = if rest.is_empty() { "" } else { " " };
        let _ =
            file.write_all(format!("{word} {ns} {}{gap}{rest}\n", std::process::id()).as_bytes());
    }
}
