//! Log files that are appended to line by line and rotated when they are long; and this process's
//! own output, if no process reads it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::untrusted;

/// Writes to this log itself if the supervisor that did so has died, and says so there.
pub fn keep_log(path: &Path) {
    match take_output_if_unread(path) {
        Ok(true) => {
            tracing::info!("the supervisor that wrote this log has died; the server continues")
        }
        Ok(false) => {}
        Err(e) => tracing::warn!("could not write to its own log: {e}"),
    }
}

/// If no process reads this process's standard error any more, redirects it and standard output to
/// the end of this file; returns `true` if it did.
fn take_output_if_unread(path: &Path) -> io::Result<bool> {
    let stderr = rustix::stdio::stderr();
    let mut ask = [PollFd::new(&stderr, PollFlags::empty())];
    rustix::event::poll(
        &mut ask,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )?;
    if !ask[0].revents().contains(PollFlags::ERR) {
        return Ok(false);
    }
    take_output(path).map(|()| true)
}

/// Redirects this process's standard error and standard output to the end of this file.
pub fn take_output(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)?;
    rustix::stdio::dup2_stderr(&file)?;
    rustix::stdio::dup2_stdout(&file)?;
    Ok(())
}

/// A log file, open for appending.
#[derive(Debug)]
pub struct AppendFile {
    path: PathBuf,
    file: File,
    size: u64,
}

impl AppendFile {
    /// Opens the file, or makes it with mode 0640. Anything but a regular file is an error.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (file, found) = untrusted::open(path, untrusted::To::Append)?;
        let size = u64::try_from(found.st_size).unwrap_or(0);
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
        })
    }

    /// Appends; a file larger than `max` bytes is first renamed to `NAME.1`, replacing the former
    /// one.
    pub fn append(&mut self, text: &[u8], max: u64) -> io::Result<()> {
        if self.size > 0 && self.size.saturating_add(text.len() as u64) > max {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".1");
            fs::rename(&self.path, aside)?;
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(text)?;
        self.size += text.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_set_aside_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut file = AppendFile::open(&path).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            file.append(line.as_bytes(), 8).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
        assert_eq!(
            fs::read_to_string(dir.path().join("a.log.1")).unwrap(),
            "three\n"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(AppendFile::open(&path).unwrap().size, 5);
    }
}
