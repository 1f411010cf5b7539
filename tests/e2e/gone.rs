//! Destroyed and purged: out of service at once, and in the end nothing is left but its events.

use crate::support::wait::holds;
use crate::support::{Ask, Bed, Combination, processes, wait_until};

pub fn destroyed_and_purged_it_leaves_nothing(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.idle = "60s") else {
        return;
    };
    bed.acc(&[
        "create",
        "zebra",
        "--model",
        "tester",
        "--host",
        "zebra.example.org",
    ])
    .ok();
    bed.acc(&[
        "create",
        "okapi",
        "--model",
        "tester-tcp",
        "--host",
        "okapi.example.org",
    ])
    .ok();
    let okapi = bed.info("okapi")["listen"]["tcp"]
        .as_str()
        .unwrap()
        .to_owned();
    let ids = ["zebra", "okapi"].map(|n| bed.info(n)["id"].as_i64().unwrap());
    bed.get("zebra", "/").status(200);
    bed.get("okapi", "/").status(200);
    let pids = ["zebra", "okapi"].map(|n| bed.pid(n));

    bed.acc(&["purge", "zebra"]).error(4).says(&["hint:"]);
    bed.acc(&["destroy", "zebra"])
        .error(4)
        .says(&["awake", "hint:"]);
    bed.acc(&["destroy", "zebra", "--force"]).ok();
    bed.acc(&["stop", "okapi"]).ok();
    bed.acc(&["destroy", "okapi"]).ok();
    assert!(pids.iter().all(|p| !processes::alive(*p)));
    for host in [
        bed.host("zebra"),
        "zebra.example.org".into(),
        bed.host("okapi"),
    ] {
        bed.send(&Ask::new("GET", &host, "/")).status(410);
    }
    assert!(
        bed.instance("zebra").join("data/demo.log").exists(),
        "destroy must keep the files"
    );
    bed.acc(&["destroy", "zebra"]).ok();
    bed.acc(&["start", "zebra"]).error(4);
    assert_eq!(bed.info("zebra")["phase"], "destroyed");

    bed.acc(&["purge", "zebra", "okapi"]).ok();
    bed.acc(&["info", "zebra"]).error(3);
    for name in ["zebra", "okapi"] {
        bed.send(&Ask::new("GET", &bed.host(name), "/")).status(404);
        wait_until("every trace is gone", crate::support::bed::SOON, || {
            holds(!bed.instance(name).exists(), "its folder is there")
        });
        bed.assert_no_trace_of(name);
    }
    assert!(
        std::net::TcpListener::bind(&okapi).is_ok(),
        "the port is still in use"
    );
    assert!(
        !processes::of(&bed.dir)
            .iter()
            .any(|p| p.command.contains("zebra") || p.command.contains("okapi"))
    );
    assert_eq!(bed.json(&["list"]).as_array().unwrap().len(), 0);

    // The name and the host are free, the number is not used again, and nothing of the old one is
    // inherited.
    bed.acc(&[
        "create",
        "zebra",
        "--model",
        "tester",
        "--host",
        "zebra.example.org",
    ])
    .ok();
    assert!(
        !ids.contains(&bed.info("zebra")["id"].as_i64().unwrap()),
        "a number was used twice"
    );
    assert_eq!(bed.told("zebra", "START").len(), 1);
    bed.send(&Ask::new("GET", "zebra.example.org", "/"))
        .status(200);
}

pub fn a_port_is_free_again_after_purge(combination: Combination) {
    let Some(bed) = Bed::unbooted(combination, |_| {}) else {
        return;
    };
    let first = bed.first_port();
    bed.configure(&crate::support::Settings {
        ports: format!("{first}-{}", first + 1),
        ..Default::default()
    });
    bed.acc(&["boot"]).ok();
    bed.create("a1", "tester-tcp");
    bed.create("a2", "tester-tcp");
    bed.acc(&["create", "a3", "--model", "tester-tcp"])
        .refused()
        .says(&["no port is free in `ports.range`"]);
    assert_eq!(bed.json(&["list"]).as_array().unwrap().len(), 2);
    bed.acc(&["destroy", "a1", "--force"]).ok();
    bed.acc(&["purge", "a1"]).ok();
    bed.create("a3", "tester-tcp");
    for name in ["a3", "a2"] {
        let text = bed.get(name, "/").status(200).text();
        assert!(text.starts_with(&format!("name: {name}\n")), "{text}");
    }
}
