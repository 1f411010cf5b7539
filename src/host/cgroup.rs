//! Control groups: one for each running instance, so that everything it starts is known to belong
//! to it, is limited together, and can be ended.
//!
//! A process cannot leave its group unless it may write to the kernel's files, which belong to
//! root. acc makes folders below its own group, named after its installation, and touches no
//! others. The hierarchy of `pids` (cgroup v1, also beside v2) is preferred: to join it takes about
//! 50 µs, where v2 waits for a grace period of the kernel, 10 ms. It never decides when something
//! ends.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

use rustix::fs::{Access, AtFlags, CWD};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::cgroup_mounts::{Hierarchy, hierarchies};
use super::fs::{make_dir, write_atomic};
use super::limits::GroupLimits;

pub use super::cgroup_mounts::CgroupKind;

/// The groups of one installation.
#[derive(Debug)]
pub struct Cgroups {
    kind: CgroupKind,
    /// Made by acc; contains a folder for each instance.
    dir: PathBuf,
    /// The same in the hierarchy of `memory` of cgroup v1, if that is mounted.
    memory: Option<PathBuf>,
    /// The file that stores both, so that every acc of this installation finds them, whichever
    /// group it runs in.
    note: PathBuf,
    /// Held while the folder for the groups is made: only the first starts since the boot contend
    /// for it.
    beginning: Mutex<()>,
    /// Limits were enabled for the groups below.
    enabled: Once,
    /// It was logged that a limit cannot be set.
    limit_reported: Once,
}

impl Cgroups {
    /// Finds the place of the groups of the installation with this `run` folder.
    ///
    /// # Errors
    /// No group can be made; the text says why.
    pub fn find(run: &Path) -> Result<Self, String> {
        Self::find_of(run, &[CgroupKind::Pids, CgroupKind::Unified])
    }

    /// The same for these kinds only.
    ///
    /// # Errors
    /// See [`Self::find`].
    pub fn find_of(run: &Path, kinds: &[CgroupKind]) -> Result<Self, String> {
        let note = run.join("cgroup");
        let name = format!("acc-{:016x}", hash(run.as_os_str().as_bytes()));
        let read = |path: &str| fs::read(path).map_err(|e| format!("`{path}` cannot be read: {e}"));
        let hierarchies = hierarchies(
            &read("/proc/self/mountinfo")?,
            &read("/proc/self/cgroup")?,
            name.as_bytes(),
        );
        let usable: Vec<(CgroupKind, &Hierarchy)> = hierarchies
            .iter()
            .filter_map(|h| Some((h.counts?, h)))
            .filter(|(kind, _)| kinds.contains(kind))
            .collect();
        // Where they were before, if that still exists: running processes are in them.
        if let Ok(noted) = fs::read(&note) {
            let mut paths = noted
                .split(|byte| *byte == 0)
                .map(|path| PathBuf::from(OsString::from_vec(path.to_vec())));
            let ours = |dir: &PathBuf| {
                dir.file_name().is_some_and(|last| last == name.as_str()) && dir.is_dir()
            };
            let dir = paths.next().unwrap_or_default();
            let kind = usable
                .iter()
                .find(|(_, h)| dir.starts_with(&h.mount))
                .map(|(kind, _)| *kind);
            if let Some(kind) = kind.filter(|_| ours(&dir)) {
                return Ok(Self::of(kind, dir, paths.next().filter(ours), note));
            }
        }
        let writable = |h: &Hierarchy| {
            let may = rustix::fs::accessat(CWD, &h.parent, Access::WRITE_OK, AtFlags::EACCESS);
            may.map_err(|e| format!("`{}`: {e}", h.parent.display()))
        };
        let memory = hierarchies
            .iter()
            .find(|h| h.counts.is_none() && writable(h).is_ok())
            .map(|h| h.parent.join(&name));
        let mut why = "no hierarchy of control groups is mounted".to_owned();
        for (kind, hierarchy) in usable {
            match writable(hierarchy) {
                Ok(()) => return Ok(Self::of(kind, hierarchy.parent.join(&name), memory, note)),
                Err(not) => why = not,
            }
        }
        Err(why)
    }

