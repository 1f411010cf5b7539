//! Where requests go, and what arrives there.

mod headers;
mod streams;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fixture::*;
use super::*;
use crate::domain::account::Account;

#[tokio::test]
async fn a_unix_instance_is_reached_by_its_name_with_nothing_but_a_link() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let before = std::fs::read(fixture.edge.file()).unwrap();
    let (gate, seen) = fixture.app("shop");
    assert_eq!(fixture.get("shop.apps.localhost", "/").await.who(), "wake");
    fixture.edge.open(&gate).await.unwrap();
    fixture.edge.apply(&[]).await.unwrap();
    for uri in [
        "/",
        "//a%2Fb/../x?y=1?z&%20",
        "/%C3%A9;p=1/.//?",
        "/a b".replace(' ', "%20").as_str(),
        "/?",
    ] {
        assert_eq!(fixture.get("shop.apps.localhost", uri).await.who(), "shop");
        assert_eq!(
            seen.lock().unwrap().last().unwrap().line(),
            format!("GET {uri} HTTP/1.1")
        );
    }
    fixture.edge.close(&gate).await.unwrap();
    assert_eq!(fixture.get("shop.apps.localhost", "/").await.who(), "wake");
    assert_eq!(std::fs::read(fixture.edge.file()).unwrap(), before);
    assert_eq!(fixture.error_log(), "");
}

#[tokio::test]
async fn other_hosts_and_tcp_come_from_the_maps() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let (shop, _) = fixture.app("shop");
    let (tcp, route, tcp_seen) = fixture.tcp_app("default").await;
    fixture.edge.open(&shop).await.unwrap();
    fixture.edge.open(&tcp).await.unwrap();
    // Until the maps are in force the wake server serves what nginx does not know.
    assert_eq!(fixture.get("shop.example.org", "/").await.who(), "wake");
    assert_eq!(
        fixture.get("default.apps.localhost", "/").await.who(),
        "wake"
    );
    let hosts = [
        "shop.example.org",
        "default",
        "include",
        "test.example",
        "x.shop.apps.localhost",
    ]
    .map(host)
    .to_vec();
    let routes = [
        Route {
            name: name("shop"),
            hosts: hosts.clone(),
            tcp: None,
        },
        route,
    ];
    fixture.edge.apply(&routes).await.unwrap();
    for other in &hosts {
        assert_eq!(
            fixture.get(other.as_str(), "/").await.who(),
            "shop",
            "{other}"
        );
    }
    assert_eq!(fixture.get("shop.apps.localhost", "/").await.who(), "shop");
    assert_eq!(
        fixture.get("default.apps.localhost", "//a?b").await.who(),
        "default"
    );
    assert_eq!(
        tcp_seen.lock().unwrap().last().unwrap().line(),
        "GET //a?b HTTP/1.1"
    );
    assert_eq!(
        fixture
            .post("default.apps.localhost", "/", b"abc")
            .await
            .body,
        b"abc"
    );

    fixture.edge.close(&tcp).await.unwrap();
    for n in 0..3 {
        let answer = if n == 1 {
            fixture.post("default.apps.localhost", "/", b"abc").await
        } else {
            fixture.get("default.apps.localhost", "/").await
        };
        assert_eq!(answer.who(), "wake");
        assert_eq!(
            fixture
                .wake
                .lock()
                .unwrap()
                .last()
                .unwrap()
                .one("x-acc-connect")
                .as_deref(),
            Some("-")
        );
    }
    fixture.edge.open(&tcp).await.unwrap();
    assert_eq!(
        fixture.get("default.apps.localhost", "/").await.who(),
        "default"
    );
    assert_eq!(fixture.error_log(), "");
}

