//! Input that clients and applications should not send: other protocols, responses without an end,
//! bodies for unknown hosts, bad requests.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fixture::*;
use super::*;
use crate::domain::account::Account;

/// Answers by hand: `first`, and once the client has sent its next request `second`.
fn by_hand(
    fixture: &mut Fixture,
    who: &str,
    first: Vec<u8>,
    second: Vec<u8>,
) -> (Gate, Arc<tokio::sync::Notify>) {
    fixture.make_log_folder(who);
    let path = fixture.config.socket(who);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let go_on = Arc::new(tokio::sync::Notify::new());
    let reported = go_on.clone();
    fixture.carry(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = client.read(&mut head).await;
            let _ = client.write_all(&first).await;
            reported.notified().await;
            let _ = client.write_all(&second).await;
            let _ = client.shutdown().await;
        }
    });
    (
        Gate {
            name: name(who),
            listen: crate::domain::instance::Listen::Unix(path),
            run: 1,
            process: None,
            account: Account::SameAsAcc,
        },
        go_on,
    )
}

/// A proxy before nginx uses its connections again: what an application adds behind its answer must
/// not be taken for the answer to the next request, which may be for another application.
#[tokio::test]
async fn an_application_does_not_answer_the_next_request_of_a_connection() {
    if !need_nginx() {
        return;
    }
    let whole = |text: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        )
    };
    let beginnings = [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 200\r\n\r\n",
        "HTTP/1.1 199 Odd\r\n\r\n",
        "HTTP/1.1 099 Odd\r\n\r\n",
        "HTTP/1.1 000 Odd\r\n\r\n",
        // What nginx cannot read it takes for an answer of HTTP/0.9; many clients skip empty lines.
        "\r\n",
        "\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/0.9 200 OK\r\n\r\n",
    ];
    let mut fixture = Fixture::start().await;
    let (alice, _) = fixture.app("alice");
    fixture.edge.open(&alice).await.unwrap();
    for (n, beginning) in beginnings.iter().enumerate() {
        let (mallory, go_on) = by_hand(
            &mut fixture,
            &format!("mallory{n}"),
            format!("{beginning}{}", whole("one.")).into(),
            whole("mallory").into(),
        );
        fixture.edge.open(&mallory).await.unwrap();
        let mut client = TcpStream::connect(fixture.address).await.unwrap();
        client
            .write_all(
                format!("GET / HTTP/1.1\r\nHost: mallory{n}.apps.localhost\r\n\r\n").as_bytes(),
            )
            .await
            .unwrap();
        let mut got = Vec::new();
        // As much as there is: a full stop is the end of the first answer.
        let first = async {
            while !got.ends_with(b".") && client.read_buf(&mut got).await.is_ok_and(|n| n > 0) {}
        };
        tokio::time::timeout(Duration::from_secs(2), first)
            .await
            .ok();
        let _ = client
            .write_all(b"GET / HTTP/1.1\r\nHost: alice.apps.localhost\r\nConnection: close\r\n\r\n")
            .await;
        go_on.notify_one();
        let _ = tokio::time::timeout(Duration::from_secs(20), client.read_to_end(&mut got))
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&got);
        assert!(!text.contains("mallory"), "{beginning:?}: {text}");
        // At most one line begins an answer before alice's own.
        let before = text.split("X-Who: alice").next().unwrap();
        assert!(
            before.matches("HTTP/").count() <= 1 + usize::from(before.len() < text.len()),
            "{beginning:?}: {text}"
        );
    }
}

#[tokio::test]
async fn no_protocol_but_web_socket_is_passed_on() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let (gate, seen) = fixture.app("shop");
    let ask = |upgrade: &str, connection: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: shop.apps.localhost\r\nConnection: {connection}\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        )
    };
    for open in [false, true] {
        if open {
            fixture.edge.open(&gate).await.unwrap();
        }
        let others = [
            "h2c",
            "H2C",
            "websocket, h2c",
            "h2c, websocket",
            "TLS/1.0",
            "websocketx",
        ];
        let cases = others.map(|other| (other, "Upgrade, HTTP2-Settings, close", None));
        let web_socket = [
            ("WebSocket", "keep-alive, Upgrade", Some("websocket")),
            ("websocket", "close", None),
        ];
        for (upgrade, connection, passed) in cases.into_iter().chain(web_socket) {
            let mut client = TcpStream::connect(fixture.address).await.unwrap();
            client
                .write_all(ask(upgrade, connection).as_bytes())
                .await
                .unwrap();
            assert_ne!(client.read(&mut [0; 64]).await.unwrap(), 0);
            // A web socket goes by way of acc, which ends it in order.
            let direct = open && passed.is_none();
            let got = if direct {
                seen.lock().unwrap().pop()
            } else {
                fixture.wake.lock().unwrap().pop()
            }
            .unwrap();
            assert_eq!(got.one("upgrade").as_deref(), passed, "{upgrade}");
            assert_eq!(
                got.one("connection").as_deref(),
                Some(if passed.is_some() { "upgrade" } else { "close" }),
                "{upgrade}"
            );
            assert_eq!(got.one("http2-settings"), None);
        }
    }
}

