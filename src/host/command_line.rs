//! Finds a process by its command line, for when its pid file was removed.
//!
//! It changes nothing. It ignores processes of other users or with another root folder: a container
//! on this host may run the same command with the same path.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use nix::errno::Errno;

use crate::domain::instance::Process;

use super::process;

/// The command line of a process, its arguments separated by blanks; `None`: no such process.
///
/// # Errors
/// `/proc` cannot be read.
pub fn of(pid: i32) -> io::Result<Option<String>> {
    match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(bytes) => Ok(Some(
            String::from_utf8_lossy(&bytes)
                .replace('\0', " ")
                .trim_end()
                .to_owned(),
        )),
        Err(e)
            if e.kind() == io::ErrorKind::NotFound
                || e.raw_os_error() == Some(Errno::ESRCH as i32) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Whether it runs as acc's user and sees the same files.
#[must_use]
pub fn is_of_this_host(pid: i32) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let root =
        |of: &str| fs::metadata(format!("/proc/{of}/root")).map(|data| (data.dev(), data.ino()));
    fs::metadata(format!("/proc/{pid}")).is_ok_and(|data| data.uid() == own)
        && match (root("self"), root(&pid.to_string())) {
            (Ok(own), Ok(its)) => own == its,
            // If the root folder cannot be read, assume the same one.
            _ => true,
        }
}

/// Finds the process that was started with these arguments, the program first. Also finds one that
/// shows them after a title of its own, as nginx's master does (`nginx: master process
/// /usr/sbin/nginx -c …`). Returns the oldest of several.
///
/// # Errors
/// `/proc` cannot be read.
pub fn find(argv: &[String]) -> io::Result<Option<Process>> {
    let wanted = argv.join(" ");
    let titled = format!(" process {wanted}");
    let runs_it = |pid: &i32| {
        matches!(of(*pid), Ok(Some(line)) if line == wanted || line.ends_with(&titled))
            && is_of_this_host(*pid)
    };
    let found = process::pids()?
        .filter(runs_it)
        .filter_map(|pid| process::by_pid(pid).ok().flatten());
    Ok(found.min_by_key(|found| found.start_time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_by_all_of_its_arguments() {
        let argv = |last: &str| ["sleep", "1000", last].map(str::to_owned).to_vec();
        let own = format!("0.{}1", std::process::id());
        let mut child = std::process::Command::new("sleep")
            .args(&argv(&own)[1..])
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // It shows this process's command line until it has become its program.
        while of(pid)
            .unwrap()
            .is_none_or(|line| !line.starts_with("sleep"))
        {
            std::thread::yield_now();
        }
        assert_eq!(find(&argv(&own)).unwrap().map(|found| found.pid), Some(pid));
        assert_eq!(find(&argv(&format!("{own}1"))).unwrap(), None);
        assert_eq!(find(&argv(&own[..own.len() - 1])).unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(find(&argv(&own)).unwrap(), None);
    }
}
