//! What the launcher's reader makes of a text, as values that can be compared: for those who hold
//! the reader to its promises (`fuzz/tenants.rs`).
//!
//! It starts nothing, and acc itself never reads such a text.

use std::ffi::{CStr, CString};
use std::path::Path;

use super::super::{Program, program_path};
use super::program::{self, LaunchRequest, List};
use super::{InstanceSpec, Spec};
use crate::host::spawn::UserIds;

/// All that the launcher goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Understood {
    /// The file to execute.
    pub program: CString,
    /// Arguments, with argument 0.
    pub argv: Vec<CString>,
    /// `NAME=VALUE`, each.
    pub env: Vec<CString>,
    /// Working directory.
    pub dir: CString,
    /// Standard output and error.
    pub log: CString,
    /// User, group, all groups.
    pub user: Option<Vec<u32>>,
    /// Files of control groups that it joins.
    pub join: Vec<CString>,
    /// The socket that it hands over.
    pub socket: Option<CString>,
    /// Umask.
    pub umask: usize,
    /// Resources with their soft and hard limits.
    pub limits: Vec<(usize, u64, u64)>,
    /// How readily an instance is killed; `None`: a service.
    pub instance: Option<CString>,
    /// The pid file, where it is written first, and which boot it names.
    pub pid: [CString; 3],
}

/// Reads a text as the launcher does; `None`: it refuses.
#[must_use]
pub fn understand(text: &[u8]) -> Option<Understood> {
    let wanted = program::read(text).ok()?;
    Some(Understood {
        program: wanted.program.into(),
        argv: words(&wanted, |wanted| &wanted.argv),
        env: words(&wanted, |wanted| &wanted.envp),
        dir: wanted.dir.into(),
        log: wanted.log.into(),
        user: wanted.user.as_ref().map(|(uid, gid, groups)| {
            [*uid, *gid]
                .into_iter()
                .chain(groups.iter().copied())
                .collect()
        }),
        join: wanted
            .join
            .iter()
            .flatten()
            .map(|path| CString::from(*path))
            .collect(),
        socket: wanted.socket.map(Into::into),
        umask: wanted.umask,
        limits: wanted
            .limits
            .iter()
            .flatten()
            .map(|(resource, limit)| (*resource, limit.soft, limit.hard))
            .collect(),
        instance: wanted.instance.map(Into::into),
        pid: [wanted.pid, wanted.beside, wanted.boot].map(Into::into),
    })
}

/// The list as execve(2) reads it: up to the null pointer.
fn words<'a>(
    wanted: &'a LaunchRequest<'a>,
    list: impl FnOnce(&'a LaunchRequest<'a>) -> &'a List,
) -> Vec<CString> {
    let pointers = list(wanted)
        .ended()
        .iter()
        .take_while(|pointer| !pointer.is_null());
    #[expect(unsafe_code, reason = "lists of pointers are what the launcher makes")]
    // SAFETY: each is of a C string in the text, which the value borrows.
    pointers
        .map(|pointer| unsafe { CStr::from_ptr(*pointer) }.to_owned())
        .collect()
}

impl Program {
    /// The text that the launcher is given for this program; `None`: it is refused before.
    #[must_use]
    pub fn launch_text(&self, user: Option<&UserIds>) -> Option<String> {
        let program = program_path::path(self).ok()?;
        let (args, log) = (self.argv.get(1..)?, self.log.as_path());
        let instance = Some(InstanceSpec {
            program: self,
            user,
            join: &[],
            stop: false,
        });
        Some(
            Spec {
                program: &program,
                args,
                env: &self.env,
                dir: &self.dir,
                log,
                instance,
                pid: Some((Path::new("/a.pid"), "boot")),
            }
            .text(),
        )
    }
}
