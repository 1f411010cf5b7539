//! Settings in force and the config file: which of the two a command uses, and when the file comes
//! into force.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::fixture::SOON;
use crate::support::wait::holds;
use crate::support::{Combination, Fixture, processes, wait_until};

/// Changes the config.
fn change(fixture: &Fixture, from: &str, to: &str) {
    let text = fs::read_to_string(fixture.config()).unwrap();
    assert!(text.contains(from), "no {from} in {text}");
    fs::write(fixture.config(), text.replacen(from, to, 1)).unwrap();
}

/// A typo in the config must not keep anyone from reading, stopping, waking and halting.
pub fn a_config_with_faults_stops_nothing_that_runs(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| (s.idle, s.check_every) = ("60s", "300ms"))
    else {
        return;
    };
    fixture.create("shop", "tester");
    let good = fs::read_to_string(fixture.config()).unwrap();
    for (from, to, said) in [
        ("timeout = \"60s\"", "timeout = \"sixty\"", "idle.timeout: "),
        ("timeout = \"60s\"", "timeout = \"60s", "not TOML: "),
        (
            "[idle]",
            "[idel]",
            "idel: unknown key, did you mean `idle`?",
        ),
    ] {
        change(&fixture, from, to);
        fixture.acc(&["config", "check"]).error(2).says(&[said]);
        fixture.acc(&["boot"]).error(2).says(&[said]);
        fixture.acc(&["reload"]).error(2).says(&[said]);
        for words in [
            ["list"].as_slice(),
            &["info", "shop"],
            &["logs", "shop"],
            &["events"],
            &["models"],
            &["config", "show"],
            &["stop", "shop"],
            &["start", "shop"],
            &["monitor", "--dry-run"],
        ] {
            let done = fixture.acc(words).ok().says(&[
                "warning: invalid settings in `",
                said,
                "acc still runs with the previous settings",
            ]);
            assert_eq!(done.err.matches("warning:").count(), 1, "{done:?}");
        }
        assert_eq!(fixture.json(&["list"])[0]["phase"], "awake");
        fixture.get("shop", "/").status(200);
        fs::write(fixture.config(), &good).unwrap();
        assert_eq!(fixture.acc(&["list"]).ok().err, "");
    }
    // The server dies meanwhile: it restarts with the settings it had.
    change(&fixture, "timeout = \"60s\"", "timeout = \"sixty\"");
    let worker = || {
        processes::of(&fixture.dir)
            .into_iter()
            .find(|p| p.command.contains(" worker --sockets "))
            .map(|p| p.pid)
    };
    let before = worker().unwrap();
    processes::signal(before, Signal::SIGKILL);
    wait_until("another worker serves", SOON, || {
        holds(worker().is_some_and(|pid| pid != before), before)
    });
    fixture.acc(&["create", "blog", "--model", "tester"]).ok();
    fixture.get("blog", "/").status(200);
    fixture
        .acc(&["halt"])
        .ok()
        .says(&["halted: 2 instances put to sleep"]);
    fixture.assert_nothing_runs();
    // Now there is only the file to go by.
    fixture.acc(&["list"]).error(2).says(&["idle.timeout: "]);
    fixture.acc(&["halt"]).error(2);
    fs::write(fixture.config(), &good).unwrap();
}

