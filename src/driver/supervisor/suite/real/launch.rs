//! The start of a process: what it must not inherit, what it may use, and launchers that fail.

use std::fs;

use super::*;
use crate::host::cgroup::Cgroups;
use crate::host::limits::{GroupLimits, OpenFiles, ProcessLimits};

for_real![
    it_begins_in_a_session_of_its_own_without_rights,
    its_limits_are_those_of_the_program,
    all_its_processes_together_have_their_limits,
    a_launcher_that_is_stopped_holds_up_nobody,
];

/// A shell that prints its own state.
fn teller(fixture: &Fixture) -> Program {
    program(
        "a",
        fixture.dir(),
        &[
            "/bin/sh",
            "-c",
            "cat /proc/self/status /proc/self/limits; echo oom $(cat /proc/self/oom_score_adj); echo over",
        ],
    )
}

async fn reported(fixture: &Fixture, a: &Program) -> String {
    let run = fixture.supervisor().start(a).await.unwrap();
    let exit = fixture
        .supervisor()
        .wait(&a.name, &a.account, &run)
        .await
        .unwrap();
    let text = eventually("all lines", async || {
        fs::read_to_string(&a.log)
            .ok()
            .filter(|t| t.ends_with("over\n"))
    })
    .await;
    assert_eq!(exit, Exit::Code(0), "{text}");
    fs::remove_file(&a.log).unwrap();
    text
}

/// The rest of the line that begins so.
fn line<'a>(text: &'a str, begin: &str) -> Vec<&'a str> {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix(begin))
        .unwrap_or_else(|| panic!("no {begin:?} in {text}"));
    rest.split_whitespace().collect()
}

async fn it_begins_in_a_session_of_its_own_without_rights(fixture: Fixture) {
    let mut accounts = vec![Account::SameAsAcc];
    if crate::host::spawn::may_change_user() {
        let nobody = crate::host::spawn::user_ids("nobody").unwrap().unwrap();
        accounts.push(account_of(&nobody));
    }
    let own = fs::read_to_string("/proc/self/oom_score_adj")
        .unwrap()
        .trim()
        .parse::<i32>()
        .unwrap();
    for account in accounts {
        let a = Program {
            account,
            umask: 0o027,
            ..teller(&fixture)
        };
        let text = reported(&fixture, &a).await;
        for (key, value) in [("NoNewPrivs:", "1"), ("Umask:", "0027")] {
            assert_eq!(line(&text, key), [value], "{key} of {text}");
        }
        let mut sets = vec![
            "CapInh:", "CapPrm:", "CapEff:", "CapAmb:", "SigBlk:", "SigIgn:",
        ];
        if crate::host::spawn::may_change_user() {
            sets.push("CapBnd:");
        }
        for set in sets {
            assert_eq!(line(&text, set), ["0000000000000000"], "{set} of {text}");
        }
        assert_eq!(line(&text, "oom "), [(own + 200).min(1000).to_string()]);
    }
    let a = obedient("a", &fixture, 0);
    let run = fixture.supervisor().start(&a).await.unwrap();
    eventually("a session of its own", async || {
        (process::stat(run.process().unwrap().pid).unwrap()?.session == run.process().unwrap().pid)
            .then_some(())
    })
    .await;
    assert_eq!(
        process::stat(run.process().unwrap().pid)
            .unwrap()
            .unwrap()
            .group,
        run.process().unwrap().pid
    );
}

async fn its_limits_are_those_of_the_program(fixture: Fixture) {
    let open_files = Some(OpenFiles {
        soft: 321,
        hard: 654,
    });
    let a = Program {
        limits: ProcessLimits {
            open_files,
            file_size: Some(1 << 20),
            core: Some(0),
        },
        ..teller(&fixture)
    };
    let text = reported(&fixture, &a).await;
    assert_eq!(line(&text, "Max open files")[..2], ["321", "654"]);
    assert_eq!(line(&text, "Max file size")[..2], ["1048576", "1048576"]);
    assert_eq!(line(&text, "Max core file size")[..2], ["0", "0"]);
    // More than this process may have is as much as it may have; root may have any.
    let more = Some(OpenFiles::exactly(
        OpenFiles::own().hard.saturating_add(1).min(1 << 20),
    ));
    let a = Program {
        limits: ProcessLimits {
            open_files: more,
            ..ProcessLimits::default()
        },
        ..teller(&fixture)
    };
    let has: u64 = line(&reported(&fixture, &a).await, "Max open files")[0]
        .parse()
        .unwrap();
    assert!(has >= OpenFiles::own().hard.min(1 << 20), "{has}");
}

