//! Connections over TCP; everything else about them is tested through `proxy::tests`, where clients are real.

use std::net::TcpListener;

use http_body_util::BodyExt;
use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::domain::instance::Listen;

fn gate(listen: Listen) -> Gate {
    Gate { name: InstanceName::parse("app").unwrap(), listen, run: 1, process: None }
}

fn get() -> Request<SendBody> {
    Request::get("/").header("host", "a").body(SendBody::empty()).unwrap()
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
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
        served
    });
    let upstreams = Upstreams::new(true);
    for _ in 0..3 {
        let response = upstreams.request(&gate, Box::new(get())).await.unwrap();
        assert_eq!(upstreams.pooled(&gate), 0);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
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
        Err(UpstreamError::Connect { request, source, .. }) => {
            assert_eq!(request.headers()["host"], "a");
            assert_eq!(source.kind(), io::ErrorKind::NotFound);
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[tokio::test]
async fn a_connection_that_was_made_by_somebody_else_is_used_and_kept() {
    let (made, other) = std::os::unix::net::UnixStream::pair().unwrap();
    other.set_nonblocking(true).unwrap();
    let mut app = tokio::net::UnixStream::from_std(other).unwrap();
    let served = tokio::spawn(async move {
        let mut buf = [0u8; 1024];
        let mut heads = Vec::new();
        loop {
            let got = app.read(&mut buf).await.unwrap();
            if got == 0 {
                return heads;
            }
            heads.push(String::from_utf8_lossy(&buf[..got]).to_lowercase());
            app.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
    });
    // Nobody listens there: every request goes over the one connection.
    let gate = gate(Listen::Unix("/nonexistent/socket".into()));
    let upstreams = Upstreams::new(true);
    let first = upstreams.request_over(made, &gate, Box::new(get())).await.unwrap();
    assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "ok");
    let second = upstreams.request(&gate, Box::new(get())).await.unwrap();
    assert_eq!(second.into_body().collect().await.unwrap().to_bytes(), "ok");
    upstreams.close(&gate);
    let heads = served.await.unwrap();
    assert!(heads.len() == 2 && heads.iter().all(|head| !head.contains("connection: close")), "{heads:?}");
    // Where no connection is kept, the application is told.
    let (made, other) = std::os::unix::net::UnixStream::pair().unwrap();
    other.set_nonblocking(true).unwrap();
    let mut app = tokio::net::UnixStream::from_std(other).unwrap();
    let told = tokio::spawn(async move {
        let mut buf = [0u8; 1024];
        let got = app.read(&mut buf).await.unwrap();
        app.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await.unwrap();
        String::from_utf8_lossy(&buf[..got]).to_lowercase()
    });
    let only = Upstreams::new(false).request_over(made, &gate, Box::new(get())).await.unwrap();
    assert_eq!(only.into_body().collect().await.unwrap().to_bytes(), "ok");
    assert!(told.await.unwrap().contains("connection: close"));
}
