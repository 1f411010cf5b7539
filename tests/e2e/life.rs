//! The main job: an instance is created, answers, is put to sleep when idle and woken by the next
//! request.

use std::time::Duration;

use crate::support::fixture::SOON;
use crate::support::wait::holds;
use crate::support::{Combination, Fixture, processes, wait_until};

pub fn it_is_created_answers_sleeps_and_wakes(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    let info = fixture.create("shop", "tester");
    for key in [
        "id",
        "name",
        "model",
        "phase",
        "desired",
        "hosts",
        "url",
        "listen",
        "pid",
        "owner",
        "idle_timeout_s",
        "created_at",
    ] {
        assert!(info.get(key).is_some(), "`{key}` is missing: {info}");
    }
    for key in ["last_wake_at", "last_active_at", "wakes", "failure"] {
        assert!(info.get(key).is_some(), "`{key}` is missing: {info}");
    }
    assert_eq!(
        (&info["desired"], &info["idle_timeout_s"]),
        (&"auto".into(), &1.0.into()),
        "{info}"
    );
    assert!(
        info["listen"]["unix"]
            .as_str()
            .is_some_and(|p| p.starts_with(fixture.run().to_str().unwrap())),
        "{info}"
    );
    assert!(
        info["last_active_at"].is_null(),
        "the operator's start is no use: {info}"
    );
    assert!(
        fixture
            .acc(&["info", "shop"])
            .ok()
            .out
            .contains("last used   never")
            && fixture.acc(&["list"]).ok().out.contains(" never ")
    );
    assert!(fixture.get("shop", "/").status(200).text().contains("shop"));
    wait_until("the request is seen as use, before any pass", SOON, || {
        let info = fixture.info("shop");
        holds(info["last_active_at"].is_string(), info)
    });

    let first = fixture.pid("shop");
    let plan = fixture.acc(&["monitor", "--dry-run"]).ok();
    assert!(plan.out.contains("shop"), "{plan:?}");
    fixture.monitor_until_asleep("shop");
    assert!(
        !processes::alive(first),
        "the process of a sleeping instance lives"
    );
    assert!(fixture.info("shop")["pid"].is_null());
    assert!(
        fixture.told("shop", "TERM").len() == 1 && fixture.told("shop", "EXIT").len() == 1,
        "it was not ended in order"
    );

    fixture.get("shop", "/").status(200);
    fixture.wait_phase("shop", "awake");
    assert_ne!(fixture.pid("shop"), first);
    assert_eq!(fixture.told("shop", "START").len(), 2);
    // The wake just now counts as use: a monitor run right after it changes nothing.
    fixture.monitor();
    let kinds: Vec<String> = fixture
        .json(&["events", "shop"])
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["kind"].to_string())
        .collect();
    for kind in ["created", "woke", "slept"] {
        assert!(
            kinds.iter().any(|k| k.contains(kind)),
            "no `{kind}` in {kinds:?}"
        );
    }
    let list = fixture.json(&["list"]);
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(list[0]["name"], "shop");
}

pub fn a_verb_on_what_is_already_so_changes_nothing(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    fixture.create("shop", "tester");
    let pid = fixture.pid("shop");
    fixture.acc(&["start", "shop"]).ok().says(&["already"]);
    assert_eq!(fixture.pid("shop"), pid);
    fixture.acc(&["stop", "shop"]).ok();
    assert_eq!(fixture.phase("shop"), "asleep");
    fixture.acc(&["sleep", "shop"]).ok().says(&["already"]);
    fixture.acc(&["wake", "shop"]).ok();
    let second = fixture.pid("shop");
    assert_ne!(second, pid);
    fixture.acc(&["restart", "shop"]).ok();
    assert_ne!(fixture.pid("shop"), second);
    assert!(!processes::alive(second));
    fixture.get("shop", "/").status(200);
    fixture.acc(&["stop", "--now", "shop"]).ok();
    assert_eq!(fixture.told("shop", "START").len(), 3);
}

pub fn disabled_it_never_wakes_and_pinned_it_never_sleeps(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "300ms") else {
        return;
    };
    fixture.create("shop", "tester");
    fixture.acc(&["disable", "shop"]).ok();
    fixture.wait_phase("shop", "asleep");
    let reply = fixture.get("shop", "/").status(503);
    assert!(
        reply
            .header("cache-control")
            .is_some_and(|c| c.contains("no-store")),
        "{reply:?}"
    );
    assert_eq!(fixture.phase("shop"), "asleep");
    fixture.acc(&["start", "shop"]).error(4).says(&["hint:"]);

    fixture.acc(&["enable", "shop"]).ok();
    fixture.get("shop", "/").status(200);
    fixture.acc(&["pin", "shop"]).ok();
    assert_eq!(fixture.info("shop")["desired"], "up");
    let pid = fixture.pid("shop");
    // Much longer than the idle timeout, and checked by several monitor runs.
    let began = crate::support::now();
    while began.elapsed() < Duration::from_millis(1200) {
        fixture.monitor();
    }
    assert_eq!(fixture.pid("shop"), pid);
    fixture.acc(&["enable", "shop"]).ok();
    fixture.monitor_until_asleep("shop");
}

