//! The environment of this process. The only place in acc that reads it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The environment that settings depend on; a plain value, so that a test can make its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Env {
    vars: BTreeMap<OsString, OsString>,
    /// The effective user id: root has other default folders.
    pub uid: u32,
    /// The working directory, in which `./acc.toml` is searched, and to which paths on the command
    /// line are relative.
    pub cwd: PathBuf,
    /// How many CPUs this process may use.
    pub cores: usize,
    /// The host's config file.
    pub host_file: PathBuf,
    /// The existing user accounts; `None`: ask the host.
    accounts: Option<Vec<String>>,
}

impl Env {
    /// Reads the environment of this process. A removed working directory becomes `/`.
    #[must_use]
    pub fn from_process() -> Self {
        Self {
            vars: std::env::vars_os().collect(),
            uid: rustix::process::geteuid().as_raw(),
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            host_file: PathBuf::from("/etc/acc/config.toml"),
            accounts: None,
        }
    }

    /// An empty environment for tests: no variables, two CPUs, no config file of the host, no user
    /// accounts.
    #[must_use]
    pub fn bare(uid: u32, cwd: impl Into<PathBuf>) -> Self {
        let cwd = cwd.into();
        Self {
            vars: BTreeMap::new(),
            uid,
            host_file: cwd.join("etc/acc/config.toml"),
            cwd,
            cores: 2,
            accounts: Some(Vec::new()),
        }
    }

    /// The same with one more user account.
    #[must_use]
    pub fn with_account(mut self, name: &str) -> Self {
        self.accounts.get_or_insert_default().push(name.to_owned());
        self
    }

    /// Whether there is a user account of this name. `true` if the lookup failed: the code that
    /// uses the account reports the error.
    #[must_use]
    pub fn has_account(&self, name: &str) -> bool {
        match &self.accounts {
            Some(accounts) => accounts.iter().any(|account| account == name),
            None => !matches!(nix::unistd::User::from_name(name), Ok(None)),
        }
    }

    /// The same with one more variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.vars.insert(name.into(), value.as_ref().to_owned());
        self
    }

    /// The same for another user of the host: their folders, without the former user's.
    #[must_use]
    pub fn of_user(mut self, uid: u32, home: Option<&Path>) -> Self {
        self.vars
            .retain(|name, _| name != "HOME" && !name.as_encoded_bytes().starts_with(b"XDG_"));
        self.uid = uid;
        match home {
            Some(home) => self.with("HOME", home),
            None => self,
        }
    }

    /// A variable; an empty one counts as unset.
    #[must_use]
    pub fn os(&self, name: &str) -> Option<&OsStr> {
        self.vars
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|v| !v.is_empty())
    }

    /// The same as text; a variable that is not UTF-8 counts as unset, so use [`Self::os`] for
    /// paths.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.os(name)?.to_str()
    }

    /// Whether this is root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// A folder of the XDG base directory specification: the variable if it is absolute, else
    /// `below` the user's home folder.
    #[must_use]
    pub fn xdg(&self, variable: &str, below: &str) -> Option<PathBuf> {
        let absolute = |name| self.os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        absolute(variable).or_else(|| {
            absolute("HOME")
                .filter(|_| !below.is_empty())
                .map(|home| home.join(below))
        })
    }
}
