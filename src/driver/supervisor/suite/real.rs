//! What needs real processes: exact environment, groups, users, logs, errors, crashes of acc and of
//! supervisord.

mod daemon;

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use super::*;
use crate::host::process;
use crate::host::spawn::UserIds;

macro_rules! for_real {
    ($($test:ident),* $(,)?) => {
        mod builtin { $(#[tokio::test] async fn $test() { super::$test(super::Fixture::builtin()).await; })* }
        mod supervisord {
            $(#[tokio::test] async fn $test() {
                let Some(fixture) = super::Fixture::supervisord().await else { return };
                super::$test(fixture).await;
            })*
        }
    };
}

mod adoption;
mod launch;
mod sockets;

for_real![
    environment_arguments_and_folder_arrive_byte_for_byte,
    random_values_arrive_byte_for_byte,
    output_goes_to_the_log,
    a_stop_ends_the_whole_group,
    what_the_leader_leaves_behind_is_killed,
    an_exit_at_once_is_an_exit_and_not_a_failed_start,
    a_program_that_cannot_run_is_named,
    a_process_that_runs_as_another_user_is_only_that,
    a_changed_program_is_started_as_it_is_now,
    many_start_at_once,
    a_stop_right_after_the_start_is_not_lost,
];

pub(super) async fn read_eventually(path: PathBuf) -> Vec<u8> {
    let name = path.display().to_string();
    eventually(&name, async || {
        fs::read(&path).ok().filter(|bytes| !bytes.is_empty())
    })
    .await
}

/// Starts a shell that writes down what it was given, and compares.
async fn arrives(fixture: &Fixture, env: Vec<(String, String)>, args: Vec<String>) {
    let script = "/bin/cat /proc/$$/environ > env; /bin/cat /proc/$$/cmdline > args; pwd -P > dir";
    let mut a = program("a", fixture.dir(), &["/bin/sh", "-c", script, "sh"]);
    a.argv.extend(args);
    a.env = env;
    let run = fixture.supervisor().start(&a).await.unwrap();
    let exit = fixture
        .supervisor()
        .wait(&a.name, &a.account, &run)
        .await
        .unwrap();
    assert_eq!(exit, Exit::Code(0), "{:?}", fs::read_to_string(&a.log));
    let text = |name: &str| String::from_utf8(fs::read(fixture.dir().join(name)).unwrap()).unwrap();
    let mut got: Vec<String> = text("env")
        .split_terminator('\0')
        .map(str::to_owned)
        .collect();
    let mut wanted: Vec<String> = a.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    got.sort();
    wanted.sort();
    assert_eq!(got, wanted);
    assert_eq!(
        text("args").split_terminator('\0').collect::<Vec<_>>(),
        a.argv
    );
    assert_eq!(text("dir").trim_end(), fixture.dir().display().to_string());
    fixture
        .supervisor()
        .forget(&a.name, &a.account)
        .await
        .unwrap();
}

async fn environment_arguments_and_folder_arrive_byte_for_byte(fixture: Fixture) {
    let nasty = [
        "",
        " ",
        "a b",
        " leading",
        "trailing ",
        "it's",
        "\"quoted\"",
        "'quoted'",
        "both \" and '",
        "'",
        "\"",
        "\\",
        "\\\\",
        "ends\\",
        "a ;b",
        "a #b",
        ";",
        "#",
        "; c",
        "%",
        "%%",
        "%(here)s",
        "%(program_name)s",
        "%(ENV_PATH)s",
        "100 %s",
        "%%(here)s",
        "$HOME",
        "${HOME}",
        "${ACC0}",
        "$(id)",
        "`id`",
        "a=b",
        "a,b=c",
        "{\"k\": \"it's; 5%\"}",
        "two\nlines",
        "\n",
        "\ttab\r\n",
        "é 日本 \u{1f600}",
        "a\u{a0};b",
        "a\u{2028}#b",
        "*",
        "~",
        "!",
        "-u",
        "--",
        "\\c",
        "\\_",
        "[program:x]",
        "key = value",
        "\u{feff}bom",
    ];
    let env = nasty
        .iter()
        .enumerate()
        .map(|(n, v)| (format!("V{n}"), (*v).to_owned()));
    let odd = [
        ("a.b-c", "odd name"),
        ("PATH", "/own/path"),
        ("HOME", "/h"),
        ("SUPERVISOR_ENABLED", "mine"),
        ("ACC0", "also mine"),
    ];
    let env = env
        .chain(odd.map(|(k, v)| (k.to_owned(), v.to_owned())))
        .collect();
    arrives(&fixture, env, nasty.map(str::to_owned).to_vec()).await;
    arrives(&fixture, Vec::new(), Vec::new()).await;
}

async fn random_values_arrive_byte_for_byte(fixture: Fixture) {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let piece = "(%\\(here\\)s|%|\"|'|;|#| |\\\\|\\$|\\{|\\}|=|,|\n|\t|[a-z]|é|\\PC){0,12}";
    for _ in 0..4 {
        let values = proptest::collection::vec(piece, 60)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let env = values
            .iter()
            .enumerate()
            .map(|(n, v)| (format!("V{n}"), v.clone()))
            .collect();
        arrives(&fixture, env, values).await;
    }
}

async fn output_goes_to_the_log(fixture: Fixture) {
    let a = program(
        "a",
        fixture.dir(),
        &["/bin/sh", "-c", "echo out; echo err >&2; exit 0"],
    );
    for times in 1..=2 {
        let run = fixture.supervisor().start(&a).await.unwrap();
        fixture
            .supervisor()
            .wait(&a.name, &a.account, &run)
            .await
            .unwrap();
        eventually("both lines in the log", async || {
            let text = fs::read_to_string(&a.log).unwrap_or_default();
            (text == "out\nerr\n".repeat(times)).then_some(())
        })
        .await;
    }
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(
        fs::metadata(&a.log).unwrap().permissions().mode() & 0o777,
        0o640
    );
    // Not by way of a supervisor, whose death would break it.
    let b = program("b", fixture.dir(), &["/bin/sleep", "60"]);
    let run = fixture.supervisor().start(&b).await.unwrap();
    for number in [1, 2] {
        eventually("output that goes directly to the log", async || {
            let leads = fs::read_link(format!("/proc/{}/fd/{number}", run.process().unwrap().pid))
                .unwrap_or_default();
            (leads == b.log).then_some(())
        })
        .await;
    }
    fixture
        .supervisor()
        .kill(&b.name, &b.account, &run)
        .await
        .unwrap();
    fixture
        .supervisor()
        .wait(&b.name, &b.account, &run)
        .await
        .unwrap();
}

pub(super) fn pid_in(bytes: &[u8]) -> i32 {
    String::from_utf8_lossy(bytes).trim().parse().unwrap()
}

pub(super) async fn gone(pid: i32) {
    eventually("the end of a grandchild", async || {
        process::start_time(pid).unwrap().is_none().then_some(())
    })
    .await;
}

async fn a_stop_ends_the_whole_group(fixture: Fixture) {
    let s = fixture.supervisor();
    let a = program(
        "a",
        fixture.dir(),
        &[
            "/bin/sh",
            "-c",
            "sleep 1000 & echo $! > child.new; mv child.new child; wait",
        ],
    );
    for by_kill in [false, true] {
        let run = s.start(&a).await.unwrap();
        let child = pid_in(&read_eventually(fixture.dir().join("child")).await);
        if by_kill {
            s.kill(&a.name, &a.account, &run).await.unwrap()
        } else {
            s.terminate(&a, &run).await.unwrap()
        }
        let signal = if by_kill {
            libc::SIGKILL
        } else {
            libc::SIGTERM
        };
        assert_eq!(
            s.wait(&a.name, &a.account, &run).await.unwrap(),
            Exit::Signal(signal)
        );
        gone(child).await;
        fs::remove_file(fixture.dir().join("child")).unwrap();
    }
}

async fn what_the_leader_leaves_behind_is_killed(fixture: Fixture) {
    let s = fixture.supervisor();
    let script = "(trap '' TERM HUP; exec sleep 1000) & echo $! > child; exit 4";
    let a = program("a", fixture.dir(), &["/bin/sh", "-c", script]);
    let run = s.start(&a).await.unwrap();
    assert_eq!(
        s.wait(&a.name, &a.account, &run).await.unwrap(),
        Exit::Code(4)
    );
    gone(pid_in(&read_eventually(fixture.dir().join("child")).await)).await;
    // The name is free again although a grandchild held the log open.
    let again = program("a", fixture.dir(), &["/bin/sh", "-c", "exit 5"]);
    let run = s.start(&again).await.unwrap();
    assert_eq!(
        s.wait(&a.name, &a.account, &run).await.unwrap(),
        Exit::Code(5)
    );
}

async fn an_exit_at_once_is_an_exit_and_not_a_failed_start(fixture: Fixture) {
    let s = fixture.supervisor();
    for (command, exit) in [
        ("exit 0", Exit::Code(0)),
        ("exit 3", Exit::Code(3)),
        ("kill -9 $$", Exit::Signal(9)),
    ] {
        for _ in 0..5 {
            let a = program("a", fixture.dir(), &["/bin/sh", "-c", command]);
            let run = s.start(&a).await.unwrap();
            let reported = s.wait(&a.name, &a.account, &run).await.unwrap();
            // supervisord can have reaped it before acc could read the exit status, and reports
            // only that a signal ended it, not which.
            let unreported = fixture.is_supervisord()
                && matches!(exit, Exit::Signal(_))
                && reported == Exit::Unknown;
            assert!(reported == exit || unreported, "{command}: {reported}");
        }
    }
}

async fn a_program_that_cannot_run_is_named(fixture: Fixture) {
    let s = fixture.supervisor();
    fs::write(fixture.dir().join("data"), "x").unwrap();
    let nowhere = Program {
        dir: fixture.dir().join("gone"),
        ..program("a", fixture.dir(), &["/bin/true"])
    };
    let nobody = Program {
        account: Account::User {
            name: "no-such-user-of-acc".into(),
            uid: 65_533,
            gid: 65_533,
        },
        ..program("a", fixture.dir(), &["/bin/true"])
    };
    let mut bad = vec![
        (
            program("a", fixture.dir(), &["/no/such/program"]),
            "`/no/such/program`: no such file or directory",
        ),
        (
            program("a", fixture.dir(), &["./data"]),
            "data` is not executable",
        ),
        (nowhere, "gone`: no such file or directory"),
    ];
    if crate::host::spawn::may_change_user() {
        bad.push((nobody, "there is no user `no-such-user-of-acc`"));
    }
    for (a, expected) in bad {
        let error = s.start(&a).await.unwrap_err();
        assert!(
            matches!(error, SupervisorError::NotStarted { .. }),
            "{error:?}"
        );
        let text = error.to_string();
        assert!(
            text.starts_with("could not start `a`: ") && text.contains(expected),
            "{text}"
        );
        assert_eq!(s.find(&a.name).await.unwrap(), None);
    }
    // Nothing of it is in the way of others, nor of itself once it is right.
    let good = obedient("a", &fixture, 0);
    s.start(&good).await.unwrap();
    s.start(&obedient("b", &fixture, 0)).await.unwrap();
}

/// The account of `nobody`, which has these numbers.
fn account_of(nobody: &UserIds) -> Account {
    Account::User {
        name: "nobody".into(),
        uid: nobody.uid,
        gid: nobody.gid,
    }
}

async fn a_process_that_runs_as_another_user_is_only_that(fixture: Fixture) {
    if !crate::host::spawn::may_change_user() {
        println!("skipped: only root can start a process as another user");
        return;
    }
    let nobody = crate::host::spawn::user_ids("nobody").unwrap().unwrap();
    let a = Program {
        account: account_of(&nobody),
        ..program(
            "a",
            fixture.dir(),
            &[
                "/bin/sh",
                "-c",
                "grep -E '^(Uid|Gid|Groups):' /proc/self/status",
            ],
        )
    };
    let run = fixture.supervisor().start(&a).await.unwrap();
    assert_eq!(
        fixture
            .supervisor()
            .wait(&a.name, &a.account, &run)
            .await
            .unwrap(),
        Exit::Code(0)
    );
    let text = eventually("all lines", async || {
        fs::read_to_string(&a.log)
            .ok()
            .filter(|t| t.contains("Groups:"))
    })
    .await;
    let numbers = |line: &str| -> Vec<u32> {
        let line = text.lines().find(|l| l.starts_with(line)).unwrap();
        line.split_whitespace()
            .skip(1)
            .map(|n| n.parse().unwrap())
            .collect()
    };
    assert_eq!(numbers("Uid:"), [nobody.uid; 4]);
    assert_eq!(numbers("Gid:"), [nobody.gid; 4]);
    assert!(!numbers("Groups:").contains(&0), "{text}");
}

async fn a_changed_program_is_started_as_it_is_now(fixture: Fixture) {
    let s = fixture.supervisor();
    for code in [1, 2, 2, 3] {
        let a = program(
            "a",
            fixture.dir(),
            &["/bin/sh", "-c", &format!("exit {code}")],
        );
        let run = s.start(&a).await.unwrap();
        assert_eq!(
            s.wait(&a.name, &a.account, &run).await.unwrap(),
            Exit::Code(code)
        );
    }
}

async fn a_stop_right_after_the_start_is_not_lost(fixture: Fixture) {
    let (s, a) = (fixture.supervisor(), obedient("a", &fixture, 0));
    for round in 0..30 {
        let run = s.start(&a).await.unwrap();
        if round % 2 == 0 {
            s.kill(&a.name, &a.account, &run).await.unwrap()
        } else {
            s.terminate(&a, &run).await.unwrap()
        }
        let ended =
            tokio::time::timeout(Duration::from_secs(10), s.wait(&a.name, &a.account, &run)).await;
        assert_eq!(
            ended.unwrap().unwrap(),
            Exit::Signal(if round % 2 == 0 {
                libc::SIGKILL
            } else {
                libc::SIGTERM
            })
        );
    }
}

async fn many_start_at_once(fixture: Fixture) {
    let s = fixture.supervisor();
    let starts: Vec<_> = (0..40)
        .map(|n| {
            let (s, a) = (Arc::clone(&s), obedient(&format!("a{n}"), &fixture, 0));
            tokio::spawn(async move { s.start(&a).await.unwrap() })
        })
        .collect();
    let mut pids = std::collections::HashSet::new();
    for start in starts {
        pids.insert(start.await.unwrap().process().unwrap().pid);
    }
    assert_eq!(pids.len(), 40);
    assert_eq!(s.running().await.unwrap().len(), 40);
}

#[tokio::test]
async fn builtin_inherits_nothing() {
    let fixture = Fixture::builtin();
    // A descriptor that acc may have inherited from its parent: not close-on-exec.
    let inherited = nix::unistd::dup(std::io::stdin()).unwrap();
    let a = obedient("a", &fixture, 0);
    let run = fixture.supervisor().start(&a).await.unwrap();
    fixture.count(&a.name).await;
    let fds: Vec<(i32, PathBuf)> = fs::read_dir(format!("/proc/{}/fd", run.process().unwrap().pid))
        .unwrap()
        .filter_map(|e| {
            e.ok().and_then(|e| {
                Some((
                    e.file_name().to_str()?.parse().ok()?,
                    fs::read_link(e.path()).ok()?,
                ))
            })
        })
        .collect();
    assert!(
        fds.iter()
            .all(|(fd, _)| *fd <= 2 || *fd != inherited.as_raw_fd()),
        "{fds:?}"
    );
    let of = |wanted: i32| fds.iter().find(|(fd, _)| *fd == wanted).unwrap().1.clone();
    assert_eq!(of(0), PathBuf::from("/dev/null"));
    assert_eq!((of(1), of(2)), (a.log.clone(), a.log.clone()));
}
