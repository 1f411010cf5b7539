//! A small file system of its own on a folder, unmounted however a test ends.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::fixture::COMMAND;
use super::run;

/// A mounted tmpfs; unmounted when dropped, even if processes still use it.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
}

impl Mounted {
    /// Mounts a tmpfs on this folder, which must exist. Needs root: call `need::root` first.
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

    /// The folder it is mounted on.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
