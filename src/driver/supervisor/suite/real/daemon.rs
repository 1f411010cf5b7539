//! What is particular to supervisord: its own life, and what happens to instances when it dies.

mod outlived;

use std::os::unix::fs::PermissionsExt as _;

use super::super::super::supervisord::{Supervisord, SupervisordSettings};
use super::*;

fn service(name: &'static str, fixture: &Fixture, script: &str) -> Service {
    Service {
        name,
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        log: fixture.dir().join(format!("log/{name}.log")),
        stop_signal: libc::SIGTERM,
        stop_timeout: Duration::from_secs(20),
    }
}

fn kill(process: Process) {
    process::signal_one(process, libc::SIGKILL).unwrap();
}

#[tokio::test]
async fn boot_and_halt_may_be_repeated() {
    let Some(fixture) = Fixture::supervisord_down() else {
        return;
    };
    let s = fixture.supervisor();
    s.halt().await.unwrap();
    assert_eq!(s.service("nginx").await.unwrap(), None);
    let services = [
        service("nginx", &fixture, "exec sleep 1000"),
        service("server", &fixture, "exec sleep 1000"),
    ];
    assert_eq!(s.boot(&services).await.unwrap(), Ensured::Started);
    let daemon = fixture.daemon().unwrap();
    let nginx = s.service("nginx").await.unwrap().unwrap();
    assert_eq!(
        fixture.again().boot(&services).await.unwrap(),
        Ensured::Already
    );
    assert_eq!(
        (fixture.daemon(), s.service("nginx").await.unwrap()),
        (Some(daemon), Some(nginx))
    );
    assert_eq!(
        fs::metadata(fixture.settings().socket)
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
    s.halt().await.unwrap();
    assert!(!fixture.is_alive(&daemon) && !fixture.is_alive(&nginx));
    s.halt().await.unwrap();
    assert_eq!(s.service("nginx").await.unwrap(), None);
    assert_eq!(s.boot(&services).await.unwrap(), Ensured::Started);
    s.halt().await.unwrap();
}

#[tokio::test]
async fn a_service_that_dies_is_started_again_and_a_changed_one_is_replaced() {
    let Some(fixture) = Fixture::supervisord_down() else {
        return;
    };
    let s = fixture.supervisor();
    let services = [
        service("nginx", &fixture, "exec sleep 1000"),
        service("server", &fixture, "exec sleep 1000"),
    ];
    s.boot(&services).await.unwrap();
    let (nginx, server) = (
        s.service("nginx").await.unwrap().unwrap(),
        s.service("server").await.unwrap().unwrap(),
    );
    kill(nginx);
    let next = eventually("the next nginx", async || {
        s.service("nginx").await.unwrap().filter(|p| *p != nginx)
    })
    .await;
    let changed = [
        service("nginx", &fixture, "exec sleep 1001"),
        services[1].clone(),
    ];
    assert_eq!(s.boot(&changed).await.unwrap(), Ensured::Already);
    let replaced = s.service("nginx").await.unwrap().unwrap();
    assert!(replaced != next && !fixture.is_alive(&next) && fixture.is_alive(&replaced));
    assert_eq!(
        s.service("server").await.unwrap(),
        Some(server),
        "the other one is left alone"
    );
    assert_eq!(s.boot(&changed[..1]).await.unwrap(), Ensured::Already);
    assert!(
        !fixture.is_alive(&server),
        "one that is not wanted any more is ended"
    );
    assert_eq!(s.service("server").await.unwrap(), None);
}

#[tokio::test]
async fn a_service_that_keeps_ending_says_so() {
    let Some(fixture) = Fixture::supervisord().await else {
        return;
    };
    let s = fixture.supervisor();
    let bad = service("nginx", &fixture, "exit 1");
    let error = eventually("the failure", async || s.ensure_service(&bad).await.err())
        .await
        .to_string();
    assert!(error.starts_with("could not start `nginx`: "), "{error}");
    let missing = Service {
        argv: vec!["/no/such/nginx".to_owned()],
        ..service("server", &fixture, "")
    };
    let error = s.ensure_service(&missing).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "could not start `server`: its program `/no/such/nginx`: no such file or directory"
    );
}

