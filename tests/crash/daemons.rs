//! supervisord, nginx or the server is killed: this is noticed, the program is restarted, and
//! processes that outlived it are neither doubled nor ended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::truth::{self, working};
use crate::support::wait::{Ending, holds, pause};
use crate::support::{Combination, Fixture, processes, wait_until};

fn kill(pid: i32) {
    processes::signal(pid, Signal::SIGKILL);
    wait_until("it is gone", truth::SETTLED, || {
        holds(!processes::alive(pid), pid)
    });
}

/// The process id from supervisord's pid file: before it becomes a daemon, and whenever it forks, a
/// second process looks like it for a moment.
fn supervisord(fixture: &Fixture) -> Option<i32> {
    let file = std::fs::read_to_string(fixture.run().join("supervisord.pid")).ok()?;
    file.trim()
        .parse()
        .ok()
        .filter(|pid| processes::alive(*pid))
}

fn masters(fixture: &Fixture) -> Vec<i32> {
    processes::of(&fixture.dir)
        .iter()
        .filter(|p| p.command.starts_with("nginx: master"))
        .map(|p| p.pid)
        .collect()
}

fn servers(fixture: &Fixture) -> Vec<i32> {
    processes::of(&fixture.dir)
        .iter()
        .filter(|p| p.command.ends_with(" server") && p.command.contains("/acc "))
        .map(|p| p.pid)
        .collect()
}

#[track_caller]
fn new_supervisord(fixture: &Fixture, old: i32) -> i32 {
    wait_until("there is a new supervisord", truth::SETTLED, || {
        supervisord(fixture).filter(|pid| *pid != old).ok_or("none")
    })
}

/// Sends requests to an awake instance, and to one that is put to sleep again and again, while
/// `what` happens; returns the failures.
fn under_load(fixture: &Fixture, what: impl FnOnce()) -> (u32, Vec<String>) {
    let over = AtomicBool::new(false);
    let client = |name: &'static str| {
        let over = &over;
        move || {
            let (mut answered, mut lost) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                match fixture
                    .ask("POST", name, "/echo")
                    .body("x")
                    .send(fixture.address())
                {
                    Ok(reply) if reply.status == 200 => answered += 1,
                    Ok(reply) => lost.push(format!("{name}: {} {}", reply.status, reply.text())),
                    Err(e) => lost.push(format!("{name}: {e}")),
                }
                pause(Duration::from_millis(25));
            }
            (answered, lost)
        }
    };
    std::thread::scope(|scope| {
        let clients = ["shop", "blog"].map(|name| scope.spawn(client(name)));
        let ending = Ending(&over);
        what();
        drop(ending);
        let all = clients.map(|c| c.join().unwrap());
        (
            all.iter().map(|(n, _)| n).sum(),
            all.into_iter().flat_map(|(_, lost)| lost).collect(),
        )
    })
}

#[test]
fn supervisord_is_killed_and_no_request_is_lost() {
    let Some(fixture) = Fixture::with(Combination::REAL, |s| {
        (s.idle, s.check_every) = ("60s", "300ms")
    }) else {
        return;
    };
    fixture.create("shop", "tester");
    fixture
        .acc(&["create", "blog", "--model", "tester-tcp", "--asleep"])
        .ok();
    let (shop, server, nginx) = (fixture.pid("shop"), working(&fixture), masters(&fixture));
    let master = fixture.wait_server(None);
    let mut last = supervisord(&fixture).unwrap();
    let (answered, lost) = under_load(&fixture, || {
        for _ in 0..2 {
            kill(last);
            let _ = fixture.acc(&["stop", "blog"]).ok();
            last = new_supervisord(&fixture, last);
        }
    });
    assert!(lost.is_empty(), "{answered} answered, lost: {lost:#?}");
    assert!(answered > 4, "{answered}");
    assert_eq!(
        (fixture.pid("shop"), masters(&fixture), working(&fixture)),
        (shop, nginx.clone(), server),
        "what outlived it was replaced"
    );
    assert_eq!(fixture.told("shop", "START").len(), 1);
    // One server works, at most one stands by.
    wait_until("one server stands by", truth::SETTLED, || {
        holds(
            servers(&fixture).len() == 2,
            format!("{:?}", servers(&fixture)),
        )
    });
    truth::becomes_true(&fixture, || ());
    // The server on standby passes a signal on to the working one: supervisord knows only the
    // former.
    let by = servers(&fixture)
        .into_iter()
        .find(|pid| *pid != master)
        .unwrap();
    processes::signal(by, nix::sys::signal::Signal::SIGHUP);
    wait_until("reloaded the settings", truth::SETTLED, || {
        let log = std::fs::read_to_string(fixture.home().join("log/server.log")).unwrap();
        holds(log.contains("reloaded the settings"), log)
    });
    // The working server's messages are still logged.
    let log = std::fs::read_to_string(fixture.home().join("log/server.log")).unwrap();
    assert!(
        log.contains("the supervisor that wrote this log has died"),
        "{log}"
    );
    // The server on standby takes over at once, and its supervisord keeps it.
    assert_eq!(fixture.kill_server(), master);
    wait_until("the other one works", truth::SETTLED, || {
        holds(
            working(&fixture).is_some_and(|w| Some(w) != server),
            "the same",
        )
    });
    let next = fixture.wait_server(Some(master));
    fixture.get("blog", "/").status(200);
    assert_eq!(fixture.pid("shop"), shop);
    assert_eq!(fixture.kill_server(), next);
    fixture.wait_server(Some(next));
    // No supervisord watches nginx since then: the server restarts it.
    kill(masters(&fixture)[0]);
    wait_until("nginx is back", truth::SETTLED, || {
        match fixture.ask("GET", "shop", "/").send(fixture.address()) {
            Ok(reply) => holds(
                reply.status == 200 && masters(&fixture).len() == 1 && masters(&fixture) != nginx,
                reply.status,
            ),
            Err(e) => Err(e.to_string()),
        }
    });
    truth::becomes_true(&fixture, || ());
}

