//! The text: what stands in it, and that nothing an operator writes breaks out of its place.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::config::{
    EdgeConfig, EdgeKind, EventsConfig, IdleConfig, LogConfig, LogFormat, StopConfig,
    SupervisorKind, WakeConfig,
};
use crate::domain::port::PortRange;

fn config() -> Config {
    Config {
        file: None,
        home: PathBuf::from("/srv/acc"),
        run: PathBuf::from("/run/acc"),
        domain: HostName::parse("apps.example.org").unwrap(),
        user: None,
        edge: EdgeConfig {
            kind: EdgeKind::Nginx,
            listen: vec!["0.0.0.0:80".parse().unwrap(), "[::]:80".parse().unwrap()],
            max_body: 1 << 30,
            per_client: Some(512),
            shared_addresses: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            trusted_proxies: Vec::new(),
            public_scheme: crate::config::Scheme::Http,
            public_port: None,
            templates: None,
            user: None,
        },
        supervisor: SupervisorKind::Supervisord,
        idle: IdleConfig {
            timeout: Duration::from_secs(1),
            min_awake: Duration::ZERO,
            check_every: None,
            silent_connections: None,
        },
        wake: WakeConfig {
            timeout: Duration::from_secs(1),
            page_after: Duration::from_secs(1),
            max_waiting: 1,
            max_at_once: 1,
            per_client: None,
        },
        stop: StopConfig {
            drain: Duration::from_secs(1),
            drain_streams: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        },
        ports: PortRange {
            first: 20_000,
            last: 20_001,
        },
        log: LogConfig {
            level: "info".into(),
            format: LogFormat::Text,
        },
        events: EventsConfig {
            keep: 1,
            keep_for: Duration::from_secs(1),
        },
        limits: crate::config::LimitsConfig::default(),
        rules: Vec::new(),
    }
}

fn allowance() -> Allowance {
    Allowance {
        run_as: Some(("www-data".into(), "www-data".into())),
        open_files: Some(65_536),
        connections: 16_384,
    }
}

fn rendered(config: &Config, entries: &[NginxEntry<'_>]) -> String {
    text(
        &Templates::new(None).unwrap(),
        config,
        &allowance(),
        entries,
    )
    .unwrap()
}

#[test]
fn says_what_the_settings_say() {
    let shop = InstanceName::parse("shop").unwrap();
    let port = InstanceName::parse("volatile").unwrap();
    let hosts = ["b.example", "a.example", "default"].map(|h| HostName::parse(h).unwrap());
    let address: SocketAddr = "127.0.0.1:20001".parse().unwrap();
    let entries = [
        NginxEntry {
            name: &shop,
            hosts: &hosts,
            tcp: None,
        },
        NginxEntry {
            name: &port,
            hosts: &hosts[..1],
            tcp: Some(address),
        },
    ];
    let text = rendered(&config(), &entries);
    for line in [
        r#"user "www-data" "www-data";"#,
        r#"pid "/run/acc/nginx.pid";"#,
        "worker_rlimit_nofile 65536;",
        "listen 0.0.0.0:80 default_server backlog=4096;",
        "listen [::]:80 default_server backlog=4096;",
        "client_max_body_size 1073741824;",
        r#""~^(?<acc_label>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)\\.apps\\.example\\.org$" $acc_label;"#,
        "a.example shop;",
        "b.example shop;",
        r"\default shop;",
        r"\volatile 127.0.0.1:20001;",
        r#"proxy_pass "http://unix:/run/acc/gate/$acc_instance.sock:";"#,
        r#"access_log "/srv/acc/log/access/$acc_instance/access.log" acc if=$acc_counts;"#,
        r#"proxy_pass "http://unix:/run/acc/wake.sock:";"#,
    ] {
        assert!(text.lines().any(|l| l.trim() == line), "{line}\n{text}");
    }
    // A host that two ask for stands there once: a second one would refuse everything.
    assert_eq!(text.matches("b.example").count(), 1);
    assert!(!text.contains("{{") && !text.contains("{%"));
}

#[test]
fn an_ordinary_user_cannot_change_users() {
    let allowance = Allowance {
        run_as: None,
        open_files: None,
        connections: 512,
    };
    let text = text(&Templates::new(None).unwrap(), &config(), &allowance, &[]).unwrap();
    assert!(
        !text
            .lines()
            .any(|l| l.starts_with("user ") || l.starts_with("worker_rlimit_nofile"))
    );
    assert!(text.contains("worker_connections 512;"));
}

#[test]
fn the_order_of_instances_does_not_matter() {
    let names = ["a", "b"].map(|n| InstanceName::parse(n).unwrap());
    let hosts = ["a.example", "b.example"].map(|h| HostName::parse(h).unwrap());
    let entry = |n: usize| NginxEntry {
        name: &names[n],
        hosts: std::slice::from_ref(&hosts[n]),
        tcp: Some(([127, 0, 0, 1], 9).into()),
    };
    assert_eq!(
        rendered(&config(), &[entry(0), entry(1)]),
        rendered(&config(), &[entry(1), entry(0)])
    );
}

/// What nginx reads in a text between double quotes: its own rule, from the other side.
fn unquote(text: &str) -> String {
    let inner = text
        .strip_prefix('"')
        .and_then(|t| t.strip_suffix('"'))
        .unwrap();
    let mut out = String::new();
    let mut chars = inner.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some('"' | '\'' | '\\')) => out.push(chars.next().unwrap()),
            ('\\', Some('t' | 'n' | 'r')) => panic!("{text} would turn into a control character"),
            ('"', _) => panic!("{text} ends early"),
            _ => out.push(c),
        }
    }
    out
}

