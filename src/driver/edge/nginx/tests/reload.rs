//! How configurations come into force, and how they do not.

use std::os::unix::fs::PermissionsExt;

use super::fixture::*;
use super::*;

fn route(who: &str, other: &str) -> Route {
    Route {
        name: name(who),
        hosts: vec![host(other)],
        tcp: None,
    }
}

/// A template that nginx refuses as soon as this host is in it.
fn template_that_breaks_at(dir: &Path, config: &mut Config, bad_host: &str) {
    let line = "{{ host.key }} {{ host.name }};";
    let breaks = r#"{{ host.key }} {{ host.name }}{% if host.key != "BAD" %};{% endif %}"#
        .replace("BAD", bad_host);
    let own = include_str!("../../../../../templates/nginx/nginx.conf").replace(line, &breaks);
    std::fs::create_dir_all(dir.join("t/nginx")).unwrap();
    std::fs::write(dir.join("t/nginx/nginx.conf"), own).unwrap();
    config.edge.templates = Some(dir.join("t"));
}

#[tokio::test]
async fn a_refused_configuration_changes_nothing_and_names_the_culprit() {
    if !need_nginx() {
        return;
    }
    let mut fixture =
        Fixture::start_with(|config, dir| template_that_breaks_at(dir, config, "bad.example"))
            .await;
    let (gate, _) = fixture.app("good");
    fixture.edge.open(&gate).await.unwrap();
    fixture
        .edge
        .apply(&[route("good", "good.example")])
        .await
        .unwrap();
    let before = std::fs::read(fixture.edge.file()).unwrap();

    let mut routes: Vec<Route> = (0..9)
        .map(|n| route(&format!("i{n}"), &format!("h{n}.example")))
        .collect();
    routes.insert(6, route("villain", "bad.example"));
    for refused in [
        fixture.edge.apply(&routes).await,
        fixture.edge.prepare(&routes).await,
    ] {
        let Err(EdgeError::Refused { culprit, why }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(culprit.as_deref(), Some("villain"));
        assert!(
            why.contains("nginx.conf.next:") && why.contains('`'),
            "{why}"
        );
    }
    assert_eq!(std::fs::read(fixture.edge.file()).unwrap(), before);
    assert_eq!(fixture.get("good.example", "/").await.who(), "good");
    let left: Vec<_> = std::fs::read_dir(fixture.config.nginx_dir())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
    fixture
        .edge
        .apply(&[route("good", "better.example")])
        .await
        .unwrap();
    assert_eq!(fixture.get("better.example", "/").await.who(), "good");
}

#[tokio::test]
async fn a_template_that_is_wrong_by_itself_blames_nobody() {
    if !need_nginx() {
        return;
    }
    let fixture = Fixture::new(|config, dir| {
        std::fs::create_dir_all(dir.join("t/nginx")).unwrap();
        std::fs::write(
            dir.join("t/nginx/nginx.conf"),
            "events {}\nbogus {{ max_body }};\n",
        )
        .unwrap();
        config.edge.templates = Some(dir.join("t"));
    });
    let refused = fixture
        .edge
        .prepare(&[route("a", "a.example")])
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, EdgeError::Refused { culprit: None, .. }),
        "{refused:?}"
    );
    assert!(
        refused.to_string().contains("`bogus 8388608;`"),
        "{refused}"
    );
    assert!(!fixture.edge.file().exists());
}

#[tokio::test]
async fn many_at_once_share_at_most_two_reloads() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start_with(|config, dir| {
        // At this level nginx logs that it was asked to reload.
        let own = include_str!("../../../../../templates/nginx/nginx.conf")
            .replace("{{ error_log }}\" warn;", "{{ error_log }}\" notice;");
        std::fs::create_dir_all(dir.join("t/nginx")).unwrap();
        std::fs::write(dir.join("t/nginx/nginx.conf"), own).unwrap();
        config.edge.templates = Some(dir.join("t"));
    })
    .await;
    let (gate, _) = fixture.app("shop");
    fixture.edge.open(&gate).await.unwrap();
    let reloads = |fixture: &Fixture| {
        fixture
            .error_log()
            .lines()
            .filter(|l| l.contains("(SIGHUP)"))
            .count()
    };
    // As the service would: each caller asks for all routes there are by then.
    let all = Arc::new(Mutex::new(Vec::new()));
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (edge, all) = (fixture.edge.clone(), all.clone());
        callers.spawn(async move {
            let routes = {
                let mut all = all.lock().unwrap();
                all.push(host(&format!("h{n}.example")));
                [Route {
                    name: name("shop"),
                    hosts: all.clone(),
                    tcp: None,
                }]
            };
            edge.apply(&routes).await.unwrap();
        });
    }
    callers.join_all().await;
    assert!(
        (1..=2).contains(&reloads(&fixture)),
        "{}",
        fixture.error_log()
    );
    for n in 0..20 {
        assert_eq!(
            fixture.get(&format!("h{n}.example"), "/").await.who(),
            "shop"
        );
    }
    let (before, at) = (reloads(&fixture), Instant::now());
    let same = [Route {
        name: name("shop"),
        hosts: all.lock().unwrap().clone(),
        tcp: None,
    }];
    fixture.edge.apply(&same).await.unwrap();
    assert_eq!(
        reloads(&fixture),
        before,
        "the same routes again are nothing to do"
    );
    assert!(at.elapsed() < BETWEEN_RELOADS);

    // A reload that was due when acc was killed is made up for.
    std::fs::write(fixture.edge.due(), "").unwrap();
    edge(fixture.config.clone()).apply(&same).await.unwrap();
    assert_eq!(reloads(&fixture), before + 1);
    assert!(!fixture.edge.due().exists());
}

