//! Applications that get their socket from acc, and those that report themselves when they are
//! ready.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::crowd::crowd;
use crate::support::fixture::SOON;
use crate::support::wait::holds;
use crate::support::{Combination, Fixture, now, processes, wait_until};

/// The demo application with a log, on a socket that it gets from acc or binds itself, with these
/// further arguments and keys.
fn model(fixture: &Fixture, name: &str, listen: &str, keys: &str, arguments: &str) {
    let address = match listen {
        "fd" => "",
        "tcp" => r#""--port", "{{ port }}","#,
        _ => r#""--socket", "{{ socket }}","#,
    };
    let text = format!(
        r#"description = "the demo application"
listen = "{listen}"
{keys}
command = ["{{{{ acc }}}}", "demo-app", {address} "--name", "{{{{ name }}}}", "--log", "{{{{ data }}}}/demo.log"{arguments}]
[timeouts]
start = "5s"
"#
    );
    fixture.model(name, &text);
}

fn socket_of(fixture: &Fixture, name: &str) -> String {
    fixture.info(name)["listen"]["unix"]
        .as_str()
        .unwrap()
        .to_owned()
}

pub fn a_crowd_on_a_handed_socket_makes_one_start(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    model(
        &fixture,
        "handed",
        "fd",
        "",
        r#", "--start-delay", "200ms""#,
    );
    fixture
        .acc(&["create", "shop", "--model", "handed", "--asleep"])
        .ok();
    assert_eq!(
        crowd(&fixture, 500, "/"),
        BTreeMap::from([("200".to_owned(), 500)])
    );
    assert_eq!(fixture.told("shop", "START").len(), 1);
    assert_eq!(fixture.info("shop")["wakes"], 1);
    // While the instance sleeps no process has the socket, and the next start gets another one.
    let info = fixture.info("shop");
    assert_eq!(
        (&info["handed"], &info["notifies"]),
        (&true.into(), &false.into()),
        "{info}"
    );
    let (first, socket) = (fixture.pid("shop"), socket_of(&fixture, "shop"));
    fixture.monitor_until_asleep("shop");
    assert!(!processes::alive(first));
    let refused = UnixStream::connect(&socket).unwrap_err().kind();
    assert_eq!(refused, ErrorKind::NotFound);
    fixture
        .send(&fixture.ask("POST", "shop", "/echo").body("x"))
        .status(200);
    fixture.acc(&["restart", "shop"]).ok();
    fixture.get("shop", "/").status(200);
    fixture.acc(&["stop", "--now", "shop"]).ok();
    assert_eq!(fixture.told("shop", "START").len(), 3);
    // The application dies by itself while awake: the next request starts it again.
    fixture.get("shop", "/").status(200);
    let _ = fixture.ask("GET", "shop", "/crash").send(fixture.address());
    wait_until("the crash is noticed", SOON, || {
        let phase = fixture.phase("shop");
        holds(phase == "failed", phase)
    });
    fixture.acc(&["start", "shop"]).ok();
    fixture.get("shop", "/").status(200);
}

