//! Applications that close, break, are gone, or were tried by nginx before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::fixture::*;
use crate::domain::instance::Listen;

/// An application that does with each connection what the test says; counts them.
fn raw_app<F, R>(fixture: &Fixture, serve: F) -> Arc<AtomicUsize>
where
    F: Fn(UnixStream, usize) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let path = fixture.dir.path().join("raw");
    let listener = UnixListener::bind(&path).unwrap();
    fixture.admission.set_listen(Listen::Unix(path));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, counted.fetch_add(1, Ordering::SeqCst)));
        }
    });
    count
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn read_head(socket: &mut UnixStream) -> bool {
    let mut text = Vec::new();
    let mut byte = [0u8; 1];
    while !text.ends_with(b"\r\n\r\n") {
        if socket.read(&mut byte).await.unwrap_or(0) == 0 {
            return false;
        }
        text.push(byte[0]);
    }
    true
}

#[tokio::test]
async fn a_connection_closed_between_requests_is_nobodys_error() {
    closed_between_requests(Fixture::new().await).await;
    // Here hyper may know of the end before the next request is put into its queue, and leaves it
    // there.
    for _ in 0..10 {
        closed_between_requests(Fixture::on_io_threads().await).await;
    }
}

async fn closed_between_requests(fixture: Fixture) {
    let closed = Arc::new(AtomicUsize::new(0));
    let counter = closed.clone();
    let count = raw_app(&fixture, move |mut socket, _| {
        let counter = counter.clone();
        async move {
            read_head(&mut socket).await;
            socket.write_all(OK).await.unwrap();
            drop(socket); // without saying so beforehand
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    for (at, method) in ["GET", "POST", "POST", "DELETE", "GET"]
        .into_iter()
        .enumerate()
    {
        let answer = fixture
            .say(&format!(
                "{method} / HTTP/1.1\nHost: app.test\nConnection: close\nContent-Length: 0\n\n"
            ))
            .await;
        assert_eq!(status(&answer), 200, "{method}: {answer}");
        until("the application has closed it", || {
            closed.load(Ordering::SeqCst) == at + 1
        })
        .await;
    }
    assert_eq!(count.load(Ordering::SeqCst), 5);
    assert_eq!(fixture.pooled(), 0, "a dead connection is not counted");
}

#[tokio::test]
async fn a_safe_request_on_a_broken_pooled_connection_is_sent_again_and_another_is_not() {
    for (method, code) in [("GET", 200), ("POST", 502)] {
        let fixture = Fixture::new().await;
        // The first connection answers once and breaks when it has read a second request.
        raw_app(&fixture, |mut socket, nth| async move {
            read_head(&mut socket).await;
            socket.write_all(OK).await.unwrap();
            if nth > 0 {
                read_head(&mut socket).await;
                socket.write_all(OK).await.unwrap();
            }
            read_head(&mut socket).await;
        });
        assert_eq!(status(&fixture.get("/").await), 200);
        until("it is parked", || fixture.pooled() == 1).await;
        let answer = fixture
            .say(&format!(
                "{method} / HTTP/1.1\nHost: app.test\nConnection: close\nContent-Length: 0\n\n"
            ))
            .await;
        assert_eq!(status(&answer), code, "{method}");
        until("the ticket is back", || fixture.admission.in_flight() == 0).await;
    }
}

#[tokio::test]
async fn an_application_that_breaks_off_gives_502_and_is_asked_once() {
    let fixture = Fixture::new().await;
    let count = raw_app(&fixture, |mut socket, _| async move {
        read_head(&mut socket).await;
    });
    let answer = fixture.get("/").await;
    assert_eq!(status(&answer), 502);
    assert!(
        answer.contains("no-store") && answer.contains("problem+json"),
        "{answer}"
    );
    assert!(!answer.contains("raw"), "a path in {answer}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_safe_request_that_died_with_its_instance_is_sent_to_the_next_run_and_another_is_not() {
    // nginx has tried the same run perhaps, in its last moment, and asks acc before its death is
    // known. What it does not read any more it does not do.
    for (method, tried, reads, code, times) in [
        ("GET", "-", true, 200, 2),
        ("GET", "-", false, 200, 2),
        ("GET", "0.001", true, 502, 1),
        ("GET", "0.001", false, 200, 2),
        ("POST", "-", true, 502, 1),
        ("POST", "0.001", true, 502, 0),
    ] {
        let fixture = Fixture::new().await;
        let count = raw_app(&fixture, move |mut socket, nth| async move {
            if nth > 0 || reads {
                read_head(&mut socket).await;
            }
            if nth > 0 {
                socket.write_all(OK).await.unwrap();
            }
        });
        let next_run = async {
            if times > 0 {
                until("it is asked", || count.load(Ordering::SeqCst) == 1).await;
                fixture
                    .admission
                    .set_listen(fixture.admission.gate().listen);
            }
        };
        let ask = format!(
            "{method} / HTTP/1.1\nHost: app.test\nX-Acc-Connect: {tried}\nConnection: close\nContent-Length: 0\n\n"
        );
        let (answer, ()) = tokio::join!(fixture.say_as_nginx(&ask), next_run);
        assert_eq!(status(&answer), code, "{method} {tried} {reads}: {answer}");
        assert_eq!(
            count.load(Ordering::SeqCst),
            times,
            "{method} {tried} {reads}"
        );
        until("the ticket is back", || fixture.admission.in_flight() == 0).await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_off_as_whole() {
    let fixture = Fixture::new().await;
    raw_app(&fixture, |mut socket, nth| async move {
        read_head(&mut socket).await;
        let half: &[u8] = if nth == 0 {
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
        } else {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
        };
        socket.write_all(half).await.unwrap();
    });
    let answer = fixture.get("/").await;
    assert!(
        answer.is_empty() || answer.contains("Content-Length: 10"),
        "{answer}"
    );
    let answer = fixture.get("/").await;
    assert!(!answer.contains("\r\n0\r\n"), "{answer}");
    until("the ticket is back", || fixture.admission.in_flight() == 0).await;
}

#[tokio::test]
async fn an_instance_that_was_gone_for_a_moment_is_knocked_at_again() {
    let fixture = Fixture::new().await;
    let later = fixture.dir.path().join("later");
    fixture.admission.set_listen(Listen::Unix(later.clone()));
    let appear = async {
        until("it was knocked at twice", || {
            fixture.admission.asked.load(Ordering::SeqCst) >= 2
        })
        .await;
        App::start(later)
    };
    let ask = "POST /echo HTTP/1.1\nHost: app.test\nConnection: close\nContent-Length: 3\n\nabc";
    let (answer, app) = tokio::join!(fixture.say(ask), appear);
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("body: 3 "), "{answer}");
    assert_eq!(app.seen.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_instance_that_stays_gone_gives_502() {
    let settings = crate::proxy::ProxySettings {
        wake_timeout: std::time::Duration::from_millis(200),
        ..settings()
    };
    let fixture = Fixture::with(settings, true, DEADLINE).await;
    fixture
        .admission
        .set_listen(Listen::Unix(fixture.dir.path().join("nowhere")));
    let answer = fixture.get("/").await;
    assert_eq!(status(&answer), 502);
    assert!(!answer.contains("nowhere"), "{answer}");
    assert_eq!(fixture.admission.in_flight(), 0);
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    fixture.admission.set_listen(Listen::Tcp(port));
    assert_eq!(status(&fixture.get("/").await), 502);
}

#[tokio::test]
async fn a_new_run_never_uses_the_connections_of_the_old_one() {
    let fixture = Fixture::new().await;
    fixture.get("/").await;
    let old = fixture.admission.gate();
    assert_eq!(fixture.upstreams.pooled(&old), 1);
    fixture.admission.set_listen(old.listen.clone());
    fixture.get("/").await;
    assert_eq!(fixture.app.seen.connections.load(Ordering::SeqCst), 2);
    assert_eq!(fixture.upstreams.pooled(&old), 0);
    assert_eq!(fixture.pooled(), 1);
    fixture.upstreams.close(&old);
    assert_eq!(
        fixture.pooled(),
        1,
        "the old run's end is not the new one's"
    );
}

#[tokio::test]
async fn closing_leaves_what_is_in_flight_alone() {
    let fixture = Fixture::new().await;
    let close = async {
        until("it is in flight", || {
            fixture.app.seen.requests.load(Ordering::SeqCst) == 1
        })
        .await;
        fixture.upstreams.close(&fixture.admission.gate());
    };
    let (answer, ()) = tokio::join!(fixture.get("/slow"), close);
    assert!(answer.ends_with("slow"), "{answer}");
    assert_eq!(fixture.pooled(), 0);
    until("it is closed when done", || {
        fixture.app.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn what_nginx_tried_before_decides_what_may_be_sent_again() {
    let fixture = Fixture::new().await;
    let ask = |method: &str, header: &str| {
        format!(
            "{method} /echo HTTP/1.1\nHost: app.test\nX-Real-IP: 1.2.3.4\nX-Forwarded-For: 1.2.3.4\nConnection: close\n{header}\nContent-Length: 0\n\n"
        )
    };
    for (method, header, code) in [
        ("GET", "X-Acc-Connect: -", 200),
        ("POST", "X-Acc-Connect: -", 200),
        ("GET", "X-Acc-Connect: 0.000", 200),
        ("HEAD", "X-Acc-Connect: 0.000", 200),
        ("POST", "X-Acc-Connect: 0.000", 502),
        ("PUT", "X-Acc-Connect: 0.001", 502),
        ("PATCH", "X-Acc-Connect: 0.001", 502),
        ("DELETE", "X-Acc-Connect: -, 0.001", 502),
        ("GET", "X-Acc-Status: 504", 504),
    ] {
        let answer = fixture.say_as_nginx(&ask(method, header)).await;
        assert_eq!(status(&answer), code, "{method} {header}");
        assert!(
            code != 200 || method == "HEAD" || answer.contains("x-forwarded-for: 1.2.3.4\n"),
            "{answer}"
        );
        // nginx gets what it is to log, and the application none of the headers between nginx and
        // acc.
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let upstream = if code == 200 {
            "upstream=200"
        } else {
            "answer=- upstream=-"
        };
        assert!(
            head.contains("X-Acc-Log: wake=- answer=")
                && head.contains(upstream)
                && !body.contains("x-acc-"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_full_backlog_is_waited_for() {
    let fixture = Fixture::new().await;
    let path = fixture.dir.path().join("tight");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&socket2::SockAddr::unix(&path).unwrap())
        .unwrap();
    socket.listen(1).unwrap();
    socket.set_nonblocking(true).unwrap();
    fixture.admission.set_listen(Listen::Unix(path));
    let all = futures_util::future::join_all((0..30).map(|_| fixture.get("/")));
    let serve = async {
        // No connection is accepted until the backlog has been full for a while.
        until("they are in flight", || fixture.admission.in_flight() == 30).await;
        let listener = UnixListener::from_std(socket.into()).unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while read_head(&mut socket).await {
                        socket.write_all(OK).await.unwrap();
                    }
                });
            }
        });
    };
    let (answers, ()) = tokio::join!(all, serve);
    for answer in answers {
        assert_eq!(status(&answer), 200);
    }
}
