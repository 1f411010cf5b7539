//! What a client can say in its headers, and what only the edge may say.

use super::*;

#[tokio::test]
async fn what_the_edge_says_of_a_client_cannot_be_said_by_the_client() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let (gate, seen) = fixture.app("shop");
    let listed = crate::domain::edge_headers::EDGE_ONLY
        .iter()
        .map(|name| (*name).to_owned());
    let spoofed: Vec<String> = listed
        .chain(["X_Real_IP", "X_Forwarded_For", "x_client-ip", "X-Real-Ip"].map(str::to_owned))
        .collect();
    let lines: String = spoofed
        .iter()
        .map(|n| format!("{n}: evil\r\n{n}: evil2\r\n"))
        .collect();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: shop.apps.localhost\r\nConnection: close\r\nX-Own: kept\r\n{lines}\r\n"
    );
    let expected = [
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.apps.localhost"),
        (
            "forwarded",
            "for=127.0.0.1;host=\"shop.apps.localhost\";proto=http",
        ),
        ("host", "shop.apps.localhost"),
        ("x-own", "kept"),
    ];
    fixture.send(request.as_bytes()).await;
    fixture.edge.open(&gate).await.unwrap();
    fixture.send(request.as_bytes()).await;
    let (woken, direct) = (
        fixture.wake.lock().unwrap()[0].clone(),
        seen.lock().unwrap()[0].clone(),
    );
    for got in [&woken, &direct] {
        for (header, value) in expected {
            assert_eq!(got.one(header).as_deref(), Some(value), "{header}");
        }
        assert!(!got.head.contains("evil"), "{}", got.head);
    }
    for header in ["x-acc-connect", "x-acc-status", "x-acc-host", "upgrade"] {
        assert!(direct.all(header).is_empty(), "{header}");
    }
    assert_eq!(woken.one("x-acc-connect").as_deref(), Some("-"));
}

#[tokio::test]
async fn games_with_the_host_end_in_400_or_at_the_wake_server() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let (gate, seen) = fixture.app("shop");
    fixture.edge.open(&gate).await.unwrap();
    // The same instance, spelled differently.
    for spelling in [
        "SHOP.apps.LOCALHOST",
        "shop.apps.localhost:80",
        "shop.apps.localhost.",
        "shop.apps.localhost.:8080",
    ] {
        assert_eq!(fixture.get(spelling, "/").await.who(), "shop", "{spelling}");
    }
    let absolute = "GET http://shop.apps.localhost/abs?x HTTP/1.1\r\nHost: other.apps.localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(fixture.send(absolute.as_bytes()).await.who(), "shop");
    let got = seen.lock().unwrap().last().unwrap().clone();
    assert_eq!(
        (got.line(), got.one("host").as_deref()),
        ("GET /abs?x HTTP/1.1", Some("shop.apps.localhost"))
    );
    // No instance can have this name: acc answers.
    let long = format!("{}.apps.localhost", "a".repeat(64));
    let longer = format!("{}.apps.localhost", "a".repeat(300));
    for odd in [
        "x_y.apps.localhost",
        "a.b.apps.localhost",
        "-a.apps.localhost",
        "apps.localhost",
        "shop.apps.localhostx",
        "shopXapps.localhost",
        "ä.apps.localhost",
        "[::1]",
        "127.0.0.1",
        &long,
        &longer,
    ] {
        let answer = fixture.get(odd, "/").await;
        assert!(
            answer.who() == "wake" || answer.status() == 400,
            "{odd}: {answer:?}"
        );
    }
    for bad in [
        "..",
        "a..apps.localhost",
        "../../shop",
        "shop.apps.localhost/x",
        "a/../shop.apps.localhost",
    ] {
        let answer = fixture.get(bad, "/").await;
        assert!(
            answer.who() != "shop" && (answer.who() == "wake" || answer.status() == 400),
            "{bad}: {answer:?}"
        );
    }
    for refused in [
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: shop.apps.localhost\r\nHost: other.apps.localhost\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop.apps.localhost\r\nConnection: close\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        assert_eq!(
            fixture.send(refused.as_bytes()).await.status(),
            400,
            "{refused}"
        );
    }
    // HTTP/1.0 may come without a host.
    assert_eq!(fixture.send(b"GET / HTTP/1.0\r\n\r\n").await.who(), "wake");
    assert_eq!(fixture.error_log(), "");
}
