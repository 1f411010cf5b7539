//! Connections that rest between two requests: nothing is lost by it, and every limit and end
//! applies as for others.
//!
//! The clock is paused and advances only when all tasks wait, so a second costs nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, advance, sleep};

use super::fixture::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";

fn resting(fixture: &Fixture) -> usize {
    fixture.proxy.resting.count()
}

/// A connection that has had an answer and rests.
async fn rested(fixture: &Fixture) -> TcpStream {
    let mut socket = fixture.connect().await;
    socket.write_all(GET).await.unwrap();
    read_to(&mut socket, "hello").await;
    let before = resting(fixture);
    until("it rests", || resting(fixture) > before).await;
    socket
}

#[tokio::test(start_paused = true)]
async fn it_serves_again_as_often_as_it_is_asked() {
    let fixture = Fixture::new().await;
    let mut socket = fixture.connect().await;
    for round in 0..5 {
        socket.write_all(GET).await.unwrap();
        assert!(
            read_to(&mut socket, "hello")
                .await
                .starts_with("HTTP/1.1 200"),
            "{round}"
        );
        assert_eq!(resting(&fixture), 0);
        until("it rests", || resting(&fixture) == 1).await;
    }
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(read_all(&mut socket).await.ends_with("hello"));
    until("it has ended", || resting(&fixture) == 0).await;
    assert_eq!(fixture.app.seen.requests.load(Ordering::SeqCst), 6);
}

#[tokio::test(start_paused = true)]
async fn a_head_in_pieces_is_put_together_and_limited() {
    let fixture = Fixture::new().await;
    let mut socket = rested(&fixture).await;
    // Else the kernel holds back small pieces for a time of its own.
    socket.set_nodelay(true).unwrap();
    for piece in GET.chunks(7) {
        socket.write_all(piece).await.unwrap();
        sleep(Duration::from_millis(1500)).await;
    }
    read_to(&mut socket, "hello").await;
    until("it rests", || resting(&fixture) == 1).await;
    let began = Instant::now();
    socket.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    assert_eq!(read_all(&mut socket).await, "");
    let lasted = began.elapsed();
    assert!(
        lasted >= Duration::from_secs(10) && lasted < Duration::from_secs(12),
        "{lasted:?}"
    );
}

/// What came together with the last request is neither lost nor left to wait.
#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_served_in_order_also_half_of_one() {
    let fixture = Fixture::new().await;
    let mut socket = fixture.connect().await;
    let mut text = GET.repeat(2);
    text.extend_from_slice(&GET[..20]);
    socket.write_all(&text).await.unwrap();
    read_to(&mut socket, "hello").await;
    read_to(&mut socket, "hello").await;
    sleep(Duration::from_secs(3)).await;
    socket.write_all(&GET[20..]).await.unwrap();
    read_to(&mut socket, "hello").await;
    until("it rests", || resting(&fixture) == 1).await;
    socket.write_all(&GET.repeat(3)).await.unwrap();
    for _ in 0..3 {
        read_to(&mut socket, "hello").await;
    }
    assert_eq!(fixture.app.seen.requests.load(Ordering::SeqCst), 6);
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_is_let_go_after_a_minute_in_all() {
    let fixture = Fixture::new().await;
    let mut socket = fixture.connect().await;
    socket.write_all(GET).await.unwrap();
    read_to(&mut socket, "hello").await;
    let began = Instant::now();
    let waited = tokio::time::timeout(
        Duration::from_secs(120),
        tokio::io::AsyncReadExt::read(&mut socket, &mut [0; 1]),
    )
    .await;
    assert_eq!(waited.unwrap().unwrap(), 0);
    let lasted = began.elapsed();
    assert!(
        lasted >= Duration::from_secs(59) && lasted < Duration::from_secs(62),
        "{lasted:?}"
    );
    assert_eq!(resting(&fixture), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_does_not_rest() {
    let fixture = Fixture::new().await;
    // Held by its door.
    let mut held = fixture.connect().await;
    fixture
        .admission
        .set(crate::domain::lifecycle::Phase::Asleep);
    held.write_all(GET).await.unwrap();
    until("it is held", || fixture.admission.waiting() == 1).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(resting(&fixture), 0);
    fixture
        .admission
        .set(crate::domain::lifecycle::Phase::Awake);
    read_to(&mut held, "hello").await;
    // A body that stands still, and an answer that its client does not read.
    let mut upload = fixture.connect().await;
    upload
        .write_all(b"POST /echo HTTP/1.1\r\nHost: app.test\r\nContent-Length: 6\r\n\r\nabc")
        .await
        .unwrap();
    let mut unread = fixture.connect().await;
    unread
        .write_all(b"GET /big HTTP/1.1\r\nHost: app.test\r\n\r\n")
        .await
        .unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(resting(&fixture), 1, "the first one");
    upload.write_all(b"def").await.unwrap();
    read_to(&mut upload, "body: 6 ").await;
    assert!(
        read_to(&mut unread, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_after_a_rest_has_no_limits() {
    let fixture = Fixture::new().await;
    let mut socket = rested(&fixture).await;
    socket.write_all(b"GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await.unwrap();
    read_to(&mut socket, "hello ").await;
    for word in ["one", "two", "three"] {
        socket.write_all(word.as_bytes()).await.unwrap();
        read_to(&mut socket, word).await;
        advance(Duration::from_secs(200)).await;
        tokio::task::yield_now().await;
    }
    assert_eq!((resting(&fixture), fixture.admission.in_flight()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_shutdown_closes_it_and_serves_what_has_arrived() {
    let mut fixture = Fixture::new().await;
    let (mut silent, mut asking) = (rested(&fixture).await, rested(&fixture).await);
    asking.write_all(GET).await.unwrap();
    fixture.stop.cancel();
    assert!(read_all(&mut asking).await.ends_with("hello"));
    assert_eq!(read_all(&mut silent).await, "");
    let report = fixture.finish().await;
    assert_eq!((report.accepted, report.cut), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn after_a_hand_over_it_has_one_more_answer() {
    let mut fixture = Fixture::new().await;
    let (mut socket, idle) = (rested(&fixture).await, rested(&fixture).await);
    fixture.hand_over.cancel();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(resting(&fixture), 2);
    socket.write_all(GET).await.unwrap();
    let answer = read_all(&mut socket).await;
    assert!(
        answer.ends_with("hello") && answer.contains("Connection: close"),
        "{answer}"
    );
    // The other one's limit ends it, and with it the serving.
    let report = tokio::time::timeout(Duration::from_secs(120), fixture.served.take().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((report.accepted, report.cut), (2, 0));
    drop(idle);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_forgotten() {
    let fixture = Fixture::new().await;
    let socket = rested(&fixture).await;
    drop(socket);
    until("it is gone", || resting(&fixture) == 0).await;
}

/// Without the still clock, in threads of their own: requests that come in the very moment in which
/// a connection comes to rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_the_very_moment_is_served() {
    let fixture = Fixture::on_io_threads().await;
    let one = |i: u64| {
        let address = fixture.address;
        async move {
            let mut socket = TcpStream::connect(address).await.unwrap();
            for _ in 0..3 {
                socket.write_all(GET).await.unwrap();
                read_to(&mut socket, "hello").await;
                sleep(Duration::from_micros(995_000 + i * 250)).await;
            }
        }
    };
    let all: Vec<_> = (0..64).map(|i| tokio::spawn(one(i))).collect();
    for task in all {
        task.await.unwrap();
    }
    assert_eq!(fixture.app.seen.requests.load(Ordering::SeqCst), 64 * 3);
}
