//! Reads regular files without waiting for another process: a pipe or a device at the path is an
//! error.
//!
//! It does not check who may change them; `trust` does.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The bytes of a file, or of the target of a link.
///
/// # Errors
/// It is not a regular file, or cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let found = file.metadata()?;
    match () {
        () if found.is_file() => {}
        () if found.is_dir() => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
        () => return Err(io::Error::other("it is not a regular file")),
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a file.
///
/// # Errors
/// As [`read`], or it is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_regular_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (file, pipe, link) = (
            dir.path().join("file"),
            dir.path().join("pipe"),
            dir.path().join("link"),
        );
        fs::write(&file, "text").unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(
            (read(&file).unwrap(), read_to_string(&link).unwrap()),
            (b"text".to_vec(), "text".to_owned())
        );
        for other in [pipe.as_path(), Path::new("/dev/zero")] {
            assert_eq!(
                read(other).unwrap_err().to_string(),
                "it is not a regular file"
            );
        }
        assert_eq!(
            read(dir.path()).unwrap_err().kind(),
            io::ErrorKind::IsADirectory
        );
        assert_eq!(
            read(&dir.path().join("none")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        fs::write(&file, b"\xff").unwrap();
        assert_eq!(
            read_to_string(&file).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