async fn all_its_processes_together_have_their_limits(fixture: Fixture) {
    let s = fixture.supervisor();
    let env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    let run = |script: &str, group: GroupLimits| Program {
        env: env.clone(),
        group,
        ..program("a", fixture.dir(), &["/bin/sh", "-c", script])
    };
    let groups = Cgroups::find(fixture.pid_dir().parent().unwrap());
    let kept = |limits: &GroupLimits| {
        groups
            .as_ref()
            .is_ok_and(|groups| groups.missing(limits).is_empty())
    };
    let ended = async |a: &Program| {
        let run = s.start(a).await.unwrap();
        s.wait(&a.name, &a.account, &run).await.unwrap()
    };
    let many = "i=0; while [ $i -lt 30 ]; do sleep 1000 & i=$((i+1)); done; exit 0";
    let few = GroupLimits {
        processes: Some(10),
        memory: None,
    };
    if kept(&few) {
        assert_eq!(
            ended(&run(many, few)).await,
            Exit::Code(2),
            "the shell cannot fork"
        );
        assert!(
            fs::read_to_string(fixture.dir().join("log/app.log"))
                .unwrap()
                .contains("fork")
        );
    } else {
        println!("skipped: no control groups that count processes");
    }
    // The next one has its own.
    assert_eq!(
        ended(&run(
            many,
            GroupLimits {
                processes: Some(1000),
                memory: None
            }
        ))
        .await,
        Exit::Code(0)
    );
    // The reader keeps all of a line that does not end.
    let hungry = "head -c 200000000 /dev/zero | tail -n 1 >/dev/null";
    let little = GroupLimits {
        processes: None,
        memory: Some(50 << 20),
    };
    if kept(&little) {
        assert_eq!(
            ended(&run(hungry, little)).await,
            Exit::Code(137),
            "the kernel kills it"
        );
    } else {
        println!("skipped: no control groups that limit memory");
    }
    assert_eq!(
        ended(&run(hungry, GroupLimits::default())).await,
        Exit::Code(0)
    );
}

/// As its user could do it, between the change of the user and the program.
#[cfg(debug_assertions)]
async fn a_launcher_that_is_stopped_holds_up_nobody(fixture: Fixture) {
    let s = fixture.supervisor();
    let stop = || {
        fs::write(
            fixture.pid_dir().parent().unwrap().join("fault"),
            "stop launch\n",
        )
        .unwrap()
    };
    fs::create_dir_all(fixture.pid_dir()).unwrap();
    let a = obedient("a", &fixture, 0);
    let stopped = |run: Process| matches!(process::stat(run.pid), Ok(Some(seen)) if seen.stopped);
    stop();
    if fixture.is_supervisord() {
        // supervisord does not wait for it: it is an instance that does not begin, and is killed as
        // any other.
        let run = s.start(&a).await.unwrap();
        eventually("the launcher to be stopped", async || {
            stopped(run.process().unwrap()).then_some(())
        })
        .await;
        s.start(&obedient("b", &fixture, 0)).await.unwrap();
        s.kill(&a.name, &a.account, &run).await.unwrap();
        assert_eq!(
            s.wait(&a.name, &a.account, &run).await.unwrap(),
            Exit::Signal(libc::SIGKILL)
        );
    } else {
        let starting = tokio::spawn({
            let (s, a) = (fixture.again(), a.clone());
            async move { s.start(&a).await }
        });
        let pid_file = fixture.pid_dir().join("a.pid");
        let run = eventually("a record of the launcher", async || {
            pid_file::living(&pid_file).unwrap()
        })
        .await;
        eventually("the launcher to be stopped", async || {
            stopped(run).then_some(())
        })
        .await;
        s.start(&obedient("b", &fixture, 0)).await.unwrap();
        let error = starting.await.unwrap().unwrap_err().to_string();
        assert!(
            error.starts_with("could not start `a`: it was stopped by a signal before"),
            "{error}"
        );
        assert_eq!(process::by_pid(run.pid).unwrap(), None);
    }
    assert_eq!(s.find(&a.name).await.unwrap(), None);
    let run = s.start(&a).await.unwrap();
    fixture.finish(&a.name, Exit::Code(0));
    assert_eq!(
        s.wait(&a.name, &a.account, &run).await.unwrap(),
        Exit::Code(0)
    );
}

#[cfg(not(debug_assertions))]
async fn a_launcher_that_is_stopped_holds_up_nobody(_: Fixture) {}
