//! The request to a launcher, and its text: written by acc, parsed by the launcher.
//!
//! The text is a sequence of `KEY=VALUE`, each ended by a zero byte, which neither arguments nor
//! environments can contain. An unknown key is an error: the installed launcher was built together
//! with the server that writes the text. No file is read or written here.

use std::ffi::{CStr, CString};
use std::fmt;
use std::str::FromStr;

use rustix::process::Resource;

/// The limits that a request can set.
const RESOURCES: [Resource; 3] = [Resource::Nofile, Resource::Fsize, Resource::Core];

/// A user to run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserIds {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

/// What to become. It may contain secrets: only acc may read its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchRequest {
    /// The file to execute, and argument 0.
    pub program: CString,
    /// Arguments after argument 0.
    pub args: Vec<CString>,
    /// `NAME=VALUE` each; the whole environment, except the variables for a passed socket.
    pub env: Vec<CString>,
    /// Working directory.
    pub dir: CString,
    /// Standard output and error.
    pub log: CString,
    /// The pid file, which is written before the program starts. `None`: acc writes it.
    pub pid_file: Option<CString>,
    /// The boot id for the pid file.
    pub boot: CString,
    /// Umask.
    pub umask: u32,
    /// Resources with their soft and hard limits.
    pub limits: Vec<(Resource, u64, u64)>,
    /// The user to become; `None`: unchanged.
    pub user: Option<UserIds>,
    /// Files of control groups that a process joins by writing `0`.
    pub join: Vec<CString>,
    /// Listen at this path, and pass on the socket (`sd_listen_fds(3)`).
    pub socket: Option<CString>,
    /// Set for an instance, which gets no rights but its user's: how early it is killed when memory
    /// runs out (`oom_score_adj`, proc(5)).
    pub instance: Option<CString>,
    /// A test wants the process to be stopped right before it becomes the program.
    pub stop: bool,
}

/// Why a text is not a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaunchTextFault {
    /// Its end is missing.
    NotComplete,
    /// This key or its value is invalid. Only the key is ever shown: a value may be a secret.
    NotUnderstood(String),
}

impl fmt::Display for LaunchTextFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotComplete => f.write_str("it is not complete"),
            Self::NotUnderstood(key) => write!(f, "`{key}` is not understood"),
        }
    }
}

impl LaunchRequest {
    /// A request for this program with this log, in `/`, and nothing else.
    #[must_use]
    pub fn new(program: CString, log: CString) -> Self {
        Self {
            program,
            args: Vec::new(),
            env: Vec::new(),
            dir: c"/".into(),
            log,
            pid_file: None,
            boot: CString::default(),
            umask: 0o022,
            limits: Vec::new(),
            user: None,
            join: Vec::new(),
            socket: None,
            instance: None,
            stop: false,
        }
    }

    /// The text for the launcher.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let mut say = |key: &str, value: &[u8]| {
            text.extend([key.as_bytes(), b"=", value, b"\0"].concat());
        };
        let one = |word: &CString| word.as_bytes().to_vec();
        say("program", &one(&self.program));
        self.args.iter().for_each(|arg| say("arg", &one(arg)));
        self.env.iter().for_each(|env| say("env", &one(env)));
        say("dir", &one(&self.dir));
        say("log", &one(&self.log));
        if let Some(path) = &self.pid_file {
            say("pid", &one(path));
        }
        say("boot", &one(&self.boot));
        say("umask", self.umask.to_string().as_bytes());
        for (resource, soft, hard) in &self.limits {
            let limit = format!("{} {soft} {hard}", *resource as u32);
            say("limit", limit.as_bytes());
        }
        if let Some(user) = &self.user {
            let ids = [user.uid, user.gid];
            let ids: Vec<String> = ids.iter().chain(&user.groups).map(u32::to_string).collect();
            say("user", ids.join(" ").as_bytes());
        }
        self.join.iter().for_each(|path| say("join", &one(path)));
        if let Some(path) = &self.socket {
            say("socket", &one(path));
        }
        if let Some(oom_score_adj) = &self.instance {
            say("instance", &one(oom_score_adj));
        }
        if self.stop {
            say("stop", b"");
        }
        text
    }

    /// Parses the text.
    ///
    /// # Errors
    /// It is truncated, or contains something that acc does not write.
    pub fn parse(text: &[u8]) -> Result<Self, LaunchTextFault> {
        if text.last() != Some(&0) {
            return Err(LaunchTextFault::NotComplete);
        }
        let mut request = Self::new(CString::default(), CString::default());
        for line in text.split_inclusive(|byte| *byte == 0) {
            let at = line.iter().position(|byte| *byte == b'=');
            let key = line.get(..at.unwrap_or(line.len() - 1)).unwrap_or_default();
            at.and_then(|at| CStr::from_bytes_with_nul(line.get(at + 1..)?).ok())
                .and_then(|value| request.set(key, value))
                .ok_or_else(|| {
                    LaunchTextFault::NotUnderstood(String::from_utf8_lossy(key).into_owned())
                })?;
        }
        Ok(request)
    }

    fn set(&mut self, key: &[u8], value: &CStr) -> Option<()> {
        match key {
            b"program" => self.program = value.into(),
            b"arg" => self.args.push(value.into()),
            b"env" => self.env.push(value.into()),
            b"dir" => self.dir = value.into(),
            b"log" => self.log = value.into(),
            b"pid" => self.pid_file = Some(value.into()),
            b"boot" => self.boot = value.into(),
            b"umask" => self.umask = value.to_str().ok()?.parse().ok()?,
            b"limit" => self.limits.push(limit(&numbers(value)?)?),
            b"user" => self.user = Some(ids(&numbers(value)?)?),
            b"join" => self.join.push(value.into()),
            b"socket" => self.socket = Some(value.into()),
            b"instance" => self.instance = Some(value.into()),
            b"stop" => self.stop = true,
            _ => return None,
        }
        Some(())
    }
}