#[tokio::test]
async fn preparing_again_while_nginx_runs_leaves_the_reload_to_apply() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let (gate, _) = fixture.app("shop");
    fixture.edge.open(&gate).await.unwrap();
    let routes = [route("shop", "a.example")];
    fixture.edge.prepare(&routes).await.unwrap();
    assert_eq!(fixture.get("a.example", "/").await.who(), "wake");
    fixture.edge.prepare(&routes).await.unwrap();
    fixture.edge.apply(&routes).await.unwrap();
    assert_eq!(fixture.get("a.example", "/").await.who(), "shop");
    // Stopped: written for the next start.
    fixture.stop();
    fixture
        .until("nginx is gone", || {
            fixture.edge.running().unwrap().is_none()
        })
        .await;
    fixture
        .edge
        .apply(&[route("shop", "b.example")])
        .await
        .unwrap();
    fixture.run().await;
    assert_eq!(fixture.get("b.example", "/").await.who(), "shop");
    assert!(!fixture.edge.due().exists());
}

#[tokio::test]
async fn ten_thousand_hosts_of_the_longest_kind() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let (gate, _) = fixture.app(&"s".repeat(63));
    fixture.edge.open(&gate).await.unwrap();
    let label = "x".repeat(60);
    let longest = |n: u32| {
        host(&format!(
            "{n:05}.{label}.{label}.{label}.{}",
            "y".repeat(64 - 1)
        ))
    };
    let routes: Vec<Route> = (0..10_000)
        .map(|n| Route {
            name: gate.name.clone(),
            hosts: vec![longest(n)],
            tcp: Some(([127, 0, 0, 1], 9).into()),
        })
        .map(|r| Route { tcp: None, ..r })
        .collect();
    assert!(routes[0].hosts[0].as_str().len() > 245);
    fixture.edge.apply(&routes).await.unwrap();
    assert_eq!(
        fixture
            .get(routes[9_999].hosts[0].as_str(), "/")
            .await
            .who(),
        gate.name.as_str()
    );
    assert_eq!(
        fixture.error_log(),
        "",
        "nginx has to say something of its hash tables"
    );
}

/// A program called nginx that prints this text.
fn pretend(dir: &Path, says: &str) -> PathBuf {
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(bin.join("nginx"), format!("#!/bin/sh\necho '{says}' >&2\n")).unwrap();
    std::fs::set_permissions(bin.join("nginx"), std::fs::Permissions::from_mode(0o755)).unwrap();
    bin
}

#[tokio::test]
async fn a_missing_old_or_strange_program_is_told_with_the_way_out() {
    let fixture = Fixture::new(|_, _| {});
    let with = |search: Vec<PathBuf>| {
        let settings = NginxSettings {
            search,
            ..NginxSettings::new(fixture.config.clone())
        };
        Nginx::new(settings, Arc::new(Templates::new(None).unwrap())).unwrap()
    };
    let cases = [
        (fixture.dir.path().join("empty"), "`nginx` is not installed"),
        (
            pretend(fixture.dir.path(), "nginx version: nginx/1.14.2"),
            "is version 1.14.2, acc needs 1.18.0 or later",
        ),
    ];
    for (dir, expected) in cases {
        let error = with(vec![dir]).prepare(&[]).await.unwrap_err();
        assert!(
            matches!(&error, EdgeError::Unusable(text) if text.contains(expected) && text.contains("builtin")),
            "{error}"
        );
    }
    let strange = with(vec![pretend(fixture.dir.path(), "hello")]);
    assert!(
        strange
            .version()
            .await
            .unwrap_err()
            .to_string()
            .contains("does not report its version: hello")
    );
}

#[tokio::test]
async fn folders_that_nginx_cannot_be_told_are_refused() {
    for odd in ["a$b", "a:b", "a\"b", "a\\b", "a\nb"] {
        let fixture = Fixture::new(|config, dir| config.run = dir.join(odd));
        let error = fixture.edge.prepare(&[]).await.unwrap_err().to_string();
        assert!(
            error.contains("which nginx cannot read in a path") || error.contains("not installed"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_service_is_nginx_in_the_foreground() {
    if !need_nginx() {
        return;
    }
    let fixture = Fixture::new(|_, _| {});
    let service = fixture.edge.service().unwrap().unwrap();
    assert!(service.argv[0].ends_with("/nginx"));
    assert_eq!(
        service.argv[1..],
        [
            "-c",
            fixture.edge.file().to_str().unwrap(),
            "-g",
            "daemon off;"
        ]
    );
    assert_eq!(
        (service.name, service.stop_signal),
        ("nginx", libc::SIGQUIT)
    );
    assert!(fixture.edge.version().await.unwrap() >= OLDEST);
    assert_eq!(fixture.edge.running().unwrap(), None);
}
