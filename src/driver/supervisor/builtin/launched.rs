//! Starts a launcher from acc itself, and reports whether it succeeded.
//!
//! The launcher writes to a pipe why it could not become its program; if it could, the pipe is
//! closed without a message. Until then the user it runs as can stop it. So acc waits for it
//! asynchronously, and kills it if it was stopped.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

use super::super::launcher::place;
use super::super::pid_file;
use crate::domain::instance::Process;
use crate::host::{process, spawn};

/// How often to check a launcher that has not become its program yet. It usually needs less than a
/// millisecond.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Time limit on an overloaded host.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a killed launcher may take to disappear.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// Longest message.
const REASON_MAX: u64 = 4096;

/// Starts a launcher that follows this request and has this pid file. Read its report to the end.
pub(super) fn start(
    spec: &[u8],
    pid_file: &File,
    standin: &[String],
) -> io::Result<(Process, Receiver)> {
    let (report, to_acc) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&report, true)?;
    let files = || -> io::Result<[Stdio; 3]> {
        let spec = place::memory("acc-launch", MemfdFlags::empty(), spec)?;
        Ok([
            spec.into(),
            pid_file.try_clone()?.into(),
            OwnedFd::try_clone(&to_acc)?.into(),
        ])
    };
    let dash = "-".to_owned();
    let in_memory = place::in_memory()
        .map(|launcher| spawn::spawn(&launcher, std::slice::from_ref(&dash), files()?));
    let process = match (in_memory, standin) {
        (Some(Ok(process)), _) => process,
        // Execution from memory is forbidden, or this kernel has no such files.
        (Some(Err(e)), [program, args @ ..]) if e.kind() == io::ErrorKind::PermissionDenied => {
            spawn::spawn(program, &[args, &[dash]].concat(), files()?)?
        }
        (Some(Err(e)), _) => return Err(e),
        (None, [program, args @ ..]) => spawn::spawn(program, &[args, &[dash]].concat(), files()?)?,
        (None, []) => return Err(io::Error::from(io::ErrorKind::Unsupported)),
    };
    Ok((process, Receiver::from_owned_fd(report)?))
}

/// Waits until this launcher has become its program. An end of the process counts as the end of the
/// program. The error says why it could not; the launcher has ended by then.
pub(super) async fn became_program(process: Process, report: Receiver) -> Result<(), String> {
    let mut said = Vec::new();
    let mut report = report.take(REASON_MAX);
    let reading = report.read_to_end(&mut said);
    tokio::pin!(reading);
    let mut waited = Duration::ZERO;
    loop {
        match tokio::time::timeout(CHECK_EVERY, &mut reading).await {
            Ok(Ok(_)) => break,
            Ok(Err(error)) => {
                kill(process).await;
                return Err(format!("could not read from its launcher: {error}"));
            }
            Err(_) => waited += CHECK_EVERY,
        }
        if is_stopped(process.pid) {
            kill(process).await;
            return Err(format!(
                "it was stopped by a signal before it had become its program, and was killed (process {})",
                process.pid
            ));
        }
        if waited >= LIMIT {
            kill(process).await;
            return Err(format!(
                "it had not become its program after {} s, and was killed (process {})",
                LIMIT.as_secs(),
                process.pid
            ));
        }
    }
    if said.is_empty() {
        return Ok(());
    }
    kill(process).await;
    let said = String::from_utf8_lossy(&said);
    let said = said.trim_end();
    Err(said
        .strip_prefix("acc: could not start ")
        .unwrap_or(said)
        .to_owned())
}

/// Kills the launcher of this pid file if it was stopped before it became its program. Until then
/// it holds the pid file open.
pub(super) fn kill_stopped(pid_file: &Path) {
    let Ok(Some(process)) = pid_file::living(pid_file) else {
        return;
    };
    // The path as the kernel shows it.
    let Ok(pid_file) = std::fs::canonicalize(pid_file) else {
        return;
    };
    if is_stopped(process.pid) && process::has_open(process.pid, &pid_file) {
        tracing::warn!(
            pid = process.pid,
            "killing a launcher that was stopped by a signal before it executed its program"
        );
        let _ = process::signal_one(process, libc::SIGKILL);
    }
}

fn is_stopped(pid: i32) -> bool {
    matches!(process::stat(pid), Ok(Some(seen)) if seen.stopped)
}

/// Kills it and waits a limited time for its end.
async fn kill(process: Process) {
    let _ = process::signal_group(process, libc::SIGKILL);
    if tokio::time::timeout(KILL_WAIT, process::ended(process))
        .await
        .is_err()
    {
        tracing::warn!(
            pid = process.pid,
            "a launcher does not exit, even after SIGKILL"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Runner as _;
    use super::super::super::suite::eventually;
    use super::super::Builtin;
    use super::*;
    use crate::domain::instance::Exit;
    use crate::domain::name::InstanceName;

    fn spec(program: &str, log: &Path, more: &str) -> String {
        format!("program={program}\0log={}\0{more}", log.display())
    }

    #[tokio::test]
    async fn what_it_could_not_become_is_told_and_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (
            File::create(dir.path().join("a.pid")).unwrap(),
            dir.path().join("log"),
        );
        for (text, why) in [
            (
                spec("/no/such/program", &log, ""),
                "`/no/such/program`: No such file or directory (os error 2)",
            ),
            (
                spec("/bin/true", &log, "dir=/no/dir\0"),
                "`/bin/true`: its folder `/no/dir`: No such file or directory (os error 2)",
            ),
            ("what=1\0".to_owned(), "`-`: `what` is not understood"),
        ] {
            let (process, report) = start(text.as_bytes(), &file, &[]).unwrap();
            assert_eq!(became_program(process, report).await.unwrap_err(), why);
            assert_eq!(process::stat(process.pid).unwrap(), None);
        }
        assert!(
            !log.exists() || std::fs::read(&log).unwrap().is_empty(),
            "it was reported twice"
        );
        let (process, report) = start(spec("/bin/true", &log, "").as_bytes(), &file, &[]).unwrap();
        became_program(process, report).await.unwrap();
        assert_eq!(process::ended(process).await.unwrap(), Exit::Code(0));
    }

    #[tokio::test]
    async fn a_stopped_launcher_that_a_dead_acc_has_left_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = File::create(dir.path().join("a.pid")).unwrap();
        rustix::fs::flock(&pid_file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let (process, report) = start(
            spec("/bin/true", &dir.path().join("log"), "stop=\0").as_bytes(),
            &pid_file,
            &[],
        )
        .unwrap();
        eventually("the launcher to be stopped", async || {
            is_stopped(process.pid).then_some(())
        })
        .await;
        // The kernel closes a dead acc's files, which unlocks none that others have too.
        drop((pid_file, report));
        let builtin = Builtin::new(dir.path().to_owned(), 1 << 20, Vec::new());
        assert_eq!(
            builtin
                .find(&InstanceName::parse("a").unwrap())
                .await
                .unwrap(),
            None
        );
        assert_eq!(
            process::ended(process).await.unwrap(),
            Exit::Signal(libc::SIGKILL)
        );
    }
}