fn numbers<T: FromStr>(value: &CStr) -> Option<Vec<T>> {
    let words = value.to_str().ok()?.split(' ');
    words.map(|word| word.parse().ok()).collect()
}

/// `UID GID GROUP…`
fn ids(numbers: &[u32]) -> Option<UserIds> {
    let [uid, gid, groups @ ..] = numbers else {
        return None;
    };
    Some(UserIds {
        uid: *uid,
        gid: *gid,
        groups: groups.to_vec(),
    })
}

/// `RESOURCE SOFT HARD`
fn limit(numbers: &[u64]) -> Option<(Resource, u64, u64)> {
    let [resource, soft, hard] = *numbers else {
        return None;
    };
    let known = |known: &Resource| u64::from(*known as u32) == resource;
    Some((RESOURCES.into_iter().find(known)?, soft, hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> LaunchRequest {
        LaunchRequest {
            args: vec![c"".into(), c"a=b \n \xff".into()],
            env: vec![c"A=1=2".into(), c"B=".into()],
            dir: c"/srv".into(),
            pid_file: Some(c"/run/a.pid".into()),
            boot: c"boot".into(),
            umask: 0o027,
            limits: vec![
                (Resource::Nofile, 10, u64::MAX),
                (Resource::Fsize, 0, 1),
                (Resource::Core, 0, 0),
            ],
            user: Some(UserIds {
                uid: 1,
                gid: 2,
                groups: (0..70).collect(),
            }),
            join: vec![c"/a".into(), c"/b".into(), c"/c".into()],
            socket: Some(c"/run/a.sock".into()),
            instance: Some(c"200".into()),
            stop: true,
            ..LaunchRequest::new(c"/bin/a".into(), c"/log".into())
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let plain = LaunchRequest::new(c"/bin/a".into(), c"/log".into());
        for request in [plain, whole()] {
            assert_eq!(LaunchRequest::parse(&request.text()).unwrap(), request);
        }
    }

    #[test]
    fn what_is_cut_short_or_not_known_is_refused() {
        let text = whole().text();
        let cut = (0..text.len()).map(|end| &text[..end]);
        for text in cut.filter(|text| text.last() != Some(&0)) {
            let refused = LaunchRequest::parse(text);
            assert_eq!(refused, Err(LaunchTextFault::NotComplete));
        }
        for line in [
            "what=1",
            "",
            "program",
            "umask=x",
            "umask=",
            "user=1",
            "user=1 x",
            "user=-1 1",
            "limit=7 1",
            "limit=7 1 2 3",
            "limit=99 1 2",
            "limit=7 1 x",
        ] {
            let key = line.split('=').next().unwrap().to_owned();
            let refused = LaunchRequest::parse(format!("dir=/\0{line}\0").as_bytes());
            assert_eq!(refused, Err(LaunchTextFault::NotUnderstood(key)), "{line}");
        }
    }
}