pub fn what_waits_for_a_restart_is_not_shown_as_if_it_were_in_force(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let url = fixture.info("shop")["url"].clone();
    let good = fs::read_to_string(fixture.config()).unwrap();
    change(
        &fixture,
        "domain = \"apps.localhost\"",
        "domain = \"other.localhost\"",
    );
    change(&fixture, "listen = [\"127.0.0.1:", "listen = [\"127.0.0.2:");
    change(&fixture, "timeout = \"60s\"", "timeout = \"50s\"");
    for words in [["list"].as_slice(), &["info", "shop"]] {
        let done = fixture.acc(words).ok().says(&[
            "`domain` and `edge.listen` wait for a restart",
            "`idle.timeout` waits for `acc reload`",
        ]);
        assert!(
            done.out.contains(url.as_str().unwrap()) && !done.out.contains("other.localhost"),
            "{done:?}"
        );
    }
    assert_eq!(fixture.info("shop")["url"], url);
    let done = fixture.acc(&["boot"]).ok().says(&[
        "listening on 127.0.0.1:",
        "needs a restart",
        "`edge.listen`",
    ]);
    assert!(!done.err.contains("127.0.0.2"), "{done:?}");
    let doctor = fixture
        .acc(&["doctor"])
        .says(&["`edge.listen` is [\"127.0.0.1:"])
        .out;
    assert!(!doctor.contains("nothing listens on"), "{doctor}");
    fixture
        .acc(&["create", "blog", "--model", "tester", "--asleep"])
        .ok()
        .says(&["http://blog.apps.localhost:"]);
    fixture.acc(&["reload"]).ok();
    let done = fixture.acc(&["list"]).ok().says(&["wait for a restart"]);
    assert!(!done.err.contains("reload"), "{done:?}");
    fixture.acc(&["halt"]).ok();
    assert!(
        !fixture
            .acc(&["list"])
            .ok()
            .says(&["http://shop.other.localhost:"])
            .err
            .contains("restart")
    );
    fixture.acc(&["boot"]).ok();
    assert_eq!(
        fixture
            .acc(&["list"])
            .ok()
            .says(&["http://shop.other.localhost:"])
            .err,
        ""
    );
    fixture.acc(&["halt"]).ok();
    fs::write(fixture.config(), good).unwrap();
}

pub fn a_reload_says_what_is_in_force_and_what_waits(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let server = fixture.wait_server(None);
    fixture
        .acc(&["reload"])
        .ok()
        .says(&["acc.toml`: no setting in force has changed"]);
    change(&fixture, "timeout = \"60s\"", "timeout = \"50s\"");
    change(&fixture, "max_body = \"1GiB\"", "max_body = \"1KiB\"");
    change(
        &fixture,
        "domain = \"apps.localhost\"",
        "domain = \"other.localhost\"",
    );
    let done = fixture.acc(&["reload"]).ok().says(&[
        "- `edge.max_body` is \"1KiB\", it was \"1GiB\"",
        "- `idle.timeout` is \"50s\", it was \"1m\"",
        "warning: `domain` is \"apps.localhost\" in the running server, but \"other.localhost\" in the config: apply it with `acc halt` and `acc boot`",
    ]);
    assert_eq!(done.err.lines().count(), 4, "{done:?}");
    assert_eq!(fixture.info("shop")["idle_timeout_s"], 50.0);
    let large = fixture.ask("POST", "shop", "/echo").body(vec![b'x'; 5000]);
    fixture.send(&large).status(413);
    let told = fixture.json(&["reload"]);
    assert_eq!(
        (
            &told["changed"].as_array().unwrap().len(),
            &told["waiting"][0]["key"]
        ),
        (&0, &"domain".into()),
        "{told}"
    );
    // A file with errors changes nothing, not even by its valid settings.
    change(&fixture, "timeout = \"50s\"", "timeout = \"40s\"");
    change(&fixture, "drain = ", "drian = ");
    fixture
        .acc(&["reload"])
        .error(2)
        .says(&["stop.drian: unknown key, did you mean `drain`?"]);
    change(&fixture, "drian = ", "drain = ");
    assert_eq!(fixture.info("shop")["idle_timeout_s"], 50.0);
    assert_eq!(fixture.wait_server(None), server);
    fixture.acc(&["halt"]).ok();
    fixture
        .acc(&["reload"])
        .error(1)
        .says(&["no server is running", "`acc boot`"]);
    change(
        &fixture,
        "domain = \"other.localhost\"",
        "domain = \"apps.localhost\"",
    );
}