    fn of(kind: CgroupKind, dir: PathBuf, memory: Option<PathBuf>, note: PathBuf) -> Self {
        Self {
            kind,
            dir,
            memory,
            note,
            beginning: Mutex::new(()),
            enabled: Once::new(),
            limit_reported: Once::new(),
        }
    }

    /// The hierarchy in use.
    #[must_use]
    pub fn kind(&self) -> CgroupKind {
        self.kind
    }

    /// The folder that contains all of them.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Which of these limits cannot be enforced here, by the name of the kernel's controller.
    #[must_use]
    pub fn missing(&self, limits: &GroupLimits) -> Vec<&'static str> {
        let parent = self.dir.parent().unwrap_or(&self.dir);
        let given = || {
            fs::read_to_string(self.dir.join("cgroup.controllers"))
                .or_else(|_| fs::read_to_string(parent.join("cgroup.controllers")))
        };
        let has = |controller: &str| {
            self.kind == CgroupKind::Unified
                && given().is_ok_and(|all| all.split_whitespace().any(|c| c == controller))
        };
        let pids = limits.processes.is_some() && self.kind != CgroupKind::Pids && !has("pids");
        let memory = limits.memory.is_some() && self.memory.is_none() && !has("memory");
        [(pids, "pids"), (memory, "memory")]
            .into_iter()
            .filter_map(|(misses, name)| misses.then_some(name))
            .collect()
    }

    /// The group of this name, which may not exist.
    #[must_use]
    pub fn group(&self, name: &str) -> Group {
        Group {
            kind: self.kind,
            dir: self.dir.join(name),
            memory: self.memory.as_ref().map(|dir| dir.join(name)),
        }
    }

    /// Makes the group of this name with these limits. `false`: it existed.
    ///
    /// A limit that cannot be set is logged, and the group works without it: see [`Self::missing`].
    pub fn make(&self, name: &str, limits: &GroupLimits) -> io::Result<bool> {
        let group = self.group(name);
        let new = match make(&group.dir) {
            Ok(new) => new,
            // The first one since the host booted.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.begin()?;
                make(&group.dir)?
            }
            Err(e) => return Err(e),
        };
        if !new || limits.processes.is_some() {
            // A kill may have forbidden it to fork.
            self.limit(&group.dir, "pids.max", limits.processes, new);
        }
        if let Some(bytes) = limits.memory {
            self.limit_memory(&group, bytes);
        }
        Ok(new)
    }

    /// Records the folder for the groups, then makes it.
    fn begin(&self) -> io::Result<()> {
        let _alone = self
            .beginning
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.dir.is_dir() {
            return Ok(());
        }
        let memory = self
            .memory
            .as_ref()
            .map(|dir| dir.as_os_str().as_bytes())
            .unwrap_or_default();
        make_dir(self.note.parent().unwrap_or(Path::new("/")), 0o755)?;
        write_atomic(
            &self.note,
            &[self.dir.as_os_str().as_bytes(), memory].join(&0),
            0o600,
        )?;
        make(&self.dir).map(drop)
    }

    /// Enables limits for the groups below (cgroup v2). The kernel refuses this for a group that
    /// has processes of its own, and a host may lack controllers: a failure shows when a limit is
    /// set.
    fn enable(&self) {
        for dir in [self.dir.parent(), Some(self.dir.as_path())]
            .into_iter()
            .flatten()
        {
            for controller in ["+pids", "+memory"] {
                let _ = write(&dir.join("cgroup.subtree_control"), controller);
            }
        }
    }

    fn limit(&self, dir: &Path, file: &str, wanted: Option<u64>, new: bool) {
        let path = dir.join(file);
        let value = wanted.map_or_else(|| "max".to_owned(), |count| count.to_string());
        let set = match write(&path, &value) {
            Err(e) if is_missing(&e) && self.kind == CgroupKind::Unified && wanted.is_some() => {
                self.enabled.call_once(|| self.enable());
                write(&path, &value)
            }
            done => done,
        };
        if let Err(error) = set
            && (wanted.is_some() || !new)
        {
            self.tell(&path, &error);
        }
    }

    fn tell(&self, path: &Path, error: &io::Error) {
        self.limit_reported
            .call_once(|| tracing::warn!(path = %path.display(), %error, "cannot set a limit of `[limits]`; instances run without it"));
    }

    /// Swap is included: an instance must not evade its memory limit by swapping.
    fn limit_memory(&self, group: &Group, bytes: u64) {
        if let Some(dir) = &group.memory {
            let made = match make(dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => self
                    .memory
                    .as_deref()
                    .map_or(Err(e), |all| make(all).and_then(|_| make(dir))),
                done => done,
            };
            let value = bytes.to_string();
            let swap = dir.join("memory.memsw.limit_in_bytes");
            // The limit of both together must not be less than that of memory alone.
            let _ = write(&swap, "-1");
            let set = made.and_then(|_| write(&dir.join("memory.limit_in_bytes"), &value));
            let _ = write(&swap, &value);
            // Data in TCP buffers uses memory of the host, too.
            let _ = write(&dir.join("memory.kmem.tcp.limit_in_bytes"), &value);
            if let Err(error) = set {
                self.tell(dir, &error);
            }
        } else {
            self.limit(&group.dir, "memory.max", Some(bytes), true);
            let _ = write(&group.dir.join("memory.swap.max"), "0");
        }
    }

    /// Removes the folder for the groups and the file that stores it, if all groups are empty;
    /// otherwise removes nothing.
    pub fn close(&self) {
        for dir in [Some(&self.dir), self.memory.as_ref()]
            .into_iter()
            .flatten()
        {
            for group in folders(dir).unwrap_or_default() {
                let _ = fs::remove_dir(group);
            }
        }
        if fs::remove_dir(&self.dir).is_ok() {
            let _ = self.memory.as_ref().map(fs::remove_dir);
            let _ = fs::remove_file(&self.note);
        }
    }

    /// The names of all existing groups.
    pub fn names(&self) -> io::Result<Vec<String>> {
        Ok(folders(&self.dir)?
            .iter()
            .filter_map(|dir| Some(dir.file_name()?.to_str()?.to_owned()))
            .collect())
    }
}

