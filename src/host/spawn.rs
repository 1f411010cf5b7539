//! Starts a process that outlives acc, with three open files and nothing else of acc's; and finds
//! the user it may run as.
//!
//! It neither waits for the process nor remembers it: the caller does. The process sets its
//! session, user and limits itself, see the library `acc_launch`.

use std::ffi::CString;
use std::io;
use std::process::{Command, Stdio};

pub use acc_launch::UserIds;
use nix::unistd::{Gid, Uid, User, getgrouplist};

use super::process;
use crate::domain::instance::Process;

/// Looks up a user and its groups; `None`: there is no such user.
pub fn user_ids(name: &str) -> io::Result<Option<UserIds>> {
    let Some(user) = User::from_name(name).map_err(io::Error::from)? else {
        return Ok(None);
    };
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let groups = getgrouplist(&name, user.gid).map_err(io::Error::from)?;
    Ok(Some(UserIds {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
    }))
}

/// Whether acc may start a process as another user: only root can.
#[must_use]
pub fn may_change_user() -> bool {
    Uid::effective().is_root()
}

/// Starts this program, with an empty environment and these as standard input, output and error,
/// and returns its process.
///
/// The standard library uses `vfork` semantics: the child borrows acc's memory until it has become
/// the program, and this thread waits for that. A fork would copy the page tables of a server with
/// many threads, and every page that the server writes afterwards. Because acc waits, other users
/// must not be able to signal the child: it keeps acc's user.
///
/// # Errors
/// The program could not be executed.
pub fn spawn(program: &str, args: &[String], files: [Stdio; 3]) -> io::Result<Process> {
    let [input, output, errors] = files;
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .stdin(input)
        .stdout(output)
        .stderr(errors);
    let before_ns = process::since_boot_ns();
    let child = command.spawn()?;
    let after_ns = process::since_boot_ns();
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok(Process {
        pid,
        start_time: process::start_time_of_child(pid, before_ns, after_ns),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_looked_up_with_their_groups() {
        assert_eq!(user_ids("no-such-user-of-acc").unwrap(), None);
        let root = user_ids("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0));
    }
}
