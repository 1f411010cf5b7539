//! The server ends and starts while instances are awake: they keep running, and the new server
//! knows them.

use nix::sys::signal::Signal;

use crate::support::wait::holds;
use crate::support::{Combination, Fixture, Settings, processes, wait_until};

/// Ends the server with `signal` while one instance is awake and one asleep; both must work with
/// the next server.
fn ended_by(combination: Combination, signal: Signal) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    fixture.create("blog", "tester-tcp");
    fixture
        .acc(&["create", "wiki", "--model", "tester", "--asleep"])
        .ok();
    let (shop, blog) = (fixture.pid("shop"), fixture.pid("blog"));
    let before = fixture.wait_server(None);
    match signal {
        Signal::SIGKILL => drop(fixture.kill_server()),
        other => processes::signal(before, other),
    }
    wait_until(
        "the old server has ended",
        crate::support::fixture::SOON,
        || holds(!processes::alive(before), before),
    );
    assert!(
        processes::alive(shop) && processes::alive(blog),
        "an awake instance ended with the server"
    );
    if combination.edge == "nginx" {
        // nginx reaches an awake instance without acc.
        assert!(fixture.get("shop", "/").status(200).text().contains("shop"));
    }
    // supervisord restarts the server by itself; without supervisord `acc boot` starts what is
    // missing.
    fixture.acc(&["boot"]).ok();
    fixture.wait_server(Some(before));
    wait_until(
        "the edge answers",
        crate::support::fixture::SOON,
        || match fixture.ask("GET", "shop", "/").send(fixture.address()) {
            Ok(reply) => holds(reply.status == 200, reply.status),
            Err(e) => Err(e.to_string()),
        },
    );
    assert_eq!(
        (fixture.pid("shop"), fixture.pid("blog")),
        (shop, blog),
        "an awake instance was started again"
    );
    fixture.get("blog", "/").status(200);
    fixture.get("wiki", "/").status(200);
    assert_eq!(fixture.told("shop", "START").len(), 1);
    // The new server can stop an instance that the old one started, and reports how it ended.
    fixture.acc(&["stop", "shop", "blog"]).ok();
    assert!(!processes::alive(shop) && !processes::alive(blog));
    fixture.get("shop", "/").status(200);
}

pub fn one_that_is_gone_is_told(combination: Combination) {
    // Nothing restarts the server here until acc is told to: there is no supervisord, and no
    // monitor run by cron.
    if combination.supervisor != "builtin" {
        return;
    }
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    fixture.create("shop", "tester");
    let line = "acc's server is not running";
    assert!(!fixture.acc(&["list"]).ok().err.contains(line));
    fixture.kill_server();
    for command in [
        &["list"][..],
        &["info", "shop"],
        &["stop", "shop"],
        &["create", "blog", "--model", "tester", "--asleep"],
    ] {
        let done = fixture.acc(command).ok();
        assert_eq!(done.err.matches(line).count(), 1, "{done:?}");
        assert!(
            done.err.contains("`acc boot`") && !done.out.contains(line),
            "{done:?}"
        );
    }
    let done = fixture.acc(&["list", "--json"]).ok();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&done.out)
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert!(done.err.starts_with("{\"warning\":"), "{done:?}");
    fixture.acc(&["boot"]).ok();
    assert!(!fixture.acc(&["list"]).ok().err.contains(line));
    fixture.acc(&["halt"]).ok();
    assert!(
        !fixture.acc(&["list"]).ok().err.contains(line),
        "it was halted in order"
    );
}

pub fn it_is_killed_while_instances_are_awake(combination: Combination) {
    ended_by(combination, Signal::SIGKILL);
}

pub fn it_is_ended_in_order_while_instances_are_awake(combination: Combination) {
    ended_by(combination, Signal::SIGTERM);
}

pub fn it_reads_its_config_again(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    assert_eq!(fixture.info("shop")["idle_timeout_s"], 60.0);
    fixture.configure(&Settings {
        idle: "300ms",
        check_every: "200ms",
        ..Settings::default()
    });
    let server = fixture.wait_server(None);
    processes::signal(server, Signal::SIGHUP);
    fixture.wait_phase("shop", "asleep");
    assert_eq!(
        fixture.wait_server(None),
        server,
        "it was restarted, not told"
    );
    // A setting that needs a restart waits for the restart, and does not block the other changes.
    let file = std::fs::read_to_string(fixture.config()).unwrap();
    let more = file
        .replace(
            "domain = \"apps.localhost\"",
            "domain = \"other.localhost\"",
        )
        .replace("timeout = \"300ms\"", "timeout = \"7s\"");
    std::fs::write(fixture.config(), &more).unwrap();
    let hangs = fixture.acc(&["config", "show"]).ok().says(&[
        "`idle.timeout` is \"300ms\" in the running server, but \"7s\" in the config",
        "acc reload",
    ]);
    assert!(
        hangs.out.contains("timeout = \"300ms\"") && !hangs.out.contains("timeout = \"7s\""),
        "{hangs:?}"
    );
    processes::signal(server, Signal::SIGHUP);
    wait_until(
        "the other settings are in force",
        crate::support::fixture::SOON,
        || {
            let shown = fixture.acc(&["config", "show"]).ok();
            holds(shown.out.contains("timeout = \"7s\""), format!("{shown:?}"))
        },
    );
    let shown = fixture.acc(&["config", "show"]).ok().says(&[
        "`domain` is \"apps.localhost\" in the running server, but \"other.localhost\" in the config",
        "`acc boot`",
    ]);
    assert!(
        shown.out.contains("domain = \"apps.localhost\"") && !shown.err.contains("idle"),
        "{shown:?}"
    );
    let log = std::fs::read_to_string(fixture.home().join("log/server.log")).unwrap();
    assert!(
        log.contains("needs `acc halt`") && log.contains("key=\"domain\""),
        "{log}"
    );
    fixture.get("shop", "/").status(200);
    std::fs::write(fixture.config(), &file).unwrap();
    processes::signal(server, Signal::SIGHUP);
    // A config with errors changes nothing.
    std::fs::write(
        fixture.dir.join("good"),
        std::fs::read(fixture.config()).unwrap(),
    )
    .unwrap();
    std::fs::write(fixture.config(), "nonsense = true\n").unwrap();
    processes::signal(server, Signal::SIGHUP);
    fixture.get("shop", "/").status(200);
    assert!(processes::alive(server));
    std::fs::rename(fixture.dir.join("good"), fixture.config()).unwrap();
    fixture.get("shop", "/").status(200);
}