#[test]
fn a_wake_restarts_supervisord_without_waiting_for_a_monitor_run() {
    let Some(fixture) = Fixture::with(Combination::REAL, |s| s.idle = "60s") else {
        return;
    };
    fixture
        .acc(&["create", "shop", "--model", "tester", "--asleep"])
        .ok();
    let before = supervisord(&fixture).unwrap();
    kill(before);
    fixture.get("shop", "/").status(200);
    assert_ne!(supervisord(&fixture), Some(before));
    // The same by a monitor run as from cron.
    let before = supervisord(&fixture).unwrap();
    kill(before);
    let pass = fixture.monitor();
    // The server's own monitor run may have been the first to notice.
    let log = std::fs::read_to_string(fixture.home().join("log/server.log")).unwrap();
    assert!(
        (pass.out + &log).contains("it had died; restarted it"),
        "{log}"
    );
    assert_ne!(supervisord(&fixture), Some(before));
    assert_eq!(fixture.monitor().out, "");
    fixture.acc(&["restart", "shop"]).ok();
    truth::becomes_true(&fixture, || ());
}

#[test]
fn a_supervisord_that_systemd_starts_again_leaves_what_outlived_it_alone() {
    let Some(fixture) = Fixture::unbooted(Combination::REAL, |s| s.idle = "60s") else {
        return;
    };
    let start = || {
        fixture
            .command(&["boot", "--foreground"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut main = start();
    fixture.wait_server(None);
    fixture.create("shop", "tester");
    fixture
        .acc(&["create", "blog", "--model", "tester", "--asleep"])
        .ok();
    let (shop, server, master) = (fixture.pid("shop"), working(&fixture), masters(&fixture));
    let mut next = None;
    let (answered, lost) = under_load(&fixture, || {
        main.kill().unwrap();
        main.wait().unwrap();
        // Not restarted by acc itself: two would be started.
        assert_eq!(fixture.monitor().out, "");
        assert_eq!(supervisord(&fixture), None);
        next = Some(start());
        wait_until("supervisord is back", truth::SETTLED, || {
            supervisord(&fixture).ok_or("none")
        });
        wait_until("one server stands by", truth::SETTLED, || {
            holds(
                servers(&fixture).len() == 2,
                format!("{:?}", servers(&fixture)),
            )
        });
    });
    assert!(lost.is_empty(), "{answered} answered, lost: {lost:#?}");
    assert_eq!(
        (fixture.pid("shop"), masters(&fixture), working(&fixture)),
        (shop, master, server)
    );
    fixture.acc(&["halt"]).ok();
    next.unwrap().wait().unwrap();
    fixture.assert_nothing_runs();
}

#[test]
fn a_server_that_systemd_starts_again_takes_over_the_worker_that_outlived_it() {
    for combination in [Combination::ALL[1], Combination::ALL[3]] {
        let Some(fixture) = Fixture::unbooted(combination, |s| s.idle = "60s") else {
            continue;
        };
        let start = || {
            fixture
                .command(&["boot", "--foreground"])
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        };
        let mut main = start();
        fixture.wait_server(None);
        fixture.create("shop", "tester");
        fixture
            .acc(&["create", "blog", "--model", "tester", "--asleep"])
            .ok();
        let (shop, server) = (fixture.pid("shop"), working(&fixture));
        let mut next = None;
        let (answered, lost) = under_load(&fixture, || {
            let before = fixture.master();
            main.kill().unwrap();
            main.wait().unwrap();
            // Not restarted by acc itself: two would be started.
            assert_eq!(fixture.monitor().out, "");
            assert_eq!(fixture.master(), before);
            let _ = fixture.acc(&["stop", "blog"]).ok();
            next = Some(start());
            wait_until("the next one has taken over", truth::SETTLED, || {
                let now = fixture.master();
                holds(now != before && processes::alive(now), now)
            });
            let _ = fixture.acc(&["stop", "blog"]).ok();
        });
        assert!(lost.is_empty(), "{answered} answered, lost: {lost:#?}");
        assert_eq!((fixture.pid("shop"), working(&fixture)), (shop, server));
        fixture.acc(&["halt"]).ok();
        next.unwrap().wait().unwrap();
        fixture.assert_nothing_runs();
    }
}

#[test]
fn a_monitor_run_restarts_what_died_and_nothing_after_a_halt() {
    for combination in Combination::ALL {
        let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
            continue;
        };
        fixture.create("shop", "tester");
        let shop = fixture.pid("shop");
        let server = fixture.kill_server();
        for master in masters(&fixture) {
            kill(master);
        }
        wait_until("all is back", truth::SETTLED, || {
            fixture.acc(&["monitor"]);
            match fixture.ask("GET", "shop", "/").send(fixture.address()) {
                Ok(reply) => holds(
                    reply.status == 200 && fixture.server().is_some(),
                    reply.status,
                ),
                Err(e) => Err(e.to_string()),
            }
        });
        assert_eq!(fixture.pid("shop"), shop);
        fixture.wait_server(Some(server));
        truth::becomes_true(&fixture, || ());
        fixture.acc(&["halt"]).ok();
        fixture.assert_nothing_runs();
        fixture.monitor();
        fixture.assert_nothing_runs();
    }
}
