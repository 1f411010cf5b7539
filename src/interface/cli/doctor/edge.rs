//! Which user nginx's workers run as, whether they and the instances can reach what they need, and
//! whether nginx answers.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::finding::{Finding, bad, ok, warn};
use crate::config::accounts::{Accounts, MAKE};
use crate::config::{Config, EDGE_ACCOUNT, EdgeKind};
use crate::driver::edge::nginx;
use crate::host::spawn::{UserIds, user_ids};
use crate::host::users;

/// Accounts that other programs of the host may run as, too.
const COMMON: [&str; 4] = ["www-data", "nginx", "nobody", "daemon"];

pub(super) async fn all(config: &Config) -> Vec<Finding> {
    let nginx = config.edge.kind == EdgeKind::Nginx;
    let mut findings = Vec::new();
    if users::is_root() {
        if nginx {
            findings.push(workers(config));
        }
        findings.extend(instances_reach(config));
        findings.extend(workers_reach(config).filter(|_| nginx));
    }
    if nginx {
        findings.extend(answers(config).await);
    }
    findings
}

/// Is the account of nginx's workers one of their own?
fn workers(config: &Config) -> Finding {
    let accounts = match Accounts::of(config) {
        Ok(accounts) => accounts,
        Err(fault) => return bad(fault.message, fault.hint),
    };
    let (Some(edge), Some(name)) = (accounts.edge, config.edge.user.as_deref()) else {
        return warn(
            "nginx's workers run as root",
            format!("run `{MAKE}` and set `user` in the config"),
        );
    };
    let groups = config
        .user
        .as_deref()
        .and_then(|user| user_ids(user).ok().flatten())
        .map(|ids| ids.groups)
        .unwrap_or_default();
    judge_workers(name, groups.contains(&edge.gid))
}

fn judge_workers(name: &str, with_instances: bool) -> Finding {
    let what = format!("nginx's workers run as user `{name}`");
    let own = if name == EDGE_ACCOUNT {
        "set `edge.user` to a user with a group of its own".to_owned()
    } else {
        format!("run `{MAKE}` and remove `edge.user` from the config")
    };
    match (with_instances, COMMON.contains(&name)) {
        (true, _) => warn(format!("{what}, and instances belong to its group"), own),
        (false, true) => warn(
            format!("{what}, which other programs may also run as; those could stop the workers"),
            own,
        ),
        (false, false) => ok(what),
    }
}

fn instances_reach(config: &Config) -> Option<Finding> {
    let name = config.user.as_deref()?;
    reach(
        "instances",
        name,
        &[config.home.join("instances"), config.run.join("sock")],
    )
}

fn workers_reach(config: &Config) -> Option<Finding> {
    let name = config.edge.user.as_deref()?;
    reach(
        "nginx's workers",
        name,
        &[
            config.gate_dir(),
            config.run.join("sock"),
            config.nginx_dir(),
            config.access_logs(),
        ],
    )
}

fn reach(who: &str, name: &str, folders: &[PathBuf]) -> Option<Finding> {
    // That there is no such user is said elsewhere.
    let ids = user_ids(name).ok().flatten()?;
    Some(
        match folders.iter().find_map(|folder| blocked(folder, &ids)) {
            None => ok(format!("{who} (user `{name}`) can reach their folders")),
            Some((folder, mode)) => bad(
                format!(
                    "{who} (user `{name}`) cannot pass through `{}` (mode {mode:04o})",
                    folder.display()
                ),
                format!(
                    "`chmod o+x {}`, or set `home` and `run` in the config to other places",
                    folder.display()
                ),
            ),
        },
    )
}

/// The first folder on the way that this user cannot pass through, by its mode. What is not there
/// yet is made with the right one.
fn blocked(path: &Path, ids: &UserIds) -> Option<(PathBuf, u32)> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut way: Vec<&Path> = path.ancestors().collect();
    way.reverse();
    way.into_iter().find_map(|folder| {
        let found = std::fs::metadata(folder).ok()?;
        let bit = match () {
            () if found.uid() == ids.uid => 0o100,
            () if found.gid() == ids.gid || ids.groups.contains(&found.gid()) => 0o010,
            () => 0o001,
        };
        (ids.uid != 0 && found.mode() & bit == 0)
            .then(|| (folder.to_owned(), found.mode() & 0o7777))
    })
}

/// What keeps a nginx that runs from answering.
async fn answers(config: &Config) -> Vec<Finding> {
    match nginx::faults(config).await {
        Ok(None) => Vec::new(),
        Ok(Some(faults)) if faults.is_empty() => {
            vec![ok("nginx answers and reaches acc's server")]
        }
        Ok(Some(faults)) => faults
            .into_iter()
            .map(|fault| bad(fault, "`acc monitor` fixes it"))
            .collect(),
        Err(e) => vec![warn(
            format!("could not check nginx: {e}"),
            "run this command as root or as the user who booted acc",
        )],
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::finding::Level;
    use super::*;

    #[test]
    fn an_account_that_others_have_too_is_warned_of() {
        for (name, shared, level) in [
            ("acc-edge", false, Level::Ok),
            ("web", false, Level::Ok),
            ("www-data", false, Level::Warn),
            ("acc-edge", true, Level::Warn),
        ] {
            let finding = judge_workers(name, shared);
            assert_eq!(finding.level, level, "{name} {shared}");
            assert_eq!(finding.hint.is_empty(), level == Level::Ok);
        }
    }

    #[test]
    fn the_folder_that_stops_somebody_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
        };
        mode(dir.path(), 0o755);
        mode(&dir.path().join("a"), 0o750);
        let owner = std::fs::metadata(&below).unwrap();
        let stranger = UserIds {
            uid: 61_234,
            gid: 61_234,
            groups: vec![61_234],
        };
        let found = blocked(&below.join("not there"), &stranger)
            .or_else(|| blocked(&below, &stranger))
            .unwrap();
        assert!(found.0.ends_with("a") && found.1 == 0o750, "{found:?}");
        let member = UserIds {
            groups: vec![owner.gid()],
            ..stranger.clone()
        };
        assert_eq!(blocked(&below, &member), None);
        mode(&dir.path().join("a"), 0o711);
        assert_eq!(blocked(&below, &stranger), None);
    }
}
