//! A small file system of its own below a folder, gone on every way out of a test.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::fixture::COMMAND;
use super::run;

/// A mounted tmpfs; dropped, it is unmounted, whoever still uses it.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
}

impl Mounted {
    /// Mounts one on this folder, which must be there. Needs root: ask `need::root` first.
    #[track_caller]
    pub fn tmpfs(path: &Path, options: &str) -> Self {
        run::run(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                .arg(path),
            COMMAND,
        )
        .ok();
        Self {
            path: path.to_owned(),
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