#[test]
fn nasty_texts_stay_in_their_place() {
    for nasty in [
        "\"", "\\", "\\\\", "$a", "${a}", ";", "{", "}", "#", "~*", "'", "a b", "\\t\\n", "ä",
        "\\\"", "end\\", "[^", "(?<x>", "*", "",
    ] {
        assert_eq!(unquote(&quoted(nasty).unwrap()), nasty);
        let literal = regex_literal(nasty);
        assert_eq!(unquote(&quoted(&literal).unwrap()), literal);
    }
    for refused in ["a\nb", "a\rb", "a\0b", "\u{7f}", "\t"] {
        assert!(
            quoted(refused)
                .unwrap_err()
                .to_string()
                .contains("control character"),
            "{refused:?}"
        );
    }
    assert_eq!(regex_literal("/a.b-1$"), r"\/a\.b\-1\$");
}

#[test]
fn the_first_rule_that_matches_decides() {
    let mut config = config();
    config.rules = vec![
        Rule {
            path: Some("/a".into()),
            method: Some("GET".into()),
            counts: false,
            ..Rule::default()
        },
        Rule {
            client: "10.1.2.3/8".parse().ok(),
            counts: true,
            ..Rule::default()
        },
    ];
    let text = rendered(&config, &[]);
    for part in [
        "map \"$acc_rule0_path$acc_rule0_method\" $acc_counts_from0 {\n        default $acc_counts_from1;\n        \"11\" 0;",
        "map \"$acc_rule1_client\" $acc_counts_from1 {\n        default $acc_counts_from2;\n        \"1\" 1;",
        "map \"\" $acc_counts_from2 {\n        default 1;",
        "10.0.0.0/8 1;",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn every_folder_that_nginx_would_misread_is_refused() {
    for odd in ["/a$b", "/a:b", "/a\"b", "/a'b", "/a\\b", "/a\nb"] {
        let refused = |config: Config| {
            text(&Templates::new(None).unwrap(), &config, &allowance(), &[])
                .unwrap_err()
                .to_string()
        };
        assert!(
            refused(Config {
                home: odd.into(),
                ..config()
            })
            .contains("cannot read in a path"),
            "{odd}"
        );
        assert!(
            refused(Config {
                run: odd.into(),
                ..config()
            })
            .contains("cannot read in a path"),
            "{odd}"
        );
    }
}

#[test]
fn the_hash_grows_with_the_keys() {
    let host = |key: String| HostView {
        key,
        name: "a".into(),
    };
    assert_eq!(hash_size(&[], &[]), (2048, 512));
    assert_eq!(hash_size(&[host("a".repeat(253))], &[]), (2048, 4096));
    let many: Vec<HostView> = (0..5000).map(|n| host(n.to_string())).collect();
    assert_eq!(hash_size(&many, &[]), (16_384, 512));
}
