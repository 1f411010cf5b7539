//! Connections over TCP; everything else about them is tested through `proxy::tests`, where clients
//! are real.

use std::net::TcpListener;

use http_body_util::BodyExt;
use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::domain::account::Account;
use crate::domain::instance::Listen;
use crate::domain::name::InstanceName;

fn gate(listen: Listen) -> Gate {
    Gate {
        name: InstanceName::parse("app").unwrap(),
        listen,
        run: 1,
        process: None,
        account: Account::SameAsAcc,
    }
}

fn get() -> Request<SendBody> {
    Request::get("/")
        .header("host", "a")
        .body(SendBody::empty())
        .unwrap()
}

#[tokio::test]
async fn over_tcp_too_a_connection_is_used_again_and_closed_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gate = gate(Listen::Tcp(listener.local_addr().unwrap()));
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let app = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut buf = [0u8; 1024];
        let mut served = 0;
        while socket.read(&mut buf).await.unwrap() > 0 {
            served += 1;
            socket
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .unwrap();
        }
        served
    });
    let upstreams = Upstreams::new(true);
    for _ in 0..3 {
        let response = upstreams.request(&gate, Box::new(get())).await.unwrap();
        assert_eq!(upstreams.pooled(&gate), 0);
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "ok"
        );
        assert_eq!(upstreams.pooled(&gate), 1);
    }
    upstreams.close(&gate);
    assert_eq!(app.await.unwrap(), 3);
}

#[tokio::test]
async fn what_was_never_seen_is_given_back() {
    let upstreams = Upstreams::new(true);
    let nowhere = gate(Listen::Unix("/nonexistent/socket".into()));
    match upstreams.request(&nowhere, Box::new(get())).await {
        Err(UpstreamError::Connect {
            request, source, ..
        }) => {
            assert_eq!(request.headers()["host"], "a");
            assert_eq!(source.kind(), io::ErrorKind::NotFound);
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[tokio::test]
async fn an_application_is_told_whether_its_connection_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let app = tokio::net::UnixListener::bind(&path).unwrap();
    let gate = gate(Listen::Unix(path));
    for (keeps, reported) in [(true, false), (false, true)] {
        let upstreams = Upstreams::new(keeps);
        let served = async {
            let (mut socket, _) = app.accept().await.unwrap();
            let mut buf = [0u8; 1024];
            let got = socket.read(&mut buf).await.unwrap();
            socket
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .unwrap();
            (socket, String::from_utf8_lossy(&buf[..got]).to_lowercase())
        };
        let (answer, (_socket, head)) =
            tokio::join!(upstreams.request(&gate, Box::new(get())), served);
        assert_eq!(
            answer
                .unwrap()
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes(),
            "ok"
        );
        assert_eq!(head.contains("connection: close"), reported, "{head}");
    }
}
