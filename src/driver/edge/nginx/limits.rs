//! What nginx may use on this host: the user of its workers, and how many files they may open.
//!
//! It reads the limits and changes nothing.

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Group, User, geteuid};

use crate::driver::edge::EdgeError;
use crate::render::nginx::Allowance;

/// Enough for both sides of the connections below and for the logs.
const OPEN_FILES: u64 = 65_536;
/// Connections of one worker, both sides counted.
const CONNECTIONS: u64 = 16_384;

/// Reads the limits. `user`: the workers' user when acc is root; `None`: root.
pub fn of_host(user: Option<&str>) -> Result<Allowance, EdgeError> {
    let root = geteuid().is_root();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|e| EdgeError::Unusable(format!("could not read the limit of open files: {e}")))?;
    let run_as = if root {
        Some(account(user.unwrap_or("root"))?)
    } else {
        None
    };
    let (open_files, connections) = fit(may_raise_limits(), hard);
    Ok(Allowance {
        run_as,
        open_files: Some(open_files),
        connections,
    })
}

/// Open files and connections of a worker. The limit cannot exceed the hard limit unless that may
/// be raised.
fn fit(may_raise: bool, hard: u64) -> (u64, u64) {
    let open_files = if may_raise {
        OPEN_FILES
    } else {
        OPEN_FILES.min(hard)
    };
    (open_files, CONNECTIONS.min(open_files / 2).max(64))
}

/// Root in a container often may not: the capability decides.
fn may_raise_limits() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    // Read as bytes: the first line is the program's name, which any user may choose.
    let status = std::fs::read("/proc/self/status").unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|caps| caps >> CAP_SYS_RESOURCE & 1 == 1)
}

/// A user and its primary group: without it nginx would use the group with the user's name.
fn account(name: &str) -> Result<(String, String), EdgeError> {
    let missing = || {
        EdgeError::Unusable(format!(
            "there is no user `{name}` on this host: create it or change `user`"
        ))
    };
    let failed =
        |e: nix::Error| EdgeError::Unusable(format!("could not look up user `{name}`: {e}"));
    let user = User::from_name(name).map_err(failed)?.ok_or_else(missing)?;
    let group = Group::from_gid(user.gid)
        .map_err(failed)?
        .ok_or_else(|| EdgeError::Unusable(format!("the group of user `{name}` does not exist")))?;
    Ok((user.name, group.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_the_files() {
        assert_eq!(fit(true, 1024), (65_536, 16_384));
        assert_eq!(fit(false, 1_048_576), (65_536, 16_384));
        assert_eq!(fit(false, 1024), (1024, 512));
        assert_eq!(fit(false, 20), (20, 64));
    }

    #[test]
    fn a_user_that_is_not_there_is_named() {
        assert!(
            account("nobody-of-this-name")
                .unwrap_err()
                .to_string()
                .contains("`nobody-of-this-name`")
        );
        assert_eq!(
            account("root").unwrap(),
            ("root".to_owned(), "root".to_owned())
        );
    }
}
