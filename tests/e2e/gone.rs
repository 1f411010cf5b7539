//! Destroyed and purged: out of service at once, and in the end nothing is left but its events.

use crate::support::wait::holds;
use crate::support::{Ask, Combination, Fixture, processes, wait_until};

pub fn destroyed_and_purged_it_leaves_nothing(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture
        .acc(&[
            "create",
            "shop",
            "--model",
            "tester",
            "--host",
            "shop.example.org",
        ])
        .ok();
    fixture
        .acc(&[
            "create",
            "blog",
            "--model",
            "tester-tcp",
            "--host",
            "blog.example.org",
        ])
        .ok();
    let blog = fixture.info("blog")["listen"]["tcp"]
        .as_str()
        .unwrap()
        .to_owned();
    let ids = ["shop", "blog"].map(|n| fixture.info(n)["id"].as_i64().unwrap());
    fixture.get("shop", "/").status(200);
    fixture.get("blog", "/").status(200);
    let pids = ["shop", "blog"].map(|n| fixture.pid(n));

    fixture.acc(&["purge", "shop"]).error(4).says(&["hint:"]);
    fixture
        .acc(&["destroy", "shop"])
        .error(4)
        .says(&["awake", "hint:"]);
    fixture.acc(&["destroy", "shop", "--force"]).ok();
    fixture.acc(&["stop", "blog"]).ok();
    fixture.acc(&["destroy", "blog"]).ok();
    assert!(pids.iter().all(|p| !processes::alive(*p)));
    for host in [
        fixture.host("shop"),
        "shop.example.org".into(),
        fixture.host("blog"),
    ] {
        fixture.send(&Ask::new("GET", &host, "/")).status(410);
    }
    assert!(
        fixture.instance("shop").join("data/demo.log").exists(),
        "destroy must keep the files"
    );
    fixture.acc(&["destroy", "shop"]).ok();
    fixture.acc(&["start", "shop"]).error(4);
    assert_eq!(fixture.info("shop")["phase"], "destroyed");

    fixture.acc(&["purge", "shop", "blog"]).ok();
    fixture.acc(&["info", "shop"]).error(3);
    for name in ["shop", "blog"] {
        fixture
            .send(&Ask::new("GET", &fixture.host(name), "/"))
            .status(404);
        wait_until("every trace is gone", crate::support::fixture::SOON, || {
            holds(!fixture.instance(name).exists(), "its folder is there")
        });
        fixture.assert_no_trace_of(name);
    }
    assert!(
        std::net::TcpListener::bind(&blog).is_ok(),
        "the port is still in use"
    );
    assert!(
        !processes::of(&fixture.dir)
            .iter()
            .any(|p| p.command.contains("shop") || p.command.contains("blog"))
    );
    assert_eq!(fixture.json(&["list"]).as_array().unwrap().len(), 0);

    // The name and the host are free, the number is not used again, and nothing of the old instance
    // is inherited.
    fixture
        .acc(&[
            "create",
            "shop",
            "--model",
            "tester",
            "--host",
            "shop.example.org",
        ])
        .ok();
    assert!(
        !ids.contains(&fixture.info("shop")["id"].as_i64().unwrap()),
        "a number was used twice"
    );
    assert_eq!(fixture.told("shop", "START").len(), 1);
    fixture
        .send(&Ask::new("GET", "shop.example.org", "/"))
        .status(200);
}

pub fn a_port_is_free_again_after_purge(combination: Combination) {
    let Some(fixture) = Fixture::unbooted(combination, |_| {}) else {
        return;
    };
    let first = fixture.first_port();
    fixture.configure(&crate::support::Settings {
        ports: format!("{first}-{}", first + 1),
        ..Default::default()
    });
    fixture.acc(&["boot"]).ok();
    fixture.create("a1", "tester-tcp");
    fixture.create("a2", "tester-tcp");
    fixture
        .acc(&["create", "a3", "--model", "tester-tcp"])
        .refused()
        .says(&["no port is free in `ports.range`"]);
    assert_eq!(fixture.json(&["list"]).as_array().unwrap().len(), 2);
    fixture.acc(&["destroy", "a1", "--force"]).ok();
    fixture.acc(&["purge", "a1"]).ok();
    fixture.create("a3", "tester-tcp");
    for name in ["a3", "a2"] {
        let text = fixture.get(name, "/").status(200).text();
        assert!(text.starts_with(&format!("name: {name}\n")), "{text}");
    }
}
