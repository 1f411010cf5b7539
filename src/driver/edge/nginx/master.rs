//! The running nginx: its master process, its workers, and whether a reload succeeded.
//!
//! The master is found by its pid file, or among all processes if that is missing. It is accepted
//! only if the process is an nginx that uses our configuration.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::regular;
use crate::host::command_line::{self, of as title};
use crate::host::fs::write_atomic;
use crate::host::process;

/// Time limit for new workers to start: with 100,000 hosts they need a fifth of a second.
const RELOAD_LIMIT: Duration = Duration::from_secs(20);

/// The master process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NginxMaster {
    /// Its pid.
    pub pid: i32,
}

/// The workers at one moment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Workers {
    /// Have not set their title yet.
    starting: BTreeSet<i32>,
    serving: BTreeSet<i32>,
    leaving: BTreeSet<i32>,
}

/// Finds the master that runs with `config`; `None`: none runs. `nginx -t` leaves a pid file
/// without a number.
pub fn find(pid_file: &Path, config: &Path) -> io::Result<Option<NginxMaster>> {
    if let Some(pid) = noted(pid_file)?
        && title(pid)?.is_some_and(|t| is_ours(&t, config))
    {
        return Ok(Some(NginxMaster { pid }));
    }
    search(config)
}

/// Reads the number in a pid file.
fn noted(pid_file: &Path) -> io::Result<Option<i32>> {
    match regular::read_to_string(pid_file) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Searches all processes for a master of this user whose title contains the full path of our
/// configuration. The pid file may be missing or rewritten by `nginx -t`.
fn search(config: &Path) -> io::Result<Option<NginxMaster>> {
    let wanted = format!(" -c {} ", config.display());
    let is_it = |pid: &i32| {
        let Ok(Some(title)) = title(*pid) else {
            return false;
        };
        title.starts_with("nginx: master process ")
            && format!("{title} ").contains(&wanted)
            && command_line::is_of_this_host(*pid)
    };
    Ok(process::pids()?.find(is_it).map(|pid| NginxMaster { pid }))
}

/// Whether this is the title of a master that was started with `-c CONFIG`. nginx truncates its
/// title if it does not fit.
fn is_ours(title: &str, config: &Path) -> bool {
    let Some(argv) = title.strip_prefix("nginx: master process ") else {
        return false;
    };
    let config = config.to_string_lossy();
    argv.split_once(" -c ").is_some_and(|(_, rest)| {
        !rest.is_empty() && (rest.starts_with(config.as_ref()) || config.starts_with(rest))
    })
}

/// Ends workers whose master has died. They would continue to serve with the old configuration and
/// hold the ports that a new master needs. They are identified by the error log they have open, and
/// finish their requests.
pub fn end_orphans(error_log: &Path) -> io::Result<usize> {
    let log = fs::canonicalize(error_log).unwrap_or_else(|_| error_log.to_owned());
    let mut ended = 0;
    for pid in process::pids()? {
        let worker = title(pid)
            .ok()
            .flatten()
            .is_some_and(|t| t.starts_with("nginx: worker process"));
        if worker
            && process::has_open(pid, &log)
            && !has_master(pid)
            && kill(Pid::from_raw(pid), Signal::SIGQUIT).is_ok()
        {
            // Expected after a crash; the operator need not act.
            tracing::info!(pid, "ending an nginx worker whose master is gone");
            ended += 1;
        }
    }
    Ok(ended)
}

fn has_master(pid: i32) -> bool {
    let parent = process::stat(pid).ok().flatten().map(|seen| seen.parent);
    parent
        .and_then(|p| title(p).ok().flatten())
        .is_some_and(|t| t.starts_with("nginx: master process"))
}

impl NginxMaster {
    /// Rewrites its pid file if that does not name it; returns `true` if it did.
    pub fn note(self, pid_file: &Path) -> io::Result<bool> {
        if noted(pid_file)? == Some(self.pid) {
            return Ok(false);
        }
        write_atomic(pid_file, format!("{}\n", self.pid).as_bytes(), 0o644).map(|()| true)
    }

    /// Makes it reload its configuration. Resolves when all new connections are served by new
    /// workers: those run, and the old ones have closed their listening sockets. `Err(why)`: the
    /// reload failed.
    pub async fn reload(self, error_log: &Path) -> Result<(), String> {
        let before = self
            .workers()
            .map_err(|e| format!("could not check nginx's workers: {e}"))?;
        let log_end = fs::metadata(error_log).map_or(0, |m| m.len());
        kill(Pid::from_raw(self.pid), Signal::SIGHUP)
            .map_err(|e| format!("could not signal nginx (process {}): {e}", self.pid))?;
        let arrived = async {
            let mut pause = Duration::from_millis(1);
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 3 / 2).min(Duration::from_millis(50));
                let now = self
                    .workers()
                    .map_err(|e| format!("could not check nginx's workers: {e}"))?;
                if took_over(&before, &now) {
                    return Ok(());
                }
                if let Some(line) = emergency(error_log, log_end) {
                    return Err(line);
                }
            }
        };
        let late = || {
            Err(format!(
                "its new workers did not start within {} s",
                RELOAD_LIMIT.as_secs()
            ))
        };
        tokio::time::timeout(RELOAD_LIMIT, arrived)
            .await
            .unwrap_or_else(|_| late())
    }

    /// The master and all its children.
    pub fn processes(self) -> io::Result<Vec<i32>> {
        let mut all = process::children(self.pid)?;
        all.push(self.pid);
        Ok(all)
    }

    fn workers(self) -> io::Result<Workers> {
        let mut found = Workers::default();
        for pid in process::children(self.pid)? {
            match title(pid)? {
                Some(t) if t.starts_with("nginx: worker process is") => found.leaving.insert(pid),
                Some(t) if t.starts_with("nginx: worker process") => found.serving.insert(pid),
                // It still shows its master's title.
                _ => found.starting.insert(pid),
            };
        }
        Ok(found)
    }
}