#[tokio::test]
async fn the_wake_server_gets_the_whole_request_and_knows_that_nobody_has_seen_it() {
    if !need_nginx() {
        return;
    }
    let fixture = Fixture::start().await;
    fixture.make_log_folder("shop");
    let body: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    let answer = fixture
        .post("Shop.Apps.Localhost:8080", "//up%2Fload?a=1&b=%20", &body)
        .await;
    assert_eq!((answer.who().as_str(), answer.body == body), ("wake", true));
    let got = fixture.wake.lock().unwrap()[0].clone();
    assert_eq!(got.line(), "POST //up%2Fload?a=1&b=%20 HTTP/1.1");
    assert!(got.body == body);
    assert_eq!(got.one("host").as_deref(), Some("shop.apps.localhost:8080"));
    assert_eq!(
        got.one("x-acc-host").as_deref(),
        Some("shop.apps.localhost")
    );
    assert_eq!(got.one("x-acc-connect").as_deref(), Some("-"));
    assert_eq!(got.one("x-real-ip").as_deref(), Some("127.0.0.1"));

    // A body of unknown length, and a method of its own.
    fixture.send(
        b"PURGE /x HTTP/1.1\r\nHost: shop.apps.localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    )
    .await;
    let got = fixture.wake.lock().unwrap()[1].clone();
    assert_eq!(
        (
            got.line(),
            got.body.as_slice(),
            got.one("content-length").as_deref()
        ),
        ("PURGE /x HTTP/1.1", &b"abc"[..], Some("3"))
    );
    assert!(got.all("transfer-encoding").is_empty());

    // An application that is gone while its gate is open: refused, so not seen either.
    let gate = Gate {
        name: name("shop"),
        listen: crate::domain::instance::Listen::Unix(fixture.config.socket("shop")),
        run: 1,
        process: None,
        account: Account::SameAsAcc,
    };
    fixture.edge.open(&gate).await.unwrap();
    drop(std::fs::create_dir_all(fixture.config.socket_dir("shop")));
    drop(std::os::unix::net::UnixListener::bind(fixture.config.socket("shop")).unwrap());
    fixture.get("shop.apps.localhost", "/").await;
    assert_eq!(
        fixture.wake.lock().unwrap()[2]
            .one("x-acc-connect")
            .as_deref(),
        Some("-")
    );
    assert_eq!(fixture.error_log(), "");
}

#[tokio::test]
async fn an_application_that_breaks_off_is_told_from_one_that_was_not_there() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let (unix, unix_seen) = fixture.app("shop");
    let (tcp, route, tcp_seen) = fixture.tcp_app("port").await;
    fixture.edge.apply(&[route]).await.unwrap();
    fixture.edge.open(&unix).await.unwrap();
    fixture.edge.open(&tcp).await.unwrap();
    for (host, seen) in [
        ("shop.apps.localhost", &unix_seen),
        ("port.apps.localhost", &tcp_seen),
    ] {
        for method in ["GET", "POST"] {
            fixture.wake.lock().unwrap().clear();
            seen.lock().unwrap().clear();
            // The wake server breaks off at this path as well, as if it were killed: it is asked
            // again, the application is not.
            let request = format!(
                "{method} /die HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
            );
            let answer = fixture.send(request.as_bytes()).await;
            assert_eq!(answer.status(), 502);
            let reported = fixture.wake.lock().unwrap().clone();
            assert_eq!(
                seen.lock().unwrap().len(),
                1,
                "{host} {method}: {reported:?} {}",
                fixture.error_log()
            );
            assert_eq!(reported.len(), 3);
            for (n, reported) in reported.iter().enumerate() {
                let seconds = reported.one("x-acc-connect").unwrap();
                assert!(seconds.parse::<f64>().is_ok(), "{seconds}");
                assert_eq!(reported.one("x-acc-status").as_deref(), Some("502"));
                assert_eq!(
                    reported.one("x-acc-again").as_deref(),
                    (n > 0).then_some("1")
                );
                assert_eq!(reported.body, b"abc");
            }
            let ids: std::collections::BTreeSet<_> = reported
                .iter()
                .map(|reported| reported.one("x-acc-request").unwrap())
                .collect();
            assert_eq!(ids.len(), 1);
            assert!(
                ids.iter()
                    .all(|id| crate::proxy::replay_notes::request_id(id).is_some()),
                "{ids:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_applications_own_errors_pass_and_it_cannot_redirect_inside() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let (gate, _) = fixture.app("shop");
    fixture.edge.open(&gate).await.unwrap();
    let answer = fixture.get("shop.apps.localhost", "/502").await;
    assert_eq!(
        (
            answer.status(),
            answer.body.as_slice(),
            answer.header("server").as_deref()
        ),
        (502, &b"mine"[..], Some("own"))
    );
    let answer = fixture.get("shop.apps.localhost", "/redirect").await;
    assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"ok"[..]));
    assert!(fixture.wake.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_acc_the_answer_is_a_plain_502_that_nobody_caches() {
    if !need_nginx() {
        return;
    }
    let fixture = Fixture::start().await;
    std::fs::remove_file(fixture.config.wake_socket()).unwrap();
    let answer = fixture.get("shop.apps.localhost", "/").await;
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
    assert_eq!(answer.header("retry-after").as_deref(), Some("5"));
    assert_eq!(
        answer.header("content-type").as_deref(),
        Some("application/problem+json")
    );
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(problem["status"], 502);
    // That acc does not answer is an error.
    assert!(fixture.error_log().contains("wake.sock"));
}

#[tokio::test]
async fn a_request_that_one_application_has_seen_never_reaches_a_second() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let (tcp, route, tcp_seen) = fixture.tcp_app("port").await;
    let (unix, unix_seen) = fixture.app("shop");
    fixture.edge.apply(&[route]).await.unwrap();
    fixture.edge.open(&tcp).await.unwrap();
    // A link that should not be there: the name listened on a socket in an earlier life.
    let crate::domain::instance::Listen::Unix(socket) = &unix.listen else {
        unreachable!()
    };
    std::os::unix::fs::symlink(socket, fixture.config.gate_dir().join("port.sock")).unwrap();
    assert_eq!(
        fixture
            .post("port.apps.localhost", "/die", b"abc")
            .await
            .status(),
        502
    );
    assert_eq!(
        (
            unix_seen.lock().unwrap().len(),
            tcp_seen.lock().unwrap().len()
        ),
        (1, 0)
    );
    assert!(
        fixture.wake.lock().unwrap()[0]
            .one("x-acc-connect")
            .unwrap()
            .parse::<f64>()
            .is_ok()
    );
}

/// A reload takes time, and old workers continue for a while: their map still has the old port,
/// where another program listens.
#[tokio::test]
async fn a_map_with_an_old_port_leads_to_the_wake_server_and_not_to_who_has_that_port_now() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let (old, route, stranger) = fixture.tcp_app("port").await;
    fixture.edge.apply(&[route]).await.unwrap();
    fixture.edge.open(&old).await.unwrap();
    fixture.post("port.apps.localhost", "/", b"abc").await;
    assert_eq!(stranger.lock().unwrap().len(), 1, "open gate, right port");
    fixture.edge.forget(&old.name).await.unwrap();
    let (new, route, own) = fixture.tcp_app("port").await;
    fixture.edge.open(&new).await.unwrap();
    for body in [&b""[..], b"abc"] {
        assert_eq!(
            fixture
                .post("port.apps.localhost", "/", body)
                .await
                .status(),
            200
        );
    }
    assert_eq!(
        (
            stranger.lock().unwrap().len(),
            fixture.wake.lock().unwrap().len()
        ),
        (1, 2)
    );
    fixture.edge.apply(&[route]).await.unwrap();
    fixture.post("port.apps.localhost", "/", b"abc").await;
    assert_eq!(
        (
            own.lock().unwrap().len(),
            fixture.wake.lock().unwrap().len()
        ),
        (1, 2)
    );
}

#[tokio::test]
async fn workers_of_another_user_reach_gates_and_write_logs() {
    if !need_nginx() {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        assert!(
            std::env::vars().all(|(k, _)| k != "CI"),
            "root is needed in CI"
        );
        return;
    }
    let mut fixture = Fixture::start_with(|config, _| {
        (config.user, config.edge.user) = (Some("nobody".into()), Some("daemon".into()))
    })
    .await;
    let (gate, _) = fixture.app("shop");
    // As the master, the probe and the service do it for these users.
    let user = nix::unistd::User::from_name("daemon").unwrap().unwrap();
    let log = fixture.config.access_log("shop");
    for path in [
        fixture.config.wake_socket(),
        fixture.config.socket("shop"),
        log.parent().unwrap().to_owned(),
    ] {
        nix::unistd::chown(&path, Some(user.uid), Some(user.gid)).unwrap();
    }
    let body = vec![b'x'; 300_000];
    assert_eq!(
        fixture.post("shop.apps.localhost", "/", &body).await.who(),
        "wake"
    );
    fixture.edge.open(&gate).await.unwrap();
    let body = vec![b'x'; 60_000];
    let answer = fixture.post("shop.apps.localhost", "/", &body).await;
    assert_eq!((answer.who().as_str(), answer.body == body), ("shop", true));
    fixture
        .until("two lines", || fixture.log(&log).len() == 2)
        .await;
    assert_eq!(fixture.error_log(), "");
}
