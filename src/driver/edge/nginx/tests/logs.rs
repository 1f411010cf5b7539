//! What is written down, and what is not.

use super::fixture::*;
use super::*;
use crate::domain::rule::Rule;

#[tokio::test]
async fn requests_to_sleepers_and_unknown_hosts_leave_no_error_lines() {
    if !need_nginx() {
        return;
    }
    let fixture = Fixture::start().await;
    fixture.make_log_folder("shop");
    for n in 0..1000 {
        let unknown = format!("unknown{n}.apps.localhost");
        let host = if n % 10 == 0 {
            &unknown
        } else {
            "shop.apps.localhost"
        };
        assert_eq!(fixture.get(host, "/").await.who(), "wake");
    }
    assert_eq!(fixture.error_log(), "");
    fixture
        .until("900 lines", || {
            fixture.log(&fixture.config.access_log("shop")).len() == 900
        })
        .await;
    assert_eq!(
        std::fs::read_dir(fixture.config.home.join("log/access"))
            .unwrap()
            .count(),
        1,
        "a log for an unknown host"
    );
}

#[tokio::test]
async fn each_instance_has_its_log_and_rules_choose_which() {
    if !need_nginx() {
        return;
    }
    let nasty = r#"/a"b\c;{d}$e'~^(.*)"#;
    let mut fixture = Fixture::start_with(|config, _| {
        config.rules = vec![
            uncounted_path("/health"),
            Rule {
                path: Some("/counted".into()),
                wake: false,
                counts: true,
                ..Rule::default()
            },
            Rule {
                method: Some("OPTIONS".into()),
                wake: true,
                counts: false,
                ..Rule::default()
            },
            Rule {
                user_agent: Some("Uptime+Bot ;{".into()),
                wake: true,
                counts: false,
                ..Rule::default()
            },
            uncounted_path(nasty),
            Rule {
                path: Some("/both".into()),
                method: Some("POST".into()),
                wake: true,
                counts: false,
                ..Rule::default()
            },
            Rule {
                path: Some("/near".into()),
                client: "127.0.0.1/8".parse().ok(),
                wake: true,
                counts: false,
                ..Rule::default()
            },
            Rule {
                path: Some("/far".into()),
                client: "10.0.0.0/8".parse().ok(),
                wake: true,
                counts: false,
                ..Rule::default()
            },
            Rule {
                path: Some("/six".into()),
                client: "2001:db8::/32".parse().ok(),
                wake: true,
                counts: false,
                ..Rule::default()
            },
        ];
    })
    .await;
    let (gate, _) = fixture.app("shop");
    let requests = [
        ("GET", "/", "", true),
        ("GET", "/healthz?x", "", false),
        ("GET", "/x?/health", "", true),
        ("GET", "/Health", "", true),
        ("OPTIONS", "/", "", false),
        ("OPTIONS", "/counted", "", true),
        ("options", "/", "", true),
        ("GET", "/", "x uptime+bot ;{/2", false),
        ("GET", "/", "uptimebot", true),
        ("GET", nasty, "", false),
        ("GET", "/both", "", true),
        ("POST", "/both", "", false),
        ("GET", "/near", "", false),
        ("GET", "/far", "", true),
        ("GET", "/six", "", true),
    ];
    // Through the wake server first, then directly.
    for round in 1..=2 {
        for (method, path, agent, _) in requests {
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: shop.apps.localhost\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n"
            );
            let answer = fixture.send(head.as_bytes()).await;
            assert!(
                answer.status() == 200 || (method == "options" && answer.status() == 400),
                "{method} {path}: {answer:?}"
            );
        }
        let sent = requests.iter().filter(|r| r.0 != "options");
        let counted = sent.clone().filter(|r| r.3).count();
        let uncounted = sent.count() - counted;
        let now = || {
            (
                fixture.log(&fixture.config.access_log("shop")).len(),
                fixture.log(&fixture.config.uncounted_log("shop")).len(),
            )
        };
        fixture
            .until("the lines", || {
                now() == (counted * round, uncounted * round)
            })
            .await;
        fixture.edge.open(&gate).await.unwrap();
    }
    let line = fixture
        .log(&fixture.config.access_log("shop"))
        .last()
        .unwrap()
        .clone();
    assert!(
        line.starts_with("127.0.0.1 - - [")
            && line.contains("\"GET /six HTTP/1.1\" 200 ")
            && line.contains(" time="),
        "{line}"
    );
    assert_eq!(fixture.error_log(), "");
}

#[tokio::test]
async fn a_rotated_log_is_noticed() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let (gate, _) = fixture.app("shop");
    fixture.edge.open(&gate).await.unwrap();
    let log = fixture.config.access_log("shop");
    fixture.get("shop.apps.localhost", "/").await;
    fixture
        .until("the first line", || fixture.log(&log).len() == 1)
        .await;
    std::fs::rename(&log, log.with_extension("1")).unwrap();
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    while !log.exists() {
        assert!(Instant::now() < deadline, "the new log is never written");
        fixture.get("shop.apps.localhost", "/").await;
    }
}
