//! Where the launcher is: a file for supervisord, a file in memory for acc itself. Where such files
//! must not be executed, acc's own binary does the same, more slowly.
//!
//! It starts nothing.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::driver::supervisor::SupervisorError;
use crate::host::fs::{make_dir, write_atomic};

/// The program, compiled by `build.rs`.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/launcher"));

/// Puts the launcher into this folder if it is missing, and returns its command without the last
/// argument. Returns `acc` if the folder's file system does not allow execution.
pub(in super::super) fn ensure(dir: &Path, acc: &[String]) -> Result<Vec<String>, SupervisorError> {
    let path = dir.join("launcher");
    let failed = |action, path: &PathBuf| {
        let path = path.clone();
        move |source| SupervisorError::File {
            action,
            path,
            source,
        }
    };
    let is_there = || {
        let found = fs::metadata(&path).ok()?;
        let whole = found.is_file()
            && found.len() == PROGRAM.len() as u64
            && found.permissions().mode() & 0o777 == 0o755;
        whole.then(|| fs::read(&path).is_ok_and(|bytes| bytes == PROGRAM))
    };
    if is_there() != Some(true) {
        make_dir(dir, 0o700).map_err(failed("make", &dir.to_owned()))?;
        write_atomic(&path, PROGRAM, 0o755).map_err(failed("write", &path))?;
    }
    let mount = rustix::fs::statvfs(&path).map_err(|e| failed("check", &path)(e.into()))?;
    if mount.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC) {
        return Ok(acc.to_vec());
    }
    Ok(vec![path.to_string_lossy().into_owned()])
}

/// A path by which a child of this process can execute the launcher; `None`: the kernel forbids
/// execution from memory (`vm.memfd_noexec`).
pub(in super::super) fn in_memory() -> Option<String> {
    static LAUNCHER: OnceLock<Option<File>> = OnceLock::new();
    let file = LAUNCHER.get_or_init(|| {
        // Before Linux 6.3 all such files are executable, and the flag is unknown.
        let made = memory("acc-launcher", MemfdFlags::EXEC, PROGRAM).or_else(|_| memory("acc-launcher", MemfdFlags::empty(), PROGRAM));
        made.inspect_err(|error| tracing::info!(%error, "the launcher cannot be kept in memory; using acc's binary instead")).ok()
    });
    file.as_ref()
        .map(|file| format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Makes a file that exists in memory only and has no name.
pub(in super::super) fn memory(name: &str, flags: MemfdFlags, bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | flags)?);
    file.write_all(bytes)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_put_in_place_once_and_again_when_it_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("launch");
        let command = ensure(&place, &[]).unwrap();
        assert_eq!(command, [place.join("launcher").display().to_string()]);
        let inode = |path: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
        let first = inode(&command[0]);
        ensure(&place, &[]).unwrap();
        assert_eq!(inode(&command[0]), first);
        let mut other = PROGRAM.to_vec();
        other[100] ^= 1;
        fs::write(&command[0], &other).unwrap();
        ensure(&place, &[]).unwrap();
        assert!(fs::read(&command[0]).unwrap() == PROGRAM);
    }
}