/// The group of one instance.
#[derive(Debug, Clone)]
pub struct Group {
    kind: CgroupKind,
    dir: PathBuf,
    /// Made only for an instance with a memory limit.
    memory: Option<PathBuf>,
}

impl Group {
    /// A single-threaded process joins by writing `0` to these files; only those that exist are
    /// listed.
    #[must_use]
    pub fn join_files(&self, limits: &GroupLimits) -> Vec<PathBuf> {
        // `tasks` moves one thread, without the kernel's lock for forks and exits; v2 has no such
        // file.
        let first = self.dir.join(if self.kind == CgroupKind::Pids {
            "tasks"
        } else {
            "cgroup.procs"
        });
        let memory = self
            .memory
            .as_ref()
            .filter(|dir| limits.memory.is_some() && dir.is_dir())
            .map(|dir| dir.join("tasks"));
        [Some(first), memory].into_iter().flatten().collect()
    }

    /// The processes in it and in groups below it, in no order; none if it does not exist.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let (mut found, mut left) = (Vec::new(), vec![self.dir.clone()]);
        while let Some(dir) = left.pop() {
            match fs::read(dir.join("cgroup.procs")) {
                Ok(text) => found.extend(
                    text.split(|b| *b == b'\n')
                        .filter_map(|line| std::str::from_utf8(line).ok()?.parse::<i32>().ok()),
                ),
                Err(e) if is_gone(&e) => continue,
                Err(e) => return Err(e),
            }
            left.extend(folders(&dir)?);
        }
        // 0 stands for a process of another pid namespace.
        found.retain(|pid| *pid > 0);
        Ok(found)
    }

    /// Kills every process in it, including those forked meanwhile. They may take a moment to end.
    pub fn kill(&self) -> io::Result<()> {
        if self.kind == CgroupKind::Unified {
            match write(&self.dir.join("cgroup.kill"), "1") {
                Ok(()) => return Ok(()),
                Err(e) if is_gone(&e) && !self.dir.exists() => return Ok(()),
                // Linux before 5.14: freeze them all, then kill each.
                Err(_) => drop(write(&self.dir.join("cgroup.freeze"), "1")),
            }
        } else {
            // From now on none may fork.
            let _ = write(&self.dir.join("pids.max"), "0");
        }
        let killed = self.kill_each();
        if self.kind == CgroupKind::Unified {
            let _ = write(&self.dir.join("cgroup.freeze"), "0");
        }
        killed
    }

    fn kill_each(&self) -> io::Result<()> {
        let held: Vec<_> = self
            .processes()?
            .into_iter()
            .filter_map(|pid| {
                Some((
                    pid,
                    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?,
                ))
            })
            .collect();
        // Read again: a pid still in the group belongs to the process that was opened before.
        let still = self.processes()?;
        for (pid, held) in held {
            if still.contains(&pid) {
                match pidfd_send_signal(held.as_fd(), Signal::KILL) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(())
    }

    /// Removes it with the groups below it, unless it has processes.
    pub fn remove(&self) -> io::Result<()> {
        for below in folders(&self.dir)? {
            Self {
                kind: self.kind,
                dir: below,
                memory: None,
            }
            .remove()?;
        }
        for dir in [Some(&self.dir), self.memory.as_ref()]
            .into_iter()
            .flatten()
        {
            match fs::remove_dir(dir) {
                Err(e) if !is_gone(&e) => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Makes a folder. `false`: it existed.
fn make(dir: &Path) -> io::Result<bool> {
    match fs::DirBuilder::new().mode(0o755).create(dir) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    }
}

/// Writes to a file of the kernel, which is never created.
fn write(path: &Path, value: &str) -> io::Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

fn is_missing(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound
}

fn is_gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV)
}

fn folders(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|e| e.path())
            .collect()),
        Err(e) if is_gone(&e) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// FNV-1a: the same for every acc, independent of the compiler.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_folders_have_two_names_that_never_change() {
        assert_eq!(hash(b"/run/acc"), hash(b"/run/acc"));
        assert_ne!(hash(b"/run/acc"), hash(b"/run/acd"));
    }

    #[test]
    fn the_first_groups_may_be_made_at_once() {
        let run = tempfile::tempdir().unwrap();
        let Ok(groups) = Cgroups::find(run.path()) else {
            return println!("skipped: no control groups on this host");
        };
        let limits = GroupLimits {
            processes: Some(100),
            memory: None,
        };
        std::thread::scope(|scope| {
            let starts: Vec<_> = (0..16)
                .map(|n: u32| {
                    scope.spawn({
                        let (groups, limits) = (&groups, &limits);
                        move || groups.make(&n.to_string(), limits)
                    })
                })
                .collect();
            let made: Vec<_> = starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect();
            assert!(made.iter().all(|made| matches!(made, Ok(true))), "{made:?}");
        });
        let again = Cgroups::find(run.path()).unwrap();
        assert_eq!(
            (again.dir(), again.names().unwrap().len()),
            (groups.dir(), 16)
        );
        groups.close();
        assert!(!groups.dir().exists() && !run.path().join("cgroup").exists());
    }
}
