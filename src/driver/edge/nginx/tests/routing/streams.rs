//! Streams and long bodies: how they pass, where they end, and what refuses them.

use super::*;

#[tokio::test]
async fn streams_pass_as_they_come_and_outlive_a_reload_or_go_by_way_of_acc() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let (gate, seen) = fixture.app("shop");
    fixture.edge.open(&gate).await.unwrap();
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    stream
        .write_all(
            b"GET /stream HTTP/1.1\r\nHost: shop.apps.localhost\r\nConnection: close\r\n\r\n",
        )
        .await
        .unwrap();

    fixture
        .until("it is asked", || seen.lock().unwrap().len() == 1)
        .await;
    // The first events arrive while the application still sends for most of a second. The buffer
    // has room for all of them: a short read would look like a stream.
    let mut events = Vec::with_capacity(64 * 1024);
    while events.windows(4).filter(|w| w == b"tick").count() < 3 {
        assert_ne!(stream.read_buf(&mut events).await.unwrap(), 0);
    }
    assert!(
        events.windows(4).filter(|w| w == b"tick").count() < 10,
        "the stream sticks in nginx"
    );

    fixture
        .edge
        .apply(&[Route {
            name: name("shop"),
            hosts: vec![host("a.example")],
            tcp: None,
        }])
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut events))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(events.windows(4).filter(|w| w == b"tick").count(), 20);
    assert!(events.ends_with(b"0\r\n\r\n"));

    // Awake or asleep, what is a stream by its request goes through the wake server, which ends it
    // in order.
    let asks = [
        "Connection: Upgrade\r\nUpgrade: websocket",
        "Connection: close\r\nAccept: text/html, Text/Event-Stream;q=0.9",
    ];
    for (nth, headers) in asks.into_iter().cycle().take(4).enumerate() {
        if nth == 2 {
            fixture.edge.close(&gate).await.unwrap();
        }
        let mut socket = TcpStream::connect(fixture.address).await.unwrap();
        socket
            .write_all(
                format!("GET /ws HTTP/1.1\r\nHost: shop.apps.localhost\r\n{headers}\r\n\r\n")
                    .as_bytes(),
            )
            .await
            .unwrap();
        fixture
            .until("the wake server is asked", || {
                fixture.wake.lock().unwrap().len() > nth
            })
            .await;
        let upgrade = fixture.wake.lock().unwrap()[nth].one("upgrade");
        assert_eq!(upgrade.as_deref(), (nth % 2 == 0).then_some("websocket"));
    }
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_stream_that_ends_with_its_connection_does_not_stick_when_it_says_so() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let (gate, _) = fixture.app("shop");
    fixture.edge.open(&gate).await.unwrap();
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    stream
        .write_all(b"GET /stream-to-the-end HTTP/1.0\r\nHost: shop.apps.localhost\r\n\r\n")
        .await
        .unwrap();
    let ticks = |events: &[u8]| events.windows(4).filter(|w| *w == b"tick").count();
    // The buffer has room for all of them: a short read would look like a stream.
    let mut events = Vec::with_capacity(64 * 1024);
    // The first may come with the head; it is the later ones that would stick.
    while ticks(&events) < 3 {
        assert_ne!(stream.read_buf(&mut events).await.unwrap(), 0);
    }
    assert!(ticks(&events) < 10, "the stream sticks in nginx");
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut events))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ticks(&events), 20);
}

#[tokio::test]
async fn an_upload_that_began_before_the_gate_closed_does_not_pass_it() {
    if !need_nginx() {
        return;
    }
    let mut fixture = Fixture::start().await;
    let (tcp, route, seen) = fixture.tcp_app("port").await;
    let (unix, unix_seen) = fixture.app("shop");
    fixture.edge.apply(&[route]).await.unwrap();
    for (gate, seen, host) in [
        (tcp, seen, "port.apps.localhost"),
        (unix, unix_seen, "shop.apps.localhost"),
    ] {
        fixture.edge.open(&gate).await.unwrap();
        let before = fixture.wake.lock().unwrap().len();
        let mut upload = TcpStream::connect(fixture.address).await.unwrap();
        let head = format!(
            "POST /up HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\n"
        );
        upload.write_all(head.as_bytes()).await.unwrap();
        // nginx asks for the body: it has chosen the location.
        let mut asked = [0; 25];
        upload.read_exact(&mut asked).await.unwrap();
        assert!(asked.starts_with(b"HTTP/1.1 100 "));
        upload.write_all(b"abc").await.unwrap();
        fixture.edge.close(&gate).await.unwrap();
        upload.write_all(b"def").await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(Duration::from_secs(20), upload.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(answer.ends_with("abcdef"), "{answer}");
        assert!(
            seen.lock().unwrap().is_empty(),
            "{host}: the closed gate was passed"
        );
        assert_eq!(fixture.wake.lock().unwrap().len(), before + 1);
        assert_eq!(
            fixture.wake.lock().unwrap()[before]
                .one("x-acc-connect")
                .as_deref(),
            Some("-")
        );
    }
}

#[tokio::test]
async fn a_body_above_the_bound_is_refused_before_anybody_is_asked() {
    if !need_nginx() {
        return;
    }
    let fixture = Fixture::start_with(|config, _| config.edge.max_body = 1000).await;
    fixture.make_log_folder("shop");
    assert_eq!(
        fixture
            .post("shop.apps.localhost", "/", &[b'x'; 1001])
            .await
            .status(),
        413
    );
    assert!(fixture.wake.lock().unwrap().is_empty());
    assert_eq!(
        fixture
            .post("shop.apps.localhost", "/", &[b'x'; 1000])
            .await
            .who(),
        "wake"
    );
}