pub fn it_ends_before_it_accepts_and_everybody_is_told(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    for (name, keys) in [
        ("dies", ""),
        ("dies-untold", "ready = \"notify\""),
        ("dies-unwell", "health = \"/health\""),
    ] {
        model(&fixture, name, "fd", keys, r#", "--exit-at-start", "7""#);
        fixture
            .acc(&["create", "shop", "--model", name, "--asleep"])
            .ok();
        let began = now();
        let posts = std::thread::scope(|scope| {
            let post = || {
                fixture
                    .ask("POST", "shop", "/echo")
                    .body("x")
                    .send(fixture.address())
                    .unwrap()
                    .status
            };
            let posts: Vec<_> = (0..10).map(|_| scope.spawn(post)).collect();
            assert_eq!(
                crowd(&fixture, 30, "/"),
                BTreeMap::from([("503".to_owned(), 30)])
            );
            posts
                .into_iter()
                .map(|p| p.join().unwrap())
                .collect::<Vec<_>>()
        });
        assert_eq!(
            posts, [503; 10],
            "a POST that nobody saw is told why, and not that it may have been seen"
        );
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "an application that has ended was waited for"
        );
        let info = fixture.info("shop");
        assert_eq!(
            (&info["phase"], &info["failure"]),
            (
                &"failed".into(),
                &"exited with code 7 before its first answer".into()
            ),
            "{name}: {info}"
        );
        let refused = UnixStream::connect(socket_of(&fixture, "shop"))
            .map(drop)
            .unwrap_err()
            .kind();
        assert_eq!(refused, ErrorKind::NotFound, "it leaves nothing behind");
        assert_eq!(
            fixture.told("shop", "START").len(),
            1,
            "it was started more than once"
        );
        fixture.acc(&["destroy", "shop"]).ok();
        fixture.acc(&["purge", "shop"]).ok();
        fixture.assert_no_trace_of("shop");
    }
}

pub fn it_is_ready_when_it_says_so(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    for listen in ["fd", "unix", "tcp"] {
        for health in ["", "health = \"/health\"\n"] {
            model(
                &fixture,
                "says",
                listen,
                &format!("{health}ready = \"notify\""),
                r#", "--ready-delay", "300ms""#,
            );
            fixture
                .acc(&["create", "shop", "--model", "says", "--asleep"])
                .ok();
            fixture
                .send(&fixture.ask("POST", "shop", "/echo").body("x"))
                .status(200);
            let log =
                std::fs::read_to_string(fixture.instance("shop").join("data/demo.log")).unwrap();
            let said = log.find("READY").unwrap();
            assert!(
                log.find("POST").is_some_and(|asked| said < asked),
                "{listen}: it was asked before it was ready:\n{log}"
            );
            fixture.monitor_until_asleep("shop");
            fixture.get("shop", "/").status(200);
            fixture.acc(&["stop", "shop"]).ok();
            fixture.acc(&["destroy", "shop"]).ok();
            fixture.acc(&["purge", "shop"]).ok();
            fixture.assert_no_trace_of("shop");
        }
    }
}

/// A script that reports readiness for a program that does not do so itself: `systemd-notify` waits
/// until the message was received, and acc receives it.
pub fn a_script_says_it_for_the_application(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    if crate::support::need::find("systemd-notify").is_none() {
        // Not `need::skipped`: preparing a machine for the tests does not install systemd.
        eprintln!("skipped: not installed: systemd-notify");
        return;
    }
    let script = "(sleep 0.3; systemd-notify --ready --status=done; echo heard $? >&2) & \
                  exec env -u NOTIFY_SOCKET {{ acc }} demo-app --socket {{ socket }} --log {{ data }}/demo.log";
    fixture.model(
        "script",
        &format!("ready = \"notify\"\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\n"),
    );
    fixture
        .acc(&["create", "shop", "--model", "script", "--asleep"])
        .ok();
    let began = now();
    fixture.get("shop", "/").status(200);
    assert!(
        began.elapsed() >= Duration::from_millis(300),
        "it was asked before it was ready"
    );
    wait_until("systemd-notify is content", SOON, || {
        let log = std::fs::read_to_string(fixture.instance("shop").join("log/app.log")).unwrap();
        holds(log.contains("heard 0"), log)
    });
}

pub fn it_never_says_that_it_is_ready(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    model(
        &fixture,
        "silent",
        "fd",
        "ready = \"notify\"",
        r#", "--ready-delay", "1h""#,
    );
    fixture
        .acc(&["create", "shop", "--model", "silent", "--asleep"])
        .ok();
    fixture
        .acc(&["start", "shop"])
        .error(5)
        .says(&["READY=1", "last status: `listening, not ready yet`"]);
    fixture.wait_phase("shop", "failed");
    assert_eq!(
        fixture.told("shop", "TERM").len(),
        1,
        "it was not ended in order"
    );
}

