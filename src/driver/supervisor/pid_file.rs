//! Pid files: which process runs under a name, with its start time and boot, so that another acc
//! finds it and never takes another program for it.
//!
//! Format: `PID START_TIME BOOT_ID LOG`. A file with only a pid was written by the child itself
//! before its first instruction; its parent died before it completed the file. Reading removes
//! nothing: another acc may be writing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::domain::instance::Process;
use crate::domain::name::InstanceName;
use crate::host::fs::make_dir;
use crate::host::process;

use super::SupervisorError;

/// One pid file, possibly incomplete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PidRecord {
    pub(super) pid: i32,
    /// Start time and boot; `None`: the parent died before it wrote them.
    pub(super) rest: Option<(u64, String)>,
    /// Where its output goes.
    pub(super) log: Option<PathBuf>,
}

/// The pid file of an instance.
pub(super) fn instance_file(pid_dir: &Path, name: &InstanceName) -> PathBuf {
    pid_dir.join(format!("{name}.pid"))
}

/// The pid file of a service: no instance can have an underscore in its name.
pub(super) fn service_file(pid_dir: &Path, name: &str) -> PathBuf {
    pid_dir.join(format!("service_{name}.pid"))
}

/// The instances that have a pid file, in order.
pub(super) fn instances(pid_dir: &Path) -> Result<Vec<InstanceName>, SupervisorError> {
    let mut names: Vec<InstanceName> = files(pid_dir)?
        .iter()
        .filter_map(|file| InstanceName::parse(file.file_stem()?.to_str()?).ok())
        .collect();
    names.sort();
    Ok(names)
}

