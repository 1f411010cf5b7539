//! Is what the database says true? Phases, processes, operations, files.

use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::support::{Fixture, processes, run, wait_until};

/// Longest time until every phase is true again after any fault.
pub const SETTLED: Duration = Duration::from_secs(30);

/// Everything that is wrong, in sentences.
pub fn faults(fixture: &Fixture) -> Vec<String> {
    let mut faults = Vec::new();
    let listed = run::run(
        &mut fixture.command(&["list", "--json"]),
        Duration::from_secs(20),
    );
    let Ok(Value::Array(rows)) = serde_json::from_str(&listed.out) else {
        return vec![format!("`acc list` failed: {listed:?}")];
    };
    let running = processes::of(&fixture.dir);
    let of = |name: &str| {
        let word = format!("--name {name} ");
        running
            .iter()
            .filter(|p| format!("{} ", p.command).contains(&word))
            .map(|p| p.pid)
            .collect::<Vec<_>>()
    };
    for row in &rows {
        let name = row["name"].as_str().unwrap();
        let (phase, pid, found) = (
            row["phase"].as_str().unwrap(),
            row["pid"].as_i64(),
            of(name),
        );
        match phase {
            "awake" if found.len() == 1 && pid == Some(i64::from(found[0])) => {}
            "asleep" | "failed" | "destroyed" if found.is_empty() => {}
            _ => faults.push(format!(
                "`{name}` is {phase} with pid {pid:?}, and what runs of it is {found:?}"
            )),
        }
    }
    let named = |p: &processes::Seen| {
        p.command
            .split_once("--name ")
            .map(|(_, rest)| rest.split(' ').next().unwrap().to_owned())
    };
    for process in &running {
        if let Some(name) = named(process).filter(|n| !rows.iter().any(|r| r["name"] == n.as_str()))
        {
            faults.push(format!(
                "process {} runs for `{name}`, which there is not",
                process.pid
            ));
        }
    }
    for (name, kind) in unfinished(fixture) {
        faults.push(format!("a \"{kind}\" of `{name}` still runs"));
    }
    faults
}

/// The operations that run: of which instance, and what.
pub fn unfinished(fixture: &Fixture) -> Vec<(String, String)> {
    let path = fixture.home().join("acc.db");
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    let mut statement = connection
        .prepare("SELECT name, kind FROM operations WHERE state = 'running'")
        .unwrap();
    let rows = statement
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
        .unwrap();
    rows.map(Result::unwrap).collect()
}

/// Waits until nothing is wrong; `fix` is called between two checks and may act (such as a monitor
/// run where there is no server).
#[track_caller]
pub fn becomes_true(fixture: &Fixture, mut fix: impl FnMut()) {
    wait_until("every phase is true", SETTLED, || {
        let faults = faults(fixture);
        if faults.is_empty() {
            return Ok(());
        }
        fix();
        Err(format!("{faults:#?}"))
    });
}

/// No row, file, text, process or port of the instance is left, and it can be created again.
#[track_caller]
pub fn gone(fixture: &Fixture, name: &str) {
    fixture.acc(&["info", name]).error(3);
    let mut left = vec![];
    wait_until("no process is left of it", SETTLED, || {
        left = processes::of(&fixture.dir);
        crate::support::wait::holds(
            !left.iter().any(|p| p.command.contains(name)),
            format!("{left:#?}"),
        )
    });
    assert!(!fixture.instance(name).exists(), "its folder is left");
    fixture.assert_no_trace_of(name);
    assert_eq!(unfinished(fixture), []);
}

/// The process that runs verbs: it holds the owner's lock and has written its process id there.
pub fn working(fixture: &Fixture) -> Option<i32> {
    let pid = std::fs::read_to_string(fixture.run().join("owner.lock"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    processes::look(pid)
        .filter(|p| p.command.ends_with("server") || p.command.contains(" worker "))
        .map(|p| p.pid)
}

/// Ends the server for good: from now on commands do their work themselves.
#[track_caller]
pub fn without_server(fixture: &Fixture) {
    if fixture.combination.supervisor == "supervisord" {
        let config = fixture.dir.join("ctl.conf");
        std::fs::write(
            &config,
            format!(
                "[supervisorctl]\nserverurl = unix://{}/supervisor.sock\n",
                fixture.run().display()
            ),
        )
        .unwrap();
        let mut stop = std::process::Command::new("supervisorctl");
        run::run(
            stop.arg("-c").arg(config).args(["stop", "acc_server"]),
            SETTLED,
        )
        .ok();
    } else {
        fixture.wait_server(None);
        fixture.kill_server();
    }
    // A monitor run restarts dead programs only while acc is booted.
    for folder in [fixture.home(), fixture.run()] {
        std::fs::remove_file(folder.join("booted")).unwrap();
    }
    wait_until("the server is gone", SETTLED, || {
        let left = working(fixture).or(fixture.server().map(|s| s.pid));
        left.map_or(Ok(()), |pid| Err(format!("process {pid} is there")))
    });
}
