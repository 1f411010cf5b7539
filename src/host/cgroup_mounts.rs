//! Finds the control group hierarchies of this host and the groups of this process.
//!
//! It parses the text of `/proc/self/mountinfo` and `/proc/self/cgroup` and opens no file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The slice of acc's own units. A slice contains no process itself, so groups below it can have
/// limits (cgroups(7), "no internal processes"), and they outlive the service.
pub(super) const SLICE: &str = "acc.slice";

/// How a hierarchy is joined and emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupKind {
    /// `pids` of cgroup v1.
    Pids,
    /// cgroup v2.
    Unified,
}

/// A usable hierarchy of control groups.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// How it lists the processes of a group; `None`: it only limits their memory (`memory` of
    /// cgroup v1).
    pub(super) counts: Option<CgroupKind>,
    pub(super) mount: PathBuf,
    /// The group below which acc makes its own.
    pub(super) parent: PathBuf,
}

/// The usable hierarchies, best first. acc's groups are made below the group of this process. If
/// this process is in one of them (an instance has called acc), below the group above; in a service
/// of acc's slice, below the slice.
pub(super) fn hierarchies(mounts: &[u8], own: &[u8], ours: &[u8]) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = lines(mounts)
        .filter_map(|line| {
            let words: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
            let (root, at) = (*words.get(3)?, *words.get(4)?);
            let rest = words.iter().position(|word| *word == b"-")?;
            let (kind, options) = (*words.get(rest + 1)?, *words.get(rest + 3)?);
            let has = |controller: &[u8]| {
                options
                    .split(|b| *b == b',')
                    .any(|option| option == controller)
            };
            let (counts, controller): (_, &[u8]) = match kind {
                b"cgroup2" => (Some(CgroupKind::Unified), b""),
                b"cgroup" if has(b"pids") => (Some(CgroupKind::Pids), b"pids"),
                b"cgroup" if has(b"memory") => (None, b"memory"),
                _ => return None,
            };
            let own = own_path(own, controller)?;
            // The part that the mount shows: a container may have another root.
            let own = if root == b"/" {
                own
            } else {
                own.strip_prefix(root)?
            };
            let mount = PathBuf::from(OsStr::from_bytes(at));
            let mut parent = mount.clone();
            let parts = own
                .split(|b| *b == b'/')
                .take_while(|part| *part != ours)
                .filter(|part| !part.is_empty());
            parts.for_each(|part| parent.push(OsStr::from_bytes(part)));
            if parent
                .parent()
                .and_then(Path::file_name)
                .is_some_and(|above| above == SLICE)
            {
                parent.pop();
            }
            Some(Hierarchy {
                counts,
                mount,
                parent,
            })
        })
        .collect();
    found.sort_by_key(|hierarchy| hierarchy.counts == Some(CgroupKind::Unified));
    found
}

/// The path of this process in the hierarchy of a controller (v2: none), from `/proc/self/cgroup`.
fn own_path<'a>(text: &'a [u8], controller: &[u8]) -> Option<&'a [u8]> {
    lines(text).find_map(|line| {
        let mut parts = line.splitn(3, |b| *b == b':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let meant = controllers
            .split(|b| *b == b',')
            .any(|name| name == controller);
        // A group that was removed while it had processes.
        (meant && !path.ends_with(b" (deleted)") && !path.starts_with(b"/..")).then_some(path)
    })
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| *b == b'\n').filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_and_the_own_place_in_them_are_read() {
        let mounts = b"31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            35 31 0:32 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n\
            39 31 0:36 /docker/1 /sys/fs/cgroup/pids rw,nosuid shared:7 master:1 - cgroup cgroup rw,pids\n\xff\n";
        let own =
            b"8:pids:/docker/1/a b\n4:memory:/docker/1\n0::/acc.slice/acc.service/acc-1/shop\n";
        let at = |path: &str| PathBuf::from(format!("/sys/fs/cgroup/{path}"));
        let of = |counts, mount: &str, parent: &str| Hierarchy {
            counts,
            mount: at(mount),
            parent: at(parent),
        };
        assert_eq!(
            hierarchies(mounts, own, b"acc-1"),
            [
                of(None, "memory", "memory"),
                of(Some(CgroupKind::Pids), "pids", "pids/a b"),
                of(Some(CgroupKind::Unified), "unified", "unified/acc.slice"),
            ]
        );
        let other = b"0::/system.slice/other.service/acc-1/shop\n";
        assert_eq!(
            hierarchies(mounts, other, b"acc-1"),
            [of(
                Some(CgroupKind::Unified),
                "unified",
                "unified/system.slice/other.service"
            )]
        );
        assert_eq!(
            hierarchies(mounts, b"0::/../other\n8:pids:/elsewhere\n", b"acc-1"),
            []
        );
        assert_eq!(hierarchies(b"", own, b"acc-1"), []);
    }
}