/// All pid files, of instances and services; none if the folder is missing.
pub(super) fn files(pid_dir: &Path) -> Result<Vec<PathBuf>, SupervisorError> {
    let failed = |source| SupervisorError::File {
        action: "read",
        path: pid_dir.to_owned(),
        source,
    };
    let entries = match fs::read_dir(pid_dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "pid") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Reads a pid file; `None`: it is missing or still empty.
pub(super) fn read(path: &Path) -> Result<Option<PidRecord>, SupervisorError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(parse(&text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SupervisorError::File {
            action: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

pub(super) fn parse(text: &str) -> Option<PidRecord> {
    let mut words = text.trim_end_matches('\n').splitn(4, ' ');
    let pid = words.next()?.parse().ok().filter(|pid| *pid > 1)?;
    let rest = words
        .next()
        .and_then(|start| start.parse().ok())
        .zip(words.next().map(str::to_owned));
    Some(PidRecord {
        pid,
        rest,
        log: words
            .next()
            .filter(|log| !log.is_empty())
            .map(PathBuf::from),
    })
}

/// The text of a pid file for this process of the current boot.
pub(super) fn text(process: Process, log: &Path) -> String {
    format!(
        "{} {} {} {}\n",
        process.pid,
        process.start_time,
        this_boot(),
        log.display()
    )
}

/// Returns the process of this pid file if it is alive and still the same.
pub(super) fn living(path: &Path) -> Result<Option<Process>, SupervisorError> {
    living_of(read(path)?)
}

/// The same from the text of a pid file.
pub(super) fn living_by(text: &str) -> Result<Option<Process>, SupervisorError> {
    living_of(parse(text))
}

fn living_of(record: Option<PidRecord>) -> Result<Option<Process>, SupervisorError> {
    let Some(record) = record else {
        return Ok(None);
    };
    let asked = |source: io::Error| SupervisorError::Unreachable {
        what: format!("the kernel about process {}", record.pid),
        why: source.to_string(),
    };
    let Some(seen) = process::stat(record.pid)
        .map_err(asked)?
        .filter(|seen| !seen.zombie)
    else {
        return Ok(None);
    };
    let meant = match &record.rest {
        Some((start_time, boot)) => seen.start_time == *start_time && boot == this_boot(),
        // Written by the child itself, which led its own session by then.
        None => seen.session == record.pid,
    };
    Ok(meant.then_some(Process {
        pid: record.pid,
        start_time: seen.start_time,
    }))
}

/// Returns the process of this pid file, alive or not.
pub(super) fn process(path: &Path) -> Result<Option<Process>, SupervisorError> {
    Ok(read(path)?.and_then(|r| {
        r.rest.map(|(start_time, _)| Process {
            pid: r.pid,
            start_time,
        })
    }))
}

/// Whether the pid file names this process, alive or not.
pub(super) fn is_of(path: &Path, process: Process) -> Result<bool, SupervisorError> {
    Ok(read(path)?.is_some_and(|r| {
        r.pid == process.pid
            && r.rest
                .is_none_or(|(start_time, _)| start_time == process.start_time)
    }))
}

/// Writes the pid file of this process if it lives, and there is none or one of a process that has
/// ended; `true`: it did. An empty one is a start's.
pub(super) fn restore(path: &Path, process: Process, log: &Path) -> Result<bool, SupervisorError> {
    let asked = |why: io::Error| SupervisorError::Unreachable {
        what: format!("the kernel about process {}", process.pid),
        why: why.to_string(),
    };
    let is_start = fs::metadata(path).is_ok_and(|found| found.len() == 0);
    if is_start || living(path)?.is_some() || !process::is_same(process).map_err(asked)? {
        return Ok(false);
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    make_dir(dir, 0o700).map_err(|source| SupervisorError::File {
        action: "make",
        path: dir.to_owned(),
        source,
    })?;
    replace(path, text(process, log).as_bytes(), 0o600).map(|()| true)
}

/// Removes a pid file; a missing one is success.
pub(super) fn remove(path: &Path) -> Result<(), SupervisorError> {
    crate::host::fs::remove_file(path).map_err(|source| SupervisorError::File {
        action: "remove",
        path: path.to_owned(),
        source,
    })
}

/// Writes a second file and renames it, without syncing: these files need not survive a power cut,
/// and a sync would cost a wake several milliseconds.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SupervisorError> {
    use std::io::Write as _;
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let written = (|| {
        crate::host::fs::make_file(&beside, mode)?.write_all(bytes)?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.map_err(|source| SupervisorError::File {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

/// The id of the current boot.
pub(super) fn this_boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(process::boot_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Process {
        process::by_pid(i32::try_from(std::process::id()).unwrap())
            .unwrap()
            .unwrap()
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let log = Path::new("/a b/app.log");
        let record = parse(&text(me(), log)).unwrap();
        assert_eq!((record.pid, record.log.as_deref()), (me().pid, Some(log)));
        assert_eq!(record.rest.unwrap().0, me().start_time);
        assert_eq!(
            parse("123"),
            Some(PidRecord {
                pid: 123,
                rest: None,
                log: None
            })
        );
        for nothing in ["", "\n", "x", "-1", "0", "1 5 boot /log", "12x 3"] {
            assert_eq!(parse(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn only_the_very_process_of_this_boot_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.pid");
        assert_eq!(living(&file).unwrap(), None);
        replace(&file, text(me(), Path::new("/log")).as_bytes(), 0o600).unwrap();
        assert_eq!(living(&file).unwrap(), Some(me()));
        assert!(is_of(&file, me()).unwrap());
        let pid = me().pid;
        for stale in [
            format!("{pid} {} {} /log\n", me().start_time + 1, this_boot()),
            format!("{pid} {} another-boot /log\n", me().start_time),
            "2147483647 1 boot /log\n".to_owned(),
            String::new(),
        ] {
            replace(&file, stale.as_bytes(), 0o600).unwrap();
            assert_eq!(living(&file).unwrap(), None, "{stale}");
        }
        assert!(file.exists(), "looking removes nothing");
    }

    #[test]
    fn a_bare_pid_must_lead_its_session() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.pid");
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        replace(&file, child.id().to_string().as_bytes(), 0o600).unwrap();
        assert_eq!(living(&file).unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_not_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a.pid")).unwrap();
        assert!(living(&dir.path().join("a.pid")).is_err());
    }

    #[test]
    fn a_lost_record_of_a_living_process_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid/a.pid");
        assert!(restore(&file, me(), Path::new("/log")).unwrap());
        assert_eq!(living(&file).unwrap(), Some(me()));
        assert!(
            !restore(&file, me(), Path::new("/log")).unwrap(),
            "there is one"
        );
        fs::write(&file, "2147483646 1 boot /log\n").unwrap();
        assert!(
            restore(&file, me(), Path::new("/log")).unwrap(),
            "that one has ended"
        );
        fs::write(&file, "").unwrap();
        assert!(
            !restore(&file, me(), Path::new("/log")).unwrap(),
            "a start is in progress"
        );
        remove(&file).unwrap();
        assert!(
            !restore(
                &file,
                Process {
                    start_time: 1,
                    ..me()
                },
                Path::new("/log")
            )
            .unwrap(),
            "it has ended"
        );
        assert!(!file.exists());
    }

    #[test]
    fn services_and_leftovers_are_no_instances() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "shop.pid",
            "service_nginx.pid",
            "shop.new",
            "b-1.pid",
            "Upper.pid",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<String> = instances(dir.path())
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["b-1", "shop"]);
        assert_eq!(instances(&dir.path().join("missing")).unwrap(), []);
    }
}