#[tokio::test]
async fn what_was_started_just_before_a_crash_of_acc_is_adopted() {
    let Some(fixture) = Fixture::supervisord().await else {
        return;
    };
    let (a, b) = (obedient("a", &fixture, 0), obedient("b", &fixture, 0));
    for (program, by_find) in [(&a, true), (&b, false)] {
        let run = fixture.supervisor().start(program).await.unwrap();
        fs::remove_file(fixture.pid_dir().join(format!("{}.pid", program.name))).unwrap();
        let next = fixture.again();
        if by_find {
            assert_eq!(next.find(&program.name).await.unwrap(), Some(run.clone()));
        } else {
            assert_eq!(next.running().await.unwrap().len(), 2);
        }
        assert_eq!(next.start(program).await.unwrap(), run);
        assert_eq!(fixture.traces(program.name.as_str()).len(), 2);
    }
    fs::remove_file(fixture.pid_dir().join("a.pid")).unwrap();
    assert_eq!(fixture.again().running().await.unwrap().len(), 2);
    fs::remove_file(fixture.pid_dir().join("a.pid")).unwrap();
    fixture.again().start(&a).await.unwrap();
    eventually("one line of each", async || {
        (fixture.count(&a.name).await == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn sections_of_sleepers_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let Some(fixture) = Fixture::supervisord_in(dir, |settings| settings.keep = 2) else {
        return;
    };
    let s = fixture.supervisor();
    s.boot(&[]).await.unwrap();
    let live = obedient("live", &fixture, 0);
    let run = s.start(&live).await.unwrap();
    for name in ["s1", "s2", "s3", "s4", "s2"] {
        let a = program(name, fixture.dir(), &["/bin/true"]);
        let run = s.start(&a).await.unwrap();
        s.wait(&a.name, &a.account, &run).await.unwrap();
    }
    s.tidy(std::slice::from_ref(&live.name)).await.unwrap();
    let kept: Vec<&str> = ["live", "s1", "s2", "s3", "s4"]
        .into_iter()
        .filter(|name| !fixture.traces(name).is_empty())
        .collect();
    assert_eq!(kept, ["live", "s2", "s4"]);
    // Named or not, what runs is not taken out.
    for _ in 0..3 {
        s.tidy(&[]).await.unwrap();
    }
    assert_eq!(s.find(&live.name).await.unwrap(), Some(run));
    let s1 = obedient("s1", &fixture, 0);
    assert!(fixture.is_alive(&s.start(&s1).await.unwrap()));
}

#[tokio::test]
async fn a_section_that_became_wrong_is_in_nobodys_way() {
    let Some(fixture) = Fixture::supervisord().await else {
        return;
    };
    let s = fixture.supervisor();
    let a = program("a", fixture.dir(), &["/bin/true"]);
    let run = s.start(&a).await.unwrap();
    s.wait(&a.name, &a.account, &run).await.unwrap();
    let text = fs::read_to_string(fixture.settings().dir.join("loaded/a.conf")).unwrap();
    let wrong = text.replace("startsecs = 0", "startsecs = many");
    fs::write(fixture.settings().dir.join("programs/a.conf"), wrong).unwrap();
    let b = obedient("b", &fixture, 0);
    s.start(&b).await.unwrap();
    assert!(!fixture.settings().dir.join("programs/a.conf").exists());
    let run = s.start(&a).await.unwrap();
    assert_eq!(
        s.wait(&a.name, &a.account, &run).await.unwrap(),
        Exit::Code(0)
    );
    s.kill(
        &b.name,
        &b.account,
        &s.find(&b.name).await.unwrap().unwrap(),
    )
    .await
    .unwrap();
    // And at boot.
    s.halt().await.unwrap();
    fs::write(
        fixture.settings().dir.join("programs/a.conf"),
        "[program:a]\ncommand=\n",
    )
    .unwrap();
    assert_eq!(s.boot(&[]).await.unwrap(), Ensured::Started);
}

#[tokio::test]
async fn a_section_that_is_refused_fails_alone() {
    let Some(fixture) = Fixture::supervisord().await else {
        return;
    };
    let s = fixture.supervisor();
    let starts: Vec<_> = (0..8)
        .map(|n| {
            let mut a = obedient(&format!("a{n}"), &fixture, 0);
            if n == 4 {
                a.stop_signal = 999;
            }
            let s = Arc::clone(&s);
            tokio::spawn(async move { s.start(&a).await })
        })
        .collect();
    for (n, start) in starts.into_iter().enumerate() {
        match (n, start.await.unwrap()) {
            (4, Err(SupervisorError::NotStarted { name, why })) => {
                assert!(name == "a4" && why.contains("999"), "{name}: {why}")
            }
            (n, started) => assert!(n != 4 && fixture.is_alive(&started.unwrap()), "{n}"),
        }
    }
    assert_eq!(s.running().await.unwrap().len(), 7);
    assert!(fixture.traces("a4").is_empty());
    assert_eq!(
        fs::read_dir(fixture.settings().dir.join("programs"))
            .unwrap()
            .count(),
        0,
        "nothing is read a second time"
    );
}

#[tokio::test]
async fn what_was_added_just_before_a_crash_of_acc_is_known_again() {
    let Some(fixture) = Fixture::supervisord().await else {
        return;
    };
    let a = obedient("a", &fixture, 0);
    let run = fixture.supervisor().start(&a).await.unwrap();
    let at = |folder: &str| fixture.settings().dir.join(folder).join("a.conf");
    // As if it had died between the two steps; an acc that kept all sections in one folder left
    // them so, too.
    let undone = || fs::rename(at("loaded"), at("programs")).unwrap();
    undone();
    fs::remove_file(fixture.pid_dir().join("a.pid")).unwrap();
    let next = fixture.again();
    assert_eq!(next.start(&a).await.unwrap(), run, "not a second one");
    assert_eq!(fixture.count(&a.name).await, 1);
    next.kill(&a.name, &a.account, &run).await.unwrap();
    next.wait(&a.name, &a.account, &run).await.unwrap();
    fs::write(at("programs"), "").unwrap();
    let changed = program("a", fixture.dir(), &["/bin/sh", "-c", "exit 7"]);
    let run = next.start(&changed).await.unwrap();
    assert_eq!(
        next.wait(&a.name, &a.account, &run).await.unwrap(),
        Exit::Code(7)
    );
    assert!(at("loaded").exists() && !at("programs").exists());
}

#[tokio::test]
async fn leftovers_of_an_earlier_boot_are_no_obstacle() {
    let Some(fixture) = Fixture::supervisord_down() else {
        return;
    };
    fs::create_dir_all(fixture.dir().join("state")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(fixture.settings().socket).unwrap());
    // A living pid of another program.
    fs::write(
        fixture.settings().pid_file,
        format!("{}\n", std::process::id()),
    )
    .unwrap();
    assert_eq!(
        fixture.supervisor().boot(&[]).await.unwrap(),
        Ensured::Started
    );
    assert_ne!(
        fixture.daemon().unwrap().pid.unsigned_abs(),
        std::process::id()
    );
}

#[tokio::test]
async fn missing_old_and_broken_programs_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let old = script("old", "echo 3.4.0");
    let broken = script(
        "broken",
        "[ \"$1\" = --version ] && echo 4.2.5 && exit; echo 'Error: no luck' >&2; exit 2",
    );
    for (program, expected) in [
        (
            dir.path().join("missing"),
            format!(
                "`{}` is not installed",
                dir.path().join("missing").display()
            ),
        ),
        (
            old,
            "supervisord is version 3.4.0, acc needs 4.0 or later".to_owned(),
        ),
        (
            broken,
            "supervisord does not start: Error: no luck".to_owned(),
        ),
    ] {
        let fixture = Fixture::builtin();
        let s = Supervisord::new(SupervisordSettings {
            program: Some(program),
            ..fixture.settings()
        });
        let error = s.boot(&[]).await.unwrap_err();
        assert!(matches!(error, SupervisorError::Unusable(_)), "{error:?}");
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test]
async fn a_folder_with_odd_characters_works_too() {
    let dir = tempfile::Builder::new()
        .prefix("a 5%(here)s ;b #c 'é")
        .tempdir()
        .unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let Some(fixture) = Fixture::supervisord_in(dir, |_| {}) else {
        return;
    };
    let s = fixture.supervisor();
    assert_eq!(
        s.boot(&[service("nginx", &fixture, "exec sleep 1000")])
            .await
            .unwrap(),
        Ensured::Started
    );
    assert!(s.service("nginx").await.unwrap().is_some());
    arrives(
        &fixture,
        vec![("A".to_owned(), "1".to_owned())],
        vec!["x".to_owned()],
    )
    .await;
    output_goes_to_the_log(fixture).await;
}

#[tokio::test]
async fn the_foreground_command_runs_what_was_rendered() {
    let Some(fixture) = Fixture::supervisord_down() else {
        return;
    };
    let s = Supervisord::new(fixture.settings());
    let services = [service("nginx", &fixture, "exec sleep 1000")];
    let argv = s.foreground(&services).await.unwrap().unwrap();
    let mut foreground = tokio::process::Command::new(&argv[0])
        .args(&argv[1..])
        .env("LEAK", "1")
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // Before it has its socket it can be seen, and not be asked.
    eventually("supervisord", async || {
        s.service("nginx").await.ok().flatten()
    })
    .await;
    eventually("its pid file", async || fixture.daemon()).await;
    let environ = fs::read(format!(
        "/proc/{}/environ",
        s.service("nginx").await.unwrap().unwrap().pid
    ))
    .unwrap();
    assert!(!String::from_utf8_lossy(&environ).contains("LEAK"));
    assert!(
        matches!(s.foreground(&[]).await, Err(SupervisorError::Unusable(_))),
        "not under a running one"
    );
    assert_eq!(
        s.boot(&[service("nginx", &fixture, "exec sleep 1000")])
            .await
            .unwrap(),
        Ensured::Already
    );
    s.halt().await.unwrap();
    // It has ended; the first process to wait, `halt` here, has its exit code.
    let _ = foreground.wait().await;
}