#[tokio::test]
async fn a_body_for_a_host_of_nobody_is_not_taken() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let (_, seen) = fixture.app("shop");
    for host in ["nobody.apps.localhost", "a.example.org"] {
        for length in ["Content-Length: 4000000", "Transfer-Encoding: chunked"] {
            let mut client = TcpStream::connect(fixture.address).await.unwrap();
            let head = format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\n{length}\r\n\r\n"
            );
            client.write_all(head.as_bytes()).await.unwrap();
            // Of the body nothing was sent, and nothing is asked for.
            let mut answer = vec![0; 4096];
            let n = tokio::time::timeout(Duration::from_secs(20), client.read(&mut answer))
                .await
                .unwrap()
                .unwrap();
            let answer = String::from_utf8_lossy(&answer[..n]).into_owned();
            assert!(
                answer.starts_with("HTTP/1.1 404 ")
                    && answer.contains("no application has this name"),
                "{answer}"
            );
        }
        // acc itself answers this if there is no body.
        assert_eq!(fixture.get(host, "/").await.who(), "wake");
    }
    assert_eq!(fixture.wake.lock().unwrap().len(), 2);
    assert_eq!(
        fixture.post("shop.apps.localhost", "/", b"abc").await.who(),
        "wake"
    );
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_nginx_refuses_by_itself_is_said_as_acc_says_it() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start_with(|config, _| config.edge.max_body = 1000).await;
    let (gate, seen) = fixture.app("shop");
    fixture.edge.open(&gate).await.unwrap();
    let host = "Host: shop.apps.localhost\r\n";
    let long = "x".repeat(70_000);
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\n{host}{host}\r\n"), 400),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400),
        ("nonsense\r\n\r\n".into(), 400),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: x\r\n\r\n"), 400),
        ("POST / HTTP/1.1\r\nHost: nobody.apps.localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx".into(), 404),
        (format!("GET /.well-known/acc/error HTTP/1.1\r\n{host}Connection: close\r\n\r\n"), 404),
        (format!("TRACE / HTTP/1.1\r\n{host}\r\n"), 405),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 1001\r\n\r\n"), 413),
        (format!("GET /{long} HTTP/1.1\r\n{host}\r\n"), 414),
        (format!("GET / HTTP/1.1\r\n{host}X-Long: {long}\r\n\r\n"), 431),
        (format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 501),
        (format!("GET / HTTP/3.0\r\n{host}\r\n"), 505),
    ] {
        let answer = fixture.send(request.as_bytes()).await;
        let asked = request.lines().next().unwrap_or_default();
        assert_eq!(answer.status(), status, "{:.60}: {answer:?}", asked);
        assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"), "{answer:?}");
        assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"), "{answer:?}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{answer:?}");
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
        assert_eq!(problem["status"], status, "{answer:?}");
    }
    assert!(seen.lock().unwrap().is_empty() && fixture.wake.lock().unwrap().is_empty());
}

/// Clients with many addresses cannot fill the disk. Short bodies are not on it, and are not
/// counted.
#[tokio::test]
async fn long_bodies_are_bounded_in_number() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start_with(|config, _| config.edge.per_client = Some(512)).await;
    let (gate, _) = fixture.app("shop");
    fixture.edge.open(&gate).await.unwrap();
    let mut held = Vec::new();
    // As many as this address, which many may share, and this instance may have.
    for _ in 0..48 {
        let mut client = TcpStream::connect(fixture.address).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nHost: shop.apps.localhost\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n";
        client.write_all(head).await.unwrap();
        let mut said = [0; 12];
        tokio::time::timeout(Duration::from_secs(20), client.read_exact(&mut said))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&said, b"HTTP/1.1 100");
        held.push(client);
    }
    let long = vec![b'x'; 100_000];
    let refused = fixture.post("shop.apps.localhost", "/", &long).await;
    assert_eq!(
        (refused.status(), refused.header("retry-after").as_deref()),
        (429, Some("2")),
        "{refused:?}"
    );
    let problem: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!(problem["status"], 429);
    assert_eq!(
        fixture
            .post("shop.apps.localhost", "/", b"short")
            .await
            .who(),
        "shop"
    );
    drop(held);
    let again = async {
        while fixture
            .post("shop.apps.localhost", "/", &long)
            .await
            .status()
            != 200
        {}
    };
    tokio::time::timeout(Duration::from_secs(20), again)
        .await
        .unwrap();
}
