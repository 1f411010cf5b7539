//! Hosts and headers as clients send them, friendly and hostile, on the edge that faces the
//! network.

use crate::support::wait::holds;
use crate::support::{Ask, Combination, Fixture, http, wait_until};

pub fn one_host_has_many_spellings(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let spellings = [
        "shop.apps.localhost",
        "SHOP.Apps.LocalHost",
        "shop.apps.localhost.",
        "shop.apps.localhost:8080",
        "Shop.apps.localhost.:80",
    ];
    for state in ["awake", "asleep"] {
        for host in spellings {
            if state == "asleep" {
                fixture.acc(&["stop", "shop"]).ok();
            }
            assert!(
                fixture
                    .send(&Ask::new("GET", host, "/"))
                    .status(200)
                    .text()
                    .contains("shop"),
                "{host}"
            );
        }
        let absolute = "GET http://shop.apps.localhost/ HTTP/1.1\r\nHost: elsewhere.example.org\r\nConnection: close\r\n\r\n";
        assert_eq!(
            http::raw(fixture.address(), absolute.as_bytes())
                .unwrap()
                .status,
            200,
            "the absolute form wins over Host ({state})"
        );
    }
}

pub fn unknown_and_wrong_hosts(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let unknown = fixture.get("nobody", "/").status(404);
    assert!(
        unknown
            .header("cache-control")
            .is_some_and(|c| c.contains("no-store")),
        "{unknown:?}"
    );
    let long = format!("{}.apps.localhost", "a".repeat(300));
    for (host, status) in [
        ("127.0.0.1", 404),
        ("[::1]", 404),
        ("apps.localhost", 404),
        ("a.shop.apps.localhost", 404),
        ("shop.apps.localhost.evil.org", 404),
        ("..", 400),
        ("../shop.apps.localhost", 400),
        ("shop_1.apps.localhost", 404),
        ("acc.apps.localhost", 404),
        ("\u{e9}.apps.localhost", 400),
        (&long, 404),
    ] {
        let reply = fixture.send(&Ask::new("GET", host, "/"));
        assert_eq!(reply.status, status, "{host:.60}");
    }
    let raw = |text: &str| http::raw(fixture.address(), text.as_bytes()).map(|r| r.status);
    let shop = "shop.apps.localhost";
    for (text, what) in [
        (
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
            "no Host",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: {shop}\r\nHost: other.example.org\r\nConnection: close\r\n\r\n"
            ),
            "two Hosts",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: {shop} x\r\nConnection: close\r\n\r\n"),
            "a Host with a space",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost : {shop}\r\nConnection: close\r\n\r\n"),
            "a space before the colon",
        ),
        (
            "GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n".to_owned(),
            "an empty Host",
        ),
        ("nonsense\r\n\r\n".to_owned(), "no HTTP at all"),
    ] {
        assert_eq!(raw(&text).unwrap(), 400, "{what}");
    }
    // Both lengths at once: nginx refuses the request, acc passes it on as one unambiguous request;
    // the second request in its body never becomes a request of its own.
    let before = fixture.told("shop", "REQ").len();
    let smuggle = format!(
        "POST /echo HTTP/1.1\r\nHost: {shop}\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: {shop}\r\n\r\n"
    );
    let (status, passed) = if combination.edge == "nginx" {
        (400, 0)
    } else {
        (200, 1)
    };
    assert_eq!(raw(&smuggle).unwrap(), status, "both lengths");
    fixture.get("shop", "/").status(200);
    assert_eq!(
        fixture.told("shop", "REQ").len(),
        before + passed + 1,
        "a smuggled request reached the instance"
    );
    assert!(
        fixture.json(&["list"]).as_array().unwrap().len() == 1 && fixture.phase("shop") == "awake"
    );
}

pub fn clients_cannot_set_what_only_the_edge_may(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    for state in ["awake", "asleep"] {
        if state == "asleep" {
            fixture.acc(&["stop", "shop"]).ok();
        }
        let mut ask = fixture.ask("GET", "shop", "/headers");
        for (name, value) in [
            ("X-Acc-Connect", "0.001"),
            ("X-Acc-Status", "504"),
            ("X-Acc-Host", "other.apps.localhost"),
            ("X-Real-IP", "10.9.8.7"),
        ] {
            ask = ask.header(name, value);
        }
        ask = ask
            .header("X-Forwarded-For", "10.9.8.7")
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Host", "evil")
            .header("Forwarded", "for=10.9.8.7");
        let seen = fixture.send(&ask).status(200).text().to_lowercase();
        assert!(
            !seen.contains("10.9.8.7") && !seen.contains("x-acc-") && !seen.contains("evil"),
            "{state}: {seen}"
        );
        assert!(
            seen.contains("x-forwarded-for") && seen.contains("127.0.0.1"),
            "{state}: {seen}"
        );
        assert!(
            seen.contains("x-forwarded-proto") && seen.contains("shop.apps.localhost"),
            "{state}: {seen}"
        );
    }
    // Headers that a client invents do not make a POST repeatable, and do not get it refused.
    fixture.acc(&["stop", "shop"]).ok();
    fixture
        .send(
            &fixture
                .ask("POST", "shop", "/echo")
                .header("X-Acc-Connect", "0.5")
                .body("x"),
        )
        .status(200);
}

pub fn a_browser_gets_the_waiting_page(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| (s.page_after, s.idle) = ("100ms", "60s"))
    else {
        return;
    };
    fixture
        .acc(&[
            "create",
            "shop",
            "--model",
            "tester",
            "--set",
            "start_delay=1500ms",
            "--asleep",
        ])
        .ok();
    std::thread::scope(|scope| {
        let api = scope.spawn(|| fixture.get("shop", "/"));
        let page = fixture
            .send(&fixture.ask("GET", "shop", "/").browser())
            .status(503);
        assert!(
            page.header("content-type")
                .is_some_and(|c| c.starts_with("text/html")),
            "{page:?}"
        );
        assert!(
            page.header("cache-control")
                .is_some_and(|c| c.contains("no-store")),
            "{page:?}"
        );
        assert!(page.header("retry-after").is_some(), "{page:?}");
        assert!(
            page.text().contains("<html") && page.text().contains("http-equiv"),
            "{}",
            page.text()
        );
        // All other clients are held and get the application's own answer.
        assert!(api.join().unwrap().status(200).text().contains("shop"));
    });
    wait_until(
        "the browser's reload reaches the application",
        crate::support::fixture::SOON,
        || {
            let reply = fixture.send(&fixture.ask("GET", "shop", "/").browser());
            holds(
                reply.status == 200 && reply.text().contains("shop"),
                reply.status,
            )
        },
    );
}
