//! What a request leaves in the access logs: one line each, of the same form on both edges, also
//! when acc or nginx has answered.

use std::fs;
use std::path::PathBuf;

use crate::support::fixture::SOON;
use crate::support::wait::holds;
use crate::support::{Ask, Combination, Fixture, wait_until};

fn log(fixture: &Fixture, name: &str, file: &str) -> PathBuf {
    fixture.home().join("log/access").join(name).join(file)
}

/// The only line with this target, once it is written, and in which of the two files it is.
fn line(fixture: &Fixture, name: &str, target: &str) -> (Line, &'static str) {
    let mut found = None;
    wait_until(&format!("`{target}` is written down"), SOON, || {
        for file in ["access.log", "uncounted.log"] {
            let text = fs::read_to_string(log(fixture, name, file)).unwrap_or_default();
            let lines: Vec<&str> = text
                .lines()
                .filter(|line| line.contains(&format!(" {target} HTTP/1.1\"")))
                .collect();
            assert!(lines.len() < 2, "{lines:#?}");
            found = found
                .take()
                .or_else(|| lines.first().map(|line| (Line::read(line), file)));
        }
        holds(found.is_some(), "no line")
    });
    found.unwrap()
}

/// The parts of a line; panics if a part has the wrong form.
#[derive(Debug)]
struct Line {
    status: u16,
    sent: u64,
    host: String,
    wake: Option<f64>,
    upstream: Option<u16>,
}

impl Line {
    fn read(line: &str) -> Self {
        let parts: Vec<&str> = line.split('"').collect();
        assert!(
            parts.len() == 7 && parts[0].starts_with("127.0.0.1 - - [") && parts[0].ends_with("] "),
            "{line}"
        );
        let numbers: Vec<&str> = parts[2].trim().split(' ').collect();
        let fields: Vec<(&str, &str)> = parts[6]
            .trim()
            .split(' ')
            .map(|field| field.split_once('=').unwrap())
            .collect();
        assert_eq!(
            fields.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["host", "time", "wake", "answer", "upstream"],
            "{line}"
        );
        let seconds = |at: usize| {
            (fields[at].1 != "-").then(|| {
                fields[at]
                    .1
                    .parse::<f64>()
                    .unwrap_or_else(|e| panic!("{e}: {line}"))
            })
        };
        assert!(
            seconds(1).is_some() && (seconds(3).is_some() == (fields[4].1 != "-")),
            "{line}"
        );
        Self {
            status: numbers[0].parse().unwrap(),
            sent: numbers[1].parse().unwrap(),
            host: fields[0].1.to_owned(),
            wake: seconds(2),
            upstream: (fields[4].1 != "-").then(|| fields[4].1.parse().unwrap()),
        }
    }
}

pub fn each_request_has_its_line(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| {
        (s.idle, s.max_body, s.page_after) = ("60s", "100KiB", "100ms")
    }) else {
        return;
    };
    for model in ["tester", "tester-tcp"] {
        fixture
            .acc(&[
                "create",
                "shop",
                "--model",
                model,
                "--set",
                "start_delay=200ms",
            ])
            .ok();
        let seen = |target: &str| line(&fixture, "shop", target);
        fixture.get("shop", "/?awake").status(200);
        let (awake, file) = seen("/?awake");
        assert_eq!(
            (awake.status, awake.wake, awake.upstream, file),
            (200, None, Some(200), "access.log"),
            "{combination:?}"
        );
        assert_eq!(
            (awake.host.as_str(), awake.sent > 20),
            ("shop.apps.localhost", true),
            "{awake:?}"
        );
        fixture
            .send(&fixture.ask("POST", "shop", "/echo?body").body("x"))
            .status(200);
        let (posted, file) = seen("/echo?body");
        assert_eq!(
            (posted.status, posted.wake, posted.upstream, file),
            (200, None, Some(200), "access.log"),
            "{combination:?}"
        );
        fixture.acc(&["stop", "shop"]).ok();
        fixture.get("shop", "/none?woken").status(404);
        let (woken, file) = seen("/none?woken");
        assert_eq!(
            (woken.status, woken.upstream, file),
            (404, Some(404), "access.log"),
            "{combination:?}"
        );
        assert!(
            woken.wake.is_some_and(|wake| (0.1..20.0).contains(&wake)),
            "{woken:?} ({combination:?})"
        );
        fixture.acc(&["stop", "shop"]).ok();
        fixture
            .send(&fixture.ask("GET", "shop", "/?page").browser())
            .status(503);
        let (page, file) = seen("/?page");
        assert_eq!(
            (page.status, page.upstream, file),
            (503, None, "access.log"),
            "{combination:?}"
        );
        assert!(
            page.wake.is_some_and(|wake| wake >= 0.1) && page.sent > 100,
            "{page:?} ({combination:?})"
        );
        fixture.wait_phase("shop", "awake");
        fixture
            .send(&fixture.ask("POST", "shop", "/crash?broken").body("x"))
            .status(502);
        let (broken, file) = seen("/crash?broken");
        assert_eq!(
            (broken.status, broken.upstream, file),
            (502, None, "access.log"),
            "{combination:?}"
        );
        refused(&fixture, combination);
        fixture.acc(&["destroy", "--force", "shop"]).ok();
        fixture.acc(&["purge", "shop"]).ok();
        fixture
            .send(&Ask::new("GET", "shop.apps.localhost", "/?nobody"))
            .status(404);
        assert!(!log(&fixture, "shop", "").exists(), "{combination:?}");
    }
}

/// A request that does not count as use is not logged as use.
fn refused(fixture: &Fixture, combination: Combination) {
    for (at, ask) in [
        fixture
            .ask("POST", "shop", "/?large")
            .body(vec![0; 200 * 1024]),
        fixture.ask("TRACE", "shop", "/?trace"),
        fixture
            .ask("GET", "shop", "/?coding")
            .header("Transfer-Encoding", "gzip, chunked"),
    ]
    .into_iter()
    .enumerate()
    {
        let (target, status) = [("/?large", 413), ("/?trace", 405), ("/?coding", 501)][at];
        fixture.send(&ask).status(status);
        let (own, file) = line(fixture, "shop", target);
        assert_eq!(
            (own.status, own.wake, own.upstream, file),
            (status, None, None, "uncounted.log"),
            "{combination:?}"
        );
    }
    fixture.acc(&["disable", "shop"]).ok();
    fixture.get("shop", "/?disabled").status(503);
    let (own, file) = line(fixture, "shop", "/?disabled");
    assert_eq!(
        (own.status, own.wake, own.upstream, file),
        (503, None, None, "uncounted.log"),
        "{combination:?}"
    );
    fixture
        .acc(&["logs", "shop", "--access", "-n", "1000"])
        .ok()
        .says(&["/?awake", "/?disabled", "/?large"]);
}

/// A flood of requests for unknown hosts leaves nothing.
#[test]
fn requests_for_unknown_hosts_fill_no_disk() {
    for combination in [Combination::REAL, Combination::BUILTIN] {
        let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
            continue;
        };
        for n in 0..50 {
            fixture
                .send(&fixture.ask("GET", &format!("nobody{n}"), "/"))
                .status(404);
            fixture
                .send(&fixture.ask("TRACE", &format!("nobody{n}"), "/"))
                .status(405);
        }
        fixture.create("shop", "tester");
        fixture.get("shop", "/?last").status(200);
        line(&fixture, "shop", "/?last");
        assert_eq!(
            fs::read_dir(fixture.home().join("log/access"))
                .unwrap()
                .count(),
            1,
            "{combination:?}"
        );
    }
}