/// Whether new workers serve and no old one does. A worker that was starting before is an old one:
/// it has read the former configuration.
fn took_over(before: &Workers, now: &Workers) -> bool {
    !now.serving.is_empty()
        && now.serving.is_disjoint(&before.serving)
        && now.serving.is_disjoint(&before.starting)
}

/// The first message of level `emerg` that was logged after `from`.
pub fn emergency(error_log: &Path, from: u64) -> Option<String> {
    let mut file = fs::File::open(error_log).ok()?;
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut text = Vec::new();
    file.take(64 * 1024).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .find_map(|l| l.split_once("[emerg] "))
        .map(|(_, why)| why.split_once(": ").map_or(why, |(_, why)| why).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_master_with_our_file_is_ours() {
        let conf = Path::new("/srv/a/nginx/nginx.conf");
        assert!(is_ours(
            "nginx: master process /usr/sbin/nginx -c /srv/a/nginx/nginx.conf -g daemon off;",
            conf
        ));
        assert!(is_ours(
            "nginx: master process /usr/sbin/nginx -c /srv/a/nginx/ngin",
            conf
        ));
        assert!(!is_ours(
            "nginx: master process /usr/sbin/nginx -c /etc/nginx/nginx.conf",
            conf
        ));
        assert!(!is_ours("nginx: master process /usr/sbin/nginx", conf));
        assert!(!is_ours("nginx: worker process", conf));
        assert!(!is_ours(
            "vim nginx: master process -c /srv/a/nginx/nginx.conf",
            conf
        ));
    }

    #[test]
    fn a_reload_is_through_when_no_old_worker_serves() {
        let w = |serving: &[i32], leaving: &[i32]| Workers {
            starting: BTreeSet::new(),
            serving: serving.iter().copied().collect(),
            leaving: leaving.iter().copied().collect(),
        };
        let before = w(&[1, 2], &[]);
        assert!(!took_over(&before, &w(&[1, 2], &[])));
        assert!(!took_over(&before, &w(&[1, 2, 3], &[])));
        assert!(!took_over(&before, &w(&[2, 3, 4], &[1])));
        assert!(!took_over(&before, &w(&[], &[1, 2])));
        assert!(took_over(&before, &w(&[3, 4], &[1, 2])));
        assert!(took_over(&before, &w(&[3, 4], &[])));
        // Just after nginx was started.
        let before = Workers {
            starting: [2].into(),
            ..w(&[1], &[])
        };
        assert!(!took_over(&before, &w(&[1, 2], &[])));
        assert!(!took_over(&before, &w(&[2], &[1])));
        assert!(!took_over(&before, &w(&[2, 3, 4], &[1])));
        assert!(took_over(&before, &w(&[3, 4], &[1, 2])));
    }

    #[test]
    fn a_stale_pid_file_names_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let conf = Path::new("/x/nginx.conf");
        assert_eq!(find(&file, conf).unwrap(), None);
        for text in [
            "",
            "x",
            "0",
            "-1",
            "2147483647",
            &std::process::id().to_string(),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(find(&file, conf).unwrap(), None, "{text}");
        }
    }
}
