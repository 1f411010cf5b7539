//! Points at which a test may kill acc or make a step fail, to check that interrupted work is
//! finished or undone.
//!
//! Only in builds with debug assertions: in a release build [`point`] is empty and cannot be
//! switched on. A debug build reads the file `fault` in the run folder (which only acc's own user
//! can write), with lines `kill NAME` or `error NAME`. A line is removed before it acts, so each
//! acts once, in the first process that reaches the point. There is no environment variable,
//! because the supervisor sets the server's environment.

use std::io;
use std::path::Path;

/// Every point, in the order in which the verbs reach them. A new step of a verb gets a new point
/// here, and `tests/crash` tries all of them.
pub const POINTS: &[&str] = &[
    "create.insert",
    "create.row",
    "create.files",
    "create.owner",
    "create.edge",
    "create.made",
    "create.started",
    "create.done",
    "undo.stopped",
    "undo.condemned",
    "destroy.begun",
    "destroy.stopped",
    "destroy.phase",
    "destroy.supervisor",
    "destroy.edge",
    "destroy.done",
    "purge.begun",
    "remove.supervisor",
    "remove.gate",
    "remove.edge",
    "remove.socket",
    "remove.folder",
    "remove.logs",
    "remove.row",
    "remove.done",
    "effect.spawn",
    "effect.spawned",
    "effect.watch",
    "effect.probe",
    "effect.open_gate",
    "effect.close_gate",
    "effect.count",
    "effect.end_streams",
    "effect.terminate",
    "effect.kill",
    "effect.arm",
    "effect.record",
];

/// The step named by `name` has just been done (for `effect.*`: is about to be).
///
/// # Errors
/// Only in a debug build, and only when a test asked for it.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_run: &Path, _name: &'static str) -> io::Result<()> {
    Ok(())
}

/// The step named by `name` has just been done (for `effect.*`: is about to be).
///
/// # Errors
/// When a test asked for it.
#[cfg(debug_assertions)]
pub fn point(run: &Path, name: &'static str) -> io::Result<()> {
    debug_assert!(POINTS.contains(&name), "`{name}` is not in POINTS");
    let file = run.join("fault");
    // No fault was requested: the usual case.
    let Ok(text) = std::fs::read_to_string(&file) else {
        return Ok(());
    };
    let (mine, rest): (Vec<&str>, Vec<&str>) = text
        .lines()
        .partition(|line| line.split_once(' ').is_some_and(|(_, at)| at == name));
    let Some((word, _)) = mine.first().and_then(|line| line.split_once(' ')) else {
        return Ok(());
    };
    super::fs::write_atomic(&file, rest.join("\n").as_bytes(), 0o600)?;
    match word {
        "kill" => {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
            Err(io::Error::other("killed"))
        }
        _ => Err(io::Error::other(format!("a fault put in at `{name}`"))),
    }
}

/// Whether to stop the next launcher right before it becomes the program, as if its user had sent
/// it SIGSTOP. The line for it is `stop launch`, and acts once.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn stops_launch(_run: &Path) -> bool {
    false
}

/// Whether to stop the next launcher right before it becomes the program, as if its user had sent
/// it SIGSTOP. The line for it is `stop launch`, and acts once.
#[cfg(debug_assertions)]
pub fn stops_launch(run: &Path) -> bool {
    let file = run.join("fault");
    let Ok(text) = std::fs::read_to_string(&file) else {
        return false;
    };
    let (mine, rest): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| *line == "stop launch");
    !mine.is_empty() && super::fs::write_atomic(&file, rest.join("\n").as_bytes(), 0o600).is_ok()
}

#[cfg(test)]
mod tests {
    #[cfg(debug_assertions)]
    #[test]
    fn a_line_acts_once_and_only_at_its_point() {
        use super::point;

        let dir = tempfile::tempdir().unwrap();
        point(dir.path(), "create.row").unwrap();
        std::fs::write(
            dir.path().join("fault"),
            "error create.row\nerror create.files\n",
        )
        .unwrap();
        point(dir.path(), "create.edge").unwrap();
        assert!(
            point(dir.path(), "create.row")
                .unwrap_err()
                .to_string()
                .contains("create.row")
        );
        point(dir.path(), "create.row").unwrap();
        point(dir.path(), "create.files").unwrap_err();
        point(dir.path(), "create.files").unwrap();
    }
}
