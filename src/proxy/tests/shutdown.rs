//! The end of the server: what is under way is finished, what lasts longer than the grace is cut.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::fixture::*;
use crate::domain::lifecycle::Phase;

#[tokio::test]
async fn no_body_is_cut_and_nothing_new_is_accepted() {
    let mut fixture = Fixture::new().await;
    let mut stream = fixture.connect().await;
    stream
        .write_all(b"GET /stream HTTP/1.1\r\nHost: app.test\r\n\r\n")
        .await
        .unwrap();
    let mut upload = fixture.connect().await;
    upload.write_all(b"POST /echo HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\n").await.unwrap();
    // Its body is being taken in; the application is asked once it is there.
    assert_eq!(status(&read_to(&mut upload, "\r\n\r\n").await), 100);
    upload.write_all(b"abc").await.unwrap();
    let mut idle = fixture.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
        .await
        .unwrap();
    read_to(&mut idle, "hello").await;
    until("both are in flight", || {
        fixture.app.seen.requests.load(Ordering::SeqCst) == 2
    })
    .await;
    fixture.stop.cancel();
    assert_eq!(read_all(&mut idle).await, "");
    assert!(read_all(&mut stream).await.ends_with("\r\nt\r\n0\r\n\r\n"));
    upload.write_all(b"def").await.unwrap();
    let answer = read_all(&mut upload).await;
    assert!(answer.contains("body: 6 "), "{answer}");
    let report = fixture.finish().await;
    assert_eq!((report.accepted, report.cut), (3, 0));
    assert!(TcpStream::connect(fixture.address).await.is_err());
}

#[tokio::test]
async fn held_requests_are_finished() {
    let mut fixture = Fixture::new().await;
    fixture.admission.set(Phase::Asleep);
    let mut held = fixture.connect().await;
    held.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
        .await
        .unwrap();
    until("it is held", || fixture.admission.waiting() == 1).await;
    fixture.stop.cancel();
    let refused = async {
        while TcpStream::connect(fixture.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, refused).await.unwrap();
    fixture.admission.set(Phase::Awake);
    let answer = read_all(&mut held).await;
    assert!(answer.ends_with("hello"), "{answer}");
    assert_eq!(fixture.finish().await.cut, 0);
}

#[tokio::test]
async fn what_outlasts_the_grace_is_cut_and_counted() {
    let mut fixture = Fixture::with(settings(), true, Duration::from_millis(100)).await;
    let mut never = fixture.connect().await;
    never
        .write_all(b"GET /never HTTP/1.1\r\nHost: app.test\r\n\r\n")
        .await
        .unwrap();
    let mut socket = fixture.connect().await;
    socket.write_all(b"GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await.unwrap();
    read_to(&mut socket, "hello ").await;
    until("both are in flight", || fixture.admission.in_flight() == 2).await;
    let report = fixture.finish().await;
    assert_eq!((report.accepted, report.cut), (2, 2));
    assert_eq!(fixture.admission.in_flight(), 0);
    assert_eq!(read_all(&mut socket).await, "");
}
