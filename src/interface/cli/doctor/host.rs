//! The kernel and this process: root, control groups, limits, the clock.

use std::collections::BTreeSet;

use rustix::process::{Resource, getrlimit};

use super::finding::{Finding, bad, ok, warn};
use crate::config::{Config, trust};
use crate::host::cgroup::{CgroupKind, Cgroups};
use crate::host::clock::{Clock, SystemClock};
use crate::host::limits::GroupLimits;
use crate::store::sqlite::SqliteStore;
use crate::store::{Filter, InstanceStore};

/// What acc asks for when it listens: see `somaxconn`.
const BACKLOG: u64 = 4096;

/// Each instance in use costs a few descriptors, each held request two.
const FILES: u64 = 16_384;

/// 2025-01-01T00:00:00Z in ms: earlier, the clock cannot be right.
const YEAR_2025: i64 = 1_735_689_600_000;

pub(super) fn all() -> Vec<Finding> {
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    vec![
        root(rustix::process::geteuid().as_raw()),
        clock(SystemClock.wall().0),
        backlog(somaxconn),
        files(getrlimit(Resource::Nofile).current),
    ]
}

fn root(uid: u32) -> Finding {
    match uid {
        0 => ok("runs as root: any port can be listened on"),
        uid => ok(format!("runs as user {uid}")),
    }
}

/// What instances can do to each other; `None`: nothing can be said without a database that is
/// trusted, or there is one instance at most.
pub(super) fn shared(config: &Config) -> Option<Finding> {
    if !matches!(trust::distrust(&config.home), Ok(None)) {
        return None;
    }
    // Enough to see whether they are of one owner.
    let some = Filter {
        limit: Some(1000),
        ..Filter::default()
    };
    let all = SqliteStore::open_readonly(&config.database())
        .and_then(|store| store.list(&some))
        .ok()?;
    let owners: BTreeSet<Option<&str>> = all
        .iter()
        .map(|instance| instance.owner.as_deref())
        .collect();
    let acc = rustix::process::geteuid().as_raw();
    let user = config.user.as_deref().filter(|_| acc == 0);
    judge_shared(all.len(), owners.len(), user, acc == 0)
}

fn judge_shared(
    instances: usize,
    owners: usize,
    user: Option<&str>,
    root: bool,
) -> Option<Finding> {
    let (whom, and) = match (user, root) {
        (Some(user), _) => (format!("user `{user}`"), ""),
        (None, true) => return None,
        (None, false) => ("the user who runs acc".to_owned(), ", and acc itself"),
    };
    let what = format!(
        "instances share {whom}: each can read and change the data of the others{and}, and end their processes"
    );
    match (instances, owners) {
        (0 | 1, _) => None,
        (_, 1) => Some(ok(what)),
        _ => Some(warn(
            format!("{what}; they have {owners} owners"),
            "use separate hosts for owners who do not trust each other",
        )),
    }
}

/// Which user instances run as.
pub(super) fn user(config: &Config) -> Finding {
    let uid = rustix::process::geteuid().as_raw();
    let known = |name: &str| {
        nix::unistd::User::from_name(name)
            .map(|user| user.map(|u| u.uid.as_raw()))
            .map_err(|e| e.to_string())
    };
    judge_user(uid, config.user.as_deref(), known)
}

fn judge_user(
    uid: u32,
    user: Option<&str>,
    known: impl Fn(&str) -> Result<Option<u32>, String>,
) -> Finding {
    let Some(name) = user else {
        return match uid {
            0 => warn(
                "instances run as root",
                "run `adduser --system --group acc` and set user = \"acc\" in the config",
            ),
            _ => ok("instances run as the user who runs acc"),
        };
    };
    match known(name) {
        Err(why) => warn(
            format!("could not look up user `{name}`: {why}"),
            "`getent passwd` may show more",
        ),
        Ok(None) => bad(
            format!("`user` is `{name}`, but there is no such user"),
            format!("run `adduser --system --group {name}`, or set another `user` in the config"),
        ),
        Ok(Some(0)) => warn(
            format!("user `{name}` is root: instances may do anything"),
            "choose another `user` in the config",
        ),
        Ok(Some(id)) if uid == 0 || id == uid => ok(format!("instances run as user `{name}`")),
        Ok(Some(_)) => warn(
            format!("`user` is `{name}`, but only root can run instances as another user"),
            "run acc as root, or leave `user` out of the config",
        ),
    }
}

fn clock(wall_ms: i64) -> Finding {
    match wall_ms < YEAR_2025 {
        true => warn(
            "the clock is wrong: it shows a year before 2025",
            "set the clock or install `chrony`; until then records have wrong times (durations are right)",
        ),
        false => ok("the clock is plausible"),
    }
}

/// How all processes of an instance are known.
pub(super) fn members(config: &Config) -> Finding {
    let wanted = GroupLimits {
        processes: config.limits.processes,
        memory: config.limits.memory,
    };
    cgroup(Cgroups::find(&config.run).map(|found| (found.kind(), found.missing(&wanted))))
}

