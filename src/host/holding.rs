//! Which sockets the processes of an instance hold, see `/proc/PID/fd` in proc(5). Only `Family`
//! decides which processes those are.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use super::process;
use super::stat::{Stat, pids};
use crate::domain::instance::Process;

/// How many ancestors of a process are followed: `/proc` is not read at one moment, and may show a
/// circle.
const GENERATIONS: usize = 64;
/// The variable that identifies the processes of an instance where there are no control groups.
const MARK: &[u8] = b"ACC_INSTANCE=";

/// The processes of an instance: the one that was started, those of its process group or session,
/// their descendants, and those of its control group. Without control groups: also those with its
/// mark in their environment.
struct Family {
    leader: Process,
    kept: OnceCell<Kept>,
}

/// What identifies a process that has left its session and lost its parent.
enum Kept {
    Group(Vec<u8>),
    Mark(Vec<u8>),
    Nothing,
}

impl Family {
    fn of(leader: Process) -> Self {
        Self {
            leader,
            kept: OnceCell::new(),
        }
    }

    /// Whether it belongs by descent, group or session; `stat` returns a process's data.
    fn has(&self, pid: i32, stat: impl Fn(i32) -> Option<Stat>) -> bool {
        let (leader, mut next) = (self.leader.pid, pid);
        for _ in 0..GENERATIONS {
            if next == leader {
                return true;
            }
            match stat(next) {
                Some(seen) if seen.group == leader || seen.session == leader => return true,
                Some(seen) if seen.parent > 1 => next = seen.parent,
                _ => return false,
            }
        }
        false
    }

    /// Whether it belongs by its control group or mark.
    fn has_kept(&self, pid: i32) -> bool {
        let leader = self.leader.pid;
        match self.kept.get_or_init(|| {
            control_group(leader)
                .map(Kept::Group)
                .or_else(|| mark(leader).map(Kept::Mark))
                .unwrap_or(Kept::Nothing)
        }) {
            Kept::Group(group) => control_group(pid).as_ref() == Some(group),
            Kept::Mark(wanted) => mark(pid).as_ref() == Some(wanted),
            Kept::Nothing => false,
        }
    }
}

/// The control group that acc has made for the instance of this process, in any hierarchy; `None`:
/// it is in none.
fn control_group(pid: i32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/cgroup"))
        .ok()?
        .split(|b| *b == b'\n')
        .find_map(of_instance)
}

/// The folder of an instance in a line of `/proc/PID/cgroup`: the one below the folder of an
/// installation, `acc-` and 16 digits.
fn of_instance(line: &[u8]) -> Option<Vec<u8>> {
    let path = line.splitn(3, |b| *b == b':').nth(2)?;
    let mut end = 0;
    let mut is_installation = false;
    for part in path.split(|b| *b == b'/') {
        end += part.len() + 1;
        if is_installation && !part.is_empty() {
            return Some(path.get(..end - 1)?.to_vec());
        }
        is_installation = part
            .strip_prefix(b"acc-")
            .is_some_and(|rest| rest.len() == 16 && rest.iter().all(u8::is_ascii_hexdigit));
    }
    None
}

/// `None` also if it cannot be read.
fn mark(pid: i32) -> Option<Vec<u8>> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment
        .split(|b| *b == 0)
        .find(|line| line.starts_with(MARK))
        .map(<[u8]>::to_vec)
}

/// The result of a search.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Sockets that no process of the instance was found to hold.
    pub left: BTreeSet<u64>,
    /// Users of those processes of the instance that this user may not inspect (`ptrace(2)`,
    /// dumpable).
    pub hidden: BTreeSet<u32>,
}

/// Searches for these sockets among the open files of the instance that `leader` leads, the
/// leader's own first.
///
/// # Errors
/// `/proc` cannot be read, or `leader` has ended: then nothing is known.
pub fn search(leader: Process, sockets: impl IntoIterator<Item = u64>) -> io::Result<Search> {
    let mut search = Search {
        left: sockets.into_iter().collect(),
        hidden: BTreeSet::new(),
    };
    take_sockets_of(leader.pid, &mut search)?;
    if !search.left.is_empty() {
        search_others(leader, &mut search)?;
    }
    // These are its own files only if the pid was not reused meanwhile.
    if process::is_same(leader)? {
        Ok(search)
    } else {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the instance's process has ended",
        ))
    }
}