pub fn the_server_is_killed_while_it_wakes(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    for keys in ["", "ready = \"notify\""] {
        model(
            &fixture,
            "slow",
            "fd",
            keys,
            r#", "--start-delay", "1500ms""#,
        );
        fixture
            .acc(&["create", "shop", "--model", "slow", "--asleep"])
            .ok();
        fixture.wait_server(None);
        let first = std::thread::scope(|scope| {
            let held = scope.spawn(|| {
                fixture
                    .ask("POST", "shop", "/echo")
                    .body("x")
                    .send(fixture.address())
            });
            fixture.wait_phase("shop", "waking");
            wait_until("it runs", SOON, || {
                holds(!fixture.told("shop", "START").is_empty(), "not yet")
            });
            // Only the worker is killed: a whole server would not be back within the time that
            // nginx has for its second try.
            let workers = processes::of(&fixture.dir)
                .into_iter()
                .filter(|p| p.command.contains(" worker --sockets "));
            workers.for_each(|p| processes::signal(p.pid, Signal::SIGKILL));
            held.join().unwrap()
        });
        if combination.edge == "nginx" {
            // The request had not been sent to the application: nginx asks the next server.
            first.unwrap().status(200);
        }
        wait_until("it answers", SOON, || {
            match fixture.ask("GET", "shop", "/").send(fixture.address()) {
                Ok(reply) => holds(reply.status == 200, reply.status),
                Err(e) => Err(e.to_string()),
            }
        });
        assert_eq!(
            fixture.told("shop", "START").len(),
            1,
            "it was started again"
        );
        let posts = fixture
            .told("shop", "REQ")
            .iter()
            .filter(|l| l.contains("POST"))
            .count();
        assert!(posts <= 1, "a POST was delivered {posts} times");
        fixture.acc(&["stop", "shop"]).ok();
        fixture.acc(&["destroy", "shop"]).ok();
        fixture.acc(&["purge", "shop"]).ok();
    }
}

/// The next worker did not receive the messages sent to the one before, and does not need them.
pub fn the_server_is_upgraded_while_it_wakes(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    let variants = [
        ("shop", "fd", "", "--start-delay"),
        ("blog", "fd", "ready = \"notify\"", "--ready-delay"),
    ];
    for (name, listen, keys, slow) in
        variants
            .into_iter()
            .chain([("docs", "unix", "ready = \"notify\"", "--ready-delay")])
    {
        model(
            &fixture,
            name,
            listen,
            keys,
            &format!(r#", "{slow}", "1500ms""#),
        );
        fixture
            .acc(&["create", name, "--model", name, "--asleep"])
            .ok();
    }
    let workers = || {
        processes::of(&fixture.dir)
            .into_iter()
            .filter(|p| p.command.contains(" worker --sockets "))
            .map(|p| p.pid)
    };
    for name in ["shop", "blog", "docs"] {
        std::thread::scope(|scope| {
            let send = |method: &'static str| {
                scope.spawn(|| fixture.send(&fixture.ask(method, name, "/echo").body("held")))
            };
            let held = [send("GET"), send("POST"), send("POST")];
            fixture.wait_phase(name, "waking");
            wait_until("it runs", SOON, || {
                holds(!fixture.told(name, "START").is_empty(), "not yet")
            });
            let before: Vec<i32> = workers().collect();
            processes::signal(fixture.master(), Signal::SIGUSR2);
            wait_until("another worker serves", SOON, || {
                holds(workers().any(|pid| !before.contains(&pid)), "not yet")
            });
            for held in held {
                held.join().unwrap().status(200);
            }
        });
        fixture.get(name, "/").status(200);
        assert_eq!(
            fixture.told(name, "START").len(),
            1,
            "{name} was started again"
        );
        assert_eq!(
            fixture
                .told(name, "REQ")
                .iter()
                .filter(|l| l.contains("POST"))
                .count(),
            2,
            "{name}: a POST was lost or doubled"
        );
    }
}