fn cgroup(found: Result<(CgroupKind, Vec<&'static str>), String>) -> Finding {
    match found {
        Ok((_, missing)) if !missing.is_empty() => warn(
            format!(
                "control groups: one for each instance, but the controller {} is missing, so its limits are not in force",
                missing.join(", ")
            ),
            "run acc by its unit `acc.service`, in `acc.slice`, or set `limits.processes` and `limits.memory` to \"unlimited\"",
        ),
        Ok((CgroupKind::Pids, _)) => {
            ok("control groups: one for each instance, in the `pids` hierarchy of v1")
        }
        Ok((CgroupKind::Unified, _)) => ok("control groups: one for each instance, in v2"),
        Err(why) => warn(
            format!(
                "cannot create control groups ({why}): acc finds an instance's processes by scanning /proc"
            ),
            "run acc as root, or as a service with `Delegate=yes`; until then a process that leaves session and environment outlives a stop, and \
             `limits.processes` and `limits.memory` are not in force",
        ),
    }
}

fn backlog(somaxconn: Option<u64>) -> Finding {
    match somaxconn {
        Some(most) if most >= BACKLOG => ok(format!("listen queues may hold {most} connections")),
        Some(most) => warn(
            format!("the kernel limits listen queues to {most} connections"),
            format!(
                "run `sysctl net.core.somaxconn={BACKLOG}`; until then, some of many simultaneous connections wait a second"
            ),
        ),
        None => warn(
            "could not read the limit of listen queues",
            "check that /proc is mounted: `sysctl net.core.somaxconn`",
        ),
    }
}

/// `None`: no limit.
fn files(limit: Option<u64>) -> Finding {
    match limit {
        Some(limit) if limit < FILES => warn(
            format!("at most {limit} open files"),
            format!(
                "run `ulimit -n {FILES}`, or set LimitNOFILE= in the unit; this limit allows only a few awake instances"
            ),
        ),
        Some(limit) => ok(format!("at most {limit} open files")),
        None => ok("no limit of open files"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn what_instances_can_do_to_each_other_is_said() {
        assert_eq!(judge_shared(1, 1, Some("acc"), true), None);
        assert_eq!(
            judge_shared(5, 1, None, true),
            None,
            "that they are root is said already"
        );
        let one = judge_shared(5, 1, Some("acc"), true).unwrap();
        assert!(
            one.level == Level::Ok
                && one.what.contains("user `acc`")
                && !one.what.contains("acc itself"),
            "{one:?}"
        );
        let own = judge_shared(2, 2, None, false).unwrap();
        assert!(
            own.level == Level::Warn
                && own.what.contains("acc itself")
                && own.hint.contains("separate hosts"),
            "{own:?}"
        );
    }

    #[test]
    fn limits_are_judged() {
        assert_eq!(backlog(Some(4096)).level, Level::Ok);
        assert_eq!(backlog(Some(128)).level, Level::Warn);
        assert!(backlog(Some(128)).hint.contains("somaxconn=4096"));
        assert_eq!(backlog(None).level, Level::Warn);
        assert_eq!(files(None).level, Level::Ok);
        assert_eq!(files(Some(1024)).level, Level::Warn);
        assert_eq!(clock(0).level, Level::Warn);
        assert_eq!(clock(YEAR_2025).level, Level::Ok);
        assert_eq!(cgroup(Ok((CgroupKind::Pids, Vec::new()))).level, Level::Ok);
        assert_eq!(
            cgroup(Ok((CgroupKind::Unified, Vec::new()))).level,
            Level::Ok
        );
        let without = cgroup(Ok((CgroupKind::Unified, vec!["memory"])));
        assert!(without.level == Level::Warn && without.what.contains("memory"));
        let none = cgroup(Err("`/sys/fs/cgroup`: Permission denied".to_owned()));
        assert!(none.level == Level::Warn && none.what.contains("Permission denied"));
    }

    #[test]
    fn the_user_of_instances_is_judged() {
        let known = |name: &str| match name {
            "acc" => Ok(Some(100)),
            "toor" => Ok(Some(0)),
            "gone" => Ok(None),
            _ => Err("no answer".to_owned()),
        };
        for (uid, user, level) in [
            (0, None, Level::Warn),
            (7, None, Level::Ok),
            (0, Some("acc"), Level::Ok),
            (100, Some("acc"), Level::Ok),
            (7, Some("acc"), Level::Warn),
            (0, Some("toor"), Level::Warn),
            (0, Some("gone"), Level::Bad),
            (0, Some("x"), Level::Warn),
        ] {
            assert_eq!(judge_user(uid, user, known).level, level, "{uid} {user:?}");
        }
    }

    #[test]
    fn this_host_can_be_examined() {
        assert_eq!(all().len(), 4);
    }
}
