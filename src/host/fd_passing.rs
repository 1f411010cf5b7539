//! Open files that a process leaves to its successor or to a child: by number, over `exec`.
//!
//! It decides nothing about what they are; the receiver says what it expects, and is refused
//! anything else.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Takes charge of an open file that was left to this process under this number. It is closed at
/// the next `exec`.
///
/// # Errors
/// There is no such open file, or it is one of the three that every process has.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{number} is not a file that can be passed on"),
        ));
    }
    #[expect(
        unsafe_code,
        reason = "a number from the command line becomes an open file again"
    )]
    // SAFETY: the numbers come from the process that started this one, which left these files open
    // for it and for nothing else; each is taken once, before anything else is opened. A number
    // that is not open is refused by the next line, and the value is then forgotten without closing
    // anything.
    let file = unsafe { OwnedFd::from_raw_fd(number) };
    match fcntl_setfd(&file, FdFlags::CLOEXEC) {
        Ok(()) => Ok(file),
        Err(e) => {
            std::mem::forget(file);
            Err(e.into())
        }
    }
}

/// Lets these files pass an `exec`, or keeps them from it.
///
/// # Errors
/// The kernel refuses, which has not been seen so far.
pub fn pass<F: AsFd>(files: &[F], pass: bool) -> io::Result<()> {
    for file in files {
        let mut flags = fcntl_getfd(file)?;
        flags.set(FdFlags::CLOEXEC, !pass);
        fcntl_setfd(file, flags)?;
    }
    Ok(())
}

/// Lets these files pass to the child of this command, and to no other that is started meanwhile.
/// They must be open when the command is started.
pub fn leave(command: &mut Command, files: &[BorrowedFd<'_>]) {
    let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let pass = move || {
        for number in &numbers {
            #[expect(unsafe_code, reason = "only system calls are allowed before exec")]
            // SAFETY: the kernel refuses a number that is not open; no descriptor is owned here.
            let done = unsafe { libc::fcntl(*number, libc::F_SETFD, 0) };
            if done < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    #[expect(
        unsafe_code,
        reason = "other children of this process must not inherit them"
    )]
    // SAFETY: the child makes one kind of system call, which allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(pass);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn a_file_is_taken_once_and_what_is_not_open_is_refused() {
        let (one, _two) = std::os::unix::net::UnixStream::pair().unwrap();
        pass(&[&one], true).unwrap();
        assert!(!fcntl_getfd(&one).unwrap().contains(FdFlags::CLOEXEC));
        let taken = take(one.into_raw_fd()).unwrap();
        assert!(fcntl_getfd(&taken).unwrap().contains(FdFlags::CLOEXEC));
        assert!(taken.as_raw_fd() > 2);
        let mut see = Command::new("/bin/sh");
        let number = taken.as_raw_fd().to_string();
        see.args(["-c", "test -S /proc/self/fd/$0", &number]);
        assert!(!see.status().unwrap().success());
        leave(&mut see, &[taken.as_fd()]);
        assert!(see.status().unwrap().success());
        assert!(take(900_000).is_err() && take(1).is_err() && take(-1).is_err());
    }
}