pub fn it_listens_on_tcp(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    let info = fixture.create("shop", "tester-tcp");
    let address: std::net::SocketAddr = info["listen"]["tcp"].as_str().unwrap().parse().unwrap();
    assert!(address.ip().is_loopback());
    fixture.get("shop", "/").status(200);
    fixture.monitor_until_asleep("shop");
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "something listens on the port of a sleeping instance"
    );
    fixture.get("shop", "/").status(200);
    fixture.get("shop", "/").status(200);
    // Another program takes the port of the sleeping instance: it never gets the instance's
    // requests, and acc chooses another port.
    fixture.acc(&["stop", "shop"]).ok();
    let thief = std::net::TcpListener::bind(address).unwrap();
    thief.set_nonblocking(true).unwrap();
    assert!(fixture.get("shop", "/").status(200).text().contains("shop"));
    let another = fixture.info("shop")["listen"]["tcp"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(another, address.to_string());
    let (from, to) = (
        format!(
            "from port {} to {}",
            address.port(),
            another.rsplit(':').next().unwrap()
        ),
        format!("pid {}", std::process::id()),
    );
    fixture.acc(&["events", "shop"]).ok().says(&[
        "port_changed",
        &from,
        "taken by another program",
        &to,
    ]);
    // Also once nginx has loaded the new map, and after another sleep.
    for _ in 0..50 {
        fixture.get("shop", "/").status(200);
    }
    fixture.acc(&["restart", "shop"]).ok();
    fixture.get("shop", "/").status(200);
    assert_eq!(fixture.info("shop")["listen"]["tcp"], another);
    assert_eq!(
        thief.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "who has the port now was asked"
    );
}

pub fn its_port_is_taken_and_there_is_no_other(combination: Combination) {
    let Some(fixture) = Fixture::unbooted(combination, |_| {}) else {
        return;
    };
    let first = fixture.first_port();
    fixture.configure(&crate::support::Settings {
        ports: format!("{first}-{first}"),
        ..Default::default()
    });
    fixture.acc(&["boot"]).ok();
    fixture
        .acc(&["create", "shop", "--model", "tester-tcp", "--asleep"])
        .ok();
    let thief = std::net::TcpListener::bind(("127.0.0.1", first)).unwrap();
    let who = format!("pid {}", std::process::id());
    fixture.acc(&["start", "shop"]).error(1).says(&[
        &format!("port 127.0.0.1:{first} is taken"),
        &who,
        "no port is free",
    ]);
    fixture.get("shop", "/").status(503);
    drop(thief);
    fixture.acc(&["start", "shop"]).ok();
    fixture.get("shop", "/").status(200);
}

pub fn it_has_other_hosts_and_is_named_by_number(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    let create = [
        "create",
        "--model",
        "tester",
        "--host",
        "www.example.org",
        "--owner",
        "a@example.org",
        "--idle",
        "15m",
        "--asleep",
    ];
    fixture.acc(&create).ok();
    let info = fixture.info("tester");
    assert_eq!(
        (&info["phase"], &info["owner"], &info["idle_timeout_s"]),
        (&"asleep".into(), &"a@example.org".into(), &900.0.into()),
        "{info}"
    );
    let id = info["id"].to_string();
    assert_eq!(fixture.info(&id), info);
    let ask = |host: &str| fixture.send(&crate::support::Ask::new("GET", host, "/"));
    ask("www.example.org").status(200);
    ask("WWW.Example.ORG.").status(200);
    fixture.get("tester", "/").status(200);
    fixture
        .acc(&[
            "create",
            "other",
            "--model",
            "tester",
            "--host",
            "www.example.org",
        ])
        .refused()
        .says(&["www.example.org"]);
    // A second instance named after the model gets the next free name.
    fixture
        .acc(&["create", "--model", "tester", "--asleep"])
        .ok();
    assert_eq!(fixture.json(&["list"]).as_array().unwrap().len(), 2);
    assert_eq!(
        fixture
            .json(&["list", "--phase", "asleep"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
    fixture.acc(&["stop", &id]).ok();
}

pub fn the_python_model_works(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    if !std::path::Path::new("/usr/bin/python3").exists() {
        crate::support::need::skipped("not installed: /usr/bin/python3");
        return;
    }
    fixture.create("docs", "python-http");
    assert!(fixture.get("docs", "/").status(200).text().contains("docs"));
    fixture.monitor_until_asleep("docs");
    assert!(fixture.get("docs", "/").status(200).text().contains("docs"));
}

pub fn the_server_puts_it_to_sleep_by_itself(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| {
        (s.check_every, s.idle) = ("200ms", "500ms")
    }) else {
        return;
    };
    fixture.create("shop", "tester");
    fixture.wait_phase("shop", "asleep");
    fixture.get("shop", "/").status(200);
    fixture.wait_phase("shop", "asleep");
    // An instance that dies by itself is noticed at once and wakes again.
    fixture.acc(&["pin", "shop"]).ok();
    let pid = fixture.pid("shop");
    let _ = fixture.ask("GET", "shop", "/crash").send(fixture.address());
    wait_until("a pinned instance that crashed is up again", SOON, || {
        let info = fixture.info("shop");
        holds(
            info["phase"] == "awake" && info["pid"].as_i64().is_some_and(|p| p != i64::from(pid)),
            info,
        )
    });
    fixture
        .acc(&["events", "shop"])
        .ok()
        .says(&["exited with code 3 while it served"]);
}
