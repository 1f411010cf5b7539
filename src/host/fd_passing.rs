//! Open files that a process passes on: to its successor or a child, by number, over `exec`, or to
//! another process over a socket.
//!
//! It does not decide what they are: the receiver states what it expects and gets an error for
//! anything else.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Room for as many files as the kernel sends at once (`SCM_MAX_FD`).
const SPACE: usize = rustix::cmsg_space!(ScmRights(253));

/// Takes ownership of the open file with this number, which was left to this process. It is closed
/// at the next `exec`.
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

/// Makes these files stay open over an `exec`, or not.
///
/// # Errors
/// The kernel refuses, which has not been observed.
pub fn pass<F: AsFd>(files: &[F], pass: bool) -> io::Result<()> {
    for file in files {
        let mut flags = fcntl_getfd(file)?;
        flags.set(FdFlags::CLOEXEC, !pass);
        fcntl_setfd(file, flags)?;
    }
    Ok(())
}

/// Sends a byte and these files over a connected unix socket.
///
/// # Errors
/// The receiver has ended, or there are more files than the kernel sends at once.
pub fn send(to: impl AsFd, byte: u8, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(to, &[IoSlice::new(&[byte])], &mut control, flags)?;
    Ok(())
}

/// Receives a byte and the files sent with it; they are closed at the next `exec`.
///
/// # Errors
/// The sender has ended, or not all files could be received.
pub fn receive(from: impl AsFd) -> io::Result<(u8, Vec<OwnedFd>)> {
    let (mut byte, mut space) = ([0], [MaybeUninit::uninit(); SPACE]);
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let files = files.flatten().collect();
    match got.bytes {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ if got.flags.contains(ReturnFlags::CTRUNC) => {
            Err(io::Error::other("the limit of open files is reached"))
        }
        _ => Ok((byte[0], files)),
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
        assert!(take(900_000).is_err() && take(1).is_err() && take(-1).is_err());
    }
    #[test]
    fn files_are_sent_in_order_with_a_byte() {
        let (one, two) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(receive(&two).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let dir = tempfile::tempdir().unwrap();
        let files = ["a", "b"].map(|name| std::fs::File::create(dir.path().join(name)).unwrap());
        send(&one, 7, &[files[1].as_fd(), files[0].as_fd()]).unwrap();
        let (byte, got) = receive(&two).unwrap();
        assert_eq!((byte, got.len()), (7, 2));
        for (got, name) in got.iter().zip(["b", "a"]) {
            assert!(fcntl_getfd(got).unwrap().contains(FdFlags::CLOEXEC));
            let there = std::fs::read_link(format!("/proc/self/fd/{}", got.as_raw_fd())).unwrap();
            assert!(there.ends_with(name));
        }
        drop(one);
        assert_eq!(
            receive(&two).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