/// Processes that are cheaper to find come first.
fn search_others(leader: Process, search: &mut Search) -> io::Result<()> {
    let family = Family::of(leader);
    let all: HashMap<i32, Stat> = pids()?
        .filter_map(|pid| Some((pid, process::stat(pid).ok()??)))
        .collect();
    let (near, far): (Vec<i32>, Vec<i32>) = all
        .keys()
        .filter(|pid| **pid != leader.pid)
        .partition(|pid| family.has(**pid, |pid| all.get(&pid).copied()));
    for pid in near
        .into_iter()
        .chain(far.into_iter().filter(|pid| family.has_kept(*pid)))
    {
        take_sockets_of(pid, search)?;
        if search.left.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Whether the process with this pid belongs to the instance that `leader` leads. `false` if it
/// cannot be read.
#[must_use]
pub fn belongs(pid: i32, leader: Process) -> bool {
    if !matches!(process::is_same(leader), Ok(true)) {
        return false;
    }
    let family = Family::of(leader);
    family.has(pid, |pid| process::stat(pid).ok().flatten()) || family.has_kept(pid)
}

/// Removes from the search what this process holds. An ended process holds nothing.
fn take_sockets_of(pid: i32, search: &mut Search) -> io::Result<()> {
    let dir = format!("/proc/{pid}");
    let seen = fs::read_dir(format!("{dir}/fd")).and_then(|links| {
        for link in links {
            match fs::read_link(link?.path()) {
                Ok(to) => {
                    if let Some(inode) = socket(to.as_os_str().as_bytes()) {
                        search.left.remove(&inode);
                    }
                }
                // Closed in between.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    });
    match seen {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            search.hidden.extend(user_of(pid));
            Ok(())
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => {
            Ok(())
        }
        other => other,
    }
}

/// The user of a process, from the field `Uid` of its status, because root owns the folder of a
/// process that may not be inspected.
fn user_of(pid: i32) -> Option<u32> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .split(|b| *b == b'\n')
        .find_map(|line| line.strip_prefix(b"Uid:"))?;
    let effective = line
        .split(u8::is_ascii_whitespace)
        .filter(|f| !f.is_empty())
        .nth(1)?;
    std::str::from_utf8(effective).ok()?.parse().ok()
}

/// The inode in the link of an open file, if that is a socket.
fn socket(link: &[u8]) -> Option<u64> {
    std::str::from_utf8(link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?)
        .ok()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command};

    use super::*;

    fn of(child: &Child) -> Process {
        process::by_pid(child.id().cast_signed()).unwrap().unwrap()
    }

    /// `script` by a shell that leads a group and has this as its standard input.
    fn started(listener: &TcpListener, script: &str) -> Child {
        let stdin = OwnedFd::from(listener.try_clone().unwrap());
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            .stdin(stdin)
            .stdout(std::process::Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap()
    }

    fn inode(listener: &TcpListener) -> u64 {
        fs::File::from(OwnedFd::from(listener.try_clone().unwrap()))
            .metadata()
            .unwrap()
            .ino()
    }

    /// The pid that the script prints: of the process that holds the socket.
    fn said(child: &mut Child) -> i32 {
        let mut line = String::new();
        io::BufRead::read_line(
            &mut io::BufReader::new(child.stdout.as_mut().unwrap()),
            &mut line,
        )
        .unwrap();
        line.trim().parse().unwrap()
    }

    #[test]
    fn what_a_process_or_its_descendants_hold_is_found_and_nothing_else() {
        let (one, other) = (
            TcpListener::bind("127.0.0.1:0").unwrap(),
            TcpListener::bind("127.0.0.1:0").unwrap(),
        );
        let mut holds = started(&one, "echo $$; exec sleep 60");
        // A child in a session of its own holds it; the leader itself has closed it.
        let mut child_holds = started(
            &one,
            "exec 3<&0; setsid sh -c 'echo $$; exec sleep 60' <&3 3<&- & exec </dev/null 3<&-; wait",
        );
        let holders = [&mut holds, &mut child_holds].map(said);
        for (child, holder) in [(&holds, holders[0]), (&child_holds, holders[1])] {
            let found = search(of(child), [inode(&one), inode(&other)]).unwrap();
            assert_eq!(found.left, BTreeSet::from([inode(&other)]), "{found:?}");
            assert!(belongs(of(child).pid, of(child)) && belongs(holder, of(child)));
        }
        assert!(
            !belongs(holders[0], of(&child_holds))
                && !belongs(1, of(&holds))
                && !belongs(0, of(&holds))
        );
        let gone = of(&holds);
        for pid in holders {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            )
            .unwrap();
        }
        holds.wait().unwrap();
        child_holds.wait().unwrap();
        assert!(search(gone, [1]).is_err() && !belongs(gone.pid, gone));
    }

    #[test]
    fn who_has_left_the_session_and_lost_his_parent_is_known_by_his_mark() {
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        for (mark, other, left) in [("a", "", 0), ("a", "ACC_INSTANCE=b", 1), ("", "", 1)] {
            let script = format!(
                "exec 3<&0; (setsid env {other} sh -c 'echo $$; exec sleep 60 >&-' <&3 3<&- &) ; exec sleep 60 </dev/null 3<&-"
            );
            let mut command = Command::new("/bin/sh");
            command
                .args(["-c", &script])
                .stdin(OwnedFd::from(one.try_clone().unwrap()))
                .stdout(std::process::Stdio::piped());
            if !mark.is_empty() {
                command.env("ACC_INSTANCE", mark);
            }
            let mut instance = command.process_group(0).spawn().unwrap();
            let daemon = said(&mut instance);
            // Its parent, a shell that has nothing else to do, ends.
            while process::stat(daemon).unwrap().unwrap().parent == instance.id().cast_signed() {
                std::thread::yield_now();
            }
            let leader = of(&instance);
            wait_until_execed(&instance);
            let found = search(leader, [inode(&one)]).unwrap();
            assert_eq!(
                (found.left.len(), belongs(daemon, leader)),
                (left, left == 0),
                "{mark} {other}"
            );
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(daemon),
                nix::sys::signal::Signal::SIGKILL,
            )
            .unwrap();
            instance.kill().unwrap();
            instance.wait().unwrap();
        }
    }

    /// The shell has become another program, and no longer has the socket.
    fn wait_until_execed(child: &Child) {
        while !fs::read(format!("/proc/{}/cmdline", child.id()))
            .unwrap()
            .starts_with(b"sleep")
        {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_group_of_an_instance_is_read_in_every_hierarchy() {
        let group = |line: &str| {
            of_instance(line.as_bytes()).map(|group| String::from_utf8(group).unwrap())
        };
        let shop = Some("/system.slice/acc.service/acc-0123456789abcdef/shop".to_owned());
        assert_eq!(
            group("0::/system.slice/acc.service/acc-0123456789abcdef/shop"),
            shop
        );
        assert_eq!(
            group("8:pids:/system.slice/acc.service/acc-0123456789abcdef/shop/below/it"),
            shop
        );
        for none in [
            "",
            "0::",
            "0::/",
            "0::/acc-0123456789abcdef",
            "0::/acc-0123456789abcdeX/shop",
            "0::/acc-0123/shop",
            "8:pids:/docker/1",
        ] {
            assert_eq!(group(none), None, "{none}");
        }
    }

    #[test]
    fn links_of_open_files_are_read() {
        assert_eq!(socket(b"socket:[123]"), Some(123));
        for other in [
            &b"socket:[]"[..],
            b"socket:[-1]",
            b"pipe:[123]",
            b"socket:[1",
            b"/tmp/socket:[1]",
            b"socket:[99999999999999999999]",
        ] {
            assert_eq!(socket(other), None, "{}", String::from_utf8_lossy(other));
        }
    }
}
