//! A proxy in front of acc: which of its headers are trusted once the operator says so, by either
//! edge and in any state of the instance.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};

use crate::support::fixture::SOON;
use crate::support::http::{connect, read_head};
use crate::support::wait::holds;
use crate::support::{Ask, Combination, Fixture, wait_until};

const TRUST: &str = "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]";

fn fixture(combination: Combination, edge: &str, rules: &str) -> Option<Fixture> {
    let fixture = Fixture::with(combination, |s| {
        s.idle = "60s";
        s.edge = edge.to_owned();
        s.rules = rules.to_owned();
    })?;
    fixture.create("shop", "tester");
    Some(fixture)
}

/// The headers that the instance got, without those about its own connection.
fn told(fixture: &Fixture, headers: &[(&str, &str)]) -> BTreeMap<String, String> {
    let ask = headers.iter().fold(
        fixture.ask("GET", "shop", "/headers"),
        |ask, (name, value)| ask.header(name, value),
    );
    read(&fixture.send(&ask).status(200).json())
}

fn read(headers: &serde_json::Value) -> BTreeMap<String, String> {
    let all = headers
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "connection");
    all.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect()
}

/// The headers that the instance should get.
fn expected(fixture: &Fixture, client: &str, scheme: &str, port: u16) -> BTreeMap<String, String> {
    let host = fixture.host("shop");
    let quoted = if client.contains(':') {
        format!("\"[{client}]\"")
    } else {
        client.to_owned()
    };
    let all = [
        ("host", host.clone()),
        ("x-forwarded-for", client.to_owned()),
        ("x-real-ip", client.to_owned()),
        ("x-forwarded-proto", scheme.to_owned()),
        ("x-forwarded-host", host.clone()),
        ("x-forwarded-port", port.to_string()),
        (
            "forwarded",
            format!("for={quoted};host=\"{host}\";proto={scheme}"),
        ),
    ];
    all.into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// The headers sent, and the client, scheme and port that the instance should see.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str, u16);

/// The same on all four combinations, awake or asleep: one list of expectations.
pub fn instances_are_told_the_same_by_both_edges(combination: Combination) {
    let Some(fixture) = fixture(combination, TRUST, "") else {
        return;
    };
    let own = fixture.address().port();
    let (chain, proto, port) = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port");
    let cases: [Case<'_>; 15] = [
        (&[], "127.0.0.1", "http", own),
        (
            &[(chain, "203.0.113.9"), (proto, "https")],
            "203.0.113.9",
            "https",
            443,
        ),
        (
            &[(chain, "203.0.113.9"), (proto, "HTTPS"), (port, "8443")],
            "203.0.113.9",
            "https",
            8443,
        ),
        (
            &[(chain, "6.6.6.6, 203.0.113.9:5678, 10.1.1.1")],
            "203.0.113.9",
            "http",
            own,
        ),
        (
            &[
                (chain, "6.6.6.6"),
                (chain, "203.0.113.9"),
                (chain, "10.1.1.1,10.2.2.2"),
            ],
            "203.0.113.9",
            "http",
            own,
        ),
        (&[(chain, "10.1.1.1, 10.2.2.2")], "10.1.1.1", "http", own),
        (
            &[(chain, "[2001:db8::1]:123"), (proto, "https")],
            "2001:db8::1",
            "https",
            443,
        ),
        (
            &[(chain, "2001:DB8:0:0:1::1")],
            "2001:db8::1:0:0:1",
            "http",
            own,
        ),
        (&[(chain, "::ffff:203.0.113.9")], "203.0.113.9", "http", own),
        (
            &[(chain, "unknown"), (proto, "ftp"), (port, "0")],
            "127.0.0.1",
            "http",
            own,
        ),
        (
            &[(chain, "203.0.113.9, unknown, 10.1.1.1"), (port, "65536")],
            "10.1.1.1",
            "http",
            own,
        ),
        (
            &[(chain, "203.0.113.9, _hidden"), (port, "x80")],
            "127.0.0.1",
            "http",
            own,
        ),
        (
            &[(chain, "203.0.113.9"), (chain, "")],
            "127.0.0.1",
            "http",
            own,
        ),
        (
            &[
                (chain, "203.0.113.9"),
                ("X-Forwarded-Host", "evil.org"),
                ("Forwarded", "for=6.6.6.6;proto=https"),
            ],
            "203.0.113.9",
            "http",
            own,
        ),
        (
            &[
                (chain, "203.0.113.9"),
                ("X-Client-IP", "6.6.6.6"),
                ("X_Forwarded_Proto", "https"),
            ],
            "203.0.113.9",
            "http",
            own,
        ),
    ];
    for state in ["awake", "asleep"] {
        for (headers, client, scheme, port) in cases {
            if state == "asleep" {
                fixture.acc(&["stop", "shop"]).ok();
            }
            assert_eq!(
                told(&fixture, headers),
                expected(&fixture, client, scheme, port),
                "{headers:?} ({state}, {combination:?})"
            );
        }
        if state == "asleep" {
            fixture.acc(&["stop", "shop"]).ok();
        }
        let passed = told(
            &fixture,
            &[
                (chain, "203.0.113.9"),
                ("CF-Connecting-IP", "203.0.113.9"),
                ("CF_Connecting_IP", "6.6.6.6"),
            ],
        );
        assert_eq!(
            passed.get("cf-connecting-ip").map(String::as_str),
            Some("203.0.113.9"),
            "{passed:?} ({state}, {combination:?})"
        );
        assert!(
            !passed.values().any(|value| value.contains("6.6.6.6")),
            "{passed:?}"
        );
        // Two clients of the proxy, one after the other on the same connection.
        let mut proxy = connect(fixture.address()).unwrap();
        for client in ["203.0.113.9", "203.0.113.10"] {
            write!(
                proxy,
                "GET /headers HTTP/1.1\r\nHost: {}\r\n{chain}: {client}\r\n\r\n",
                fixture.host("shop")
            )
            .unwrap();
            let mut open = read_head(proxy.try_clone().unwrap(), "GET").unwrap();
            let mut body = Vec::new();
            open.body.read_to_end(&mut body).unwrap();
            assert_eq!(
                read(&serde_json::from_slice(&body).unwrap()),
                expected(&fixture, client, "http", own),
                "{state} ({combination:?})"
            );
        }
        // The host as it was sent, in whatever spelling.
        for spelled in [
            "SHOP.apps.localhost",
            "shop.apps.localhost.",
            "Shop.Apps.LocalHost.:8080",
        ] {
            let plain = if spelled.ends_with("8080") {
                "shop.apps.localhost:8080"
            } else {
                "shop.apps.localhost"
            };
            let seen = read(
                &fixture
                    .send(&Ask::new("GET", spelled, "/headers"))
                    .status(200)
                    .json(),
            );
            assert_eq!(
                (seen["host"].as_str(), seen["x-forwarded-host"].as_str()),
                (plain, plain),
                "{spelled} ({combination:?})"
            );
        }
    }
}

pub fn a_reload_applies_trusted_proxies_and_the_public_scheme(combination: Combination) {
    let Some(fixture) = fixture(combination, "trusted_proxies = [\"192.0.2.0/24\"]", "") else {
        return;
    };
    let said = [
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Port", "444"),
        ("True-Client-IP", "9.9.9.9"),
    ];
    let own = fixture.address().port();
    assert_eq!(
        told(&fixture, &said),
        expected(&fixture, "127.0.0.1", "http", own),
        "of a stranger ({combination:?})"
    );
    assert_eq!(
        fixture.info("shop")["url"],
        format!("http://shop.apps.localhost:{own}/")
    );
    let before = fs::read_to_string(fixture.config()).unwrap();
    let public =
        "trusted_proxies = [\"127.0.0.0/8\"]\npublic_scheme = \"https\"\npublic_port = 8443";
    fs::write(
        fixture.config(),
        before.replace("trusted_proxies = [\"192.0.2.0/24\"]", public),
    )
    .unwrap();
    fixture.acc(&["reload"]).ok();
    wait_until("the reload is in force", SOON, || {
        let mut seen = told(&fixture, &said);
        holds(
            seen.remove("true-client-ip").is_some()
                && seen == expected(&fixture, "203.0.113.9", "https", 444),
            format!("{seen:?}"),
        )
    });
    // From a proxy that sends none of these headers.
    assert_eq!(
        told(&fixture, &[]),
        expected(&fixture, "127.0.0.1", "https", 8443),
        "{combination:?}"
    );
    assert_eq!(
        told(&fixture, &[("X-Forwarded-Proto", "http")]),
        expected(&fixture, "127.0.0.1", "http", 80),
        "{combination:?}"
    );
    assert_eq!(
        fixture.info("shop")["url"],
        "https://shop.apps.localhost:8443/"
    );
    fixture
        .acc(&["list"])
        .ok()
        .says(&["https://shop.apps.localhost:8443/"]);
    let dir = fixture.model("linked", "command = [\"{{ acc }}\", \"demo-app\", \"--socket\", \"{{ socket }}\", \"--name\", \"{{ url }}\"]\n");
    assert!(dir.is_dir());
    fixture
        .acc(&["create", "blog", "--model", "linked"])
        .ok()
        .says(&["https://blog.apps.localhost:8443/"]);
    assert!(
        fixture
            .get("blog", "/")
            .status(200)
            .text()
            .contains("name: https://blog.apps.localhost:8443/\n"),
        "{combination:?}"
    );
    fs::write(
        fixture.config(),
        before.replace("192.0.2.0/24", "everybody"),
    )
    .unwrap();
    fixture
        .acc(&["reload"])
        .error(2)
        .says(&["edge.trusted_proxies[0]: not a network such as"]);
}

/// Rules, logs and limits apply to the client that the proxy names, and never to the proxy.
pub fn the_client_named_by_a_trusted_proxy_is_the_one_that_counts(combination: Combination) {
    let rules = "[[rules]]\nclient = \"203.0.113.0/24\"\nwake = false\n";
    let Some(fixture) = fixture(combination, &format!("{TRUST}\nper_client = 2"), rules) else {
        return;
    };
    let ask = |target: &str, client: &str| {
        fixture
            .ask("GET", "shop", target)
            .header("X-Forwarded-For", client)
    };
    fixture.acc(&["stop", "shop"]).ok();
    fixture.send(&ask("/", "203.0.113.9")).status(503);
    fixture.send(&ask("/", "198.51.100.9")).status(200);
    fixture.send(&ask("/", "203.0.113.9")).status(200);
    let log = fixture.home().join("log/access/shop/access.log");
    wait_until("the believed client is in the log", SOON, || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        holds(
            text.lines()
                .any(|line| line.starts_with("198.51.100.9 - - [")),
            text,
        )
    });
    for state in ["awake", "asleep"] {
        if state == "asleep" {
            fixture.acc(&["stop", "shop"]).ok();
        }
        let mut held: Vec<_> = (0..2)
            .map(|_| {
                ask("/stream?seconds=60", "198.51.100.9")
                    .open(fixture.address())
                    .unwrap()
            })
            .collect();
        assert!(held.iter().all(|open| open.reply.status == 200));
        assert_eq!(
            fixture.send(&ask("/", "198.51.100.9")).status,
            429,
            "{state} ({combination:?})"
        );
        fixture.send(&ask("/", "198.51.100.10")).status(200);
        // The proxy itself has no limit, because it stands for an unknown number of clients.
        let more: Vec<_> = (0..5)
            .map(|_| {
                fixture
                    .ask("GET", "shop", "/stream?seconds=60")
                    .open(fixture.address())
                    .unwrap()
                    .reply
                    .status
            })
            .collect();
        assert_eq!(more, [200; 5], "{state} ({combination:?})");
        held.clear();
        wait_until("its places are free again", SOON, || {
            let status = fixture.send(&ask("/", "198.51.100.9")).status;
            holds(status == 200, status)
        });
    }
    fixture.acc(&["stop", "shop", "--now"]).ok();
}
