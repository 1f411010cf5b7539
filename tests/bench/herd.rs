//! The herd: many first requests at once to one sleeping instance. Exactly one start, every request
//! answered, and the time until the last answer.
//!
//! All connections are made by one thread, so that the machine is not busy with the clients.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::apps::{App, LIMIT, folder, ms};
use super::round::{Round, Side};
use super::table::{Goal, Report, Row};
use super::{Settings, limits};
use crate::support::wait::{holds, pause};
use crate::support::{Combination, Fixture, now, wait_until};

const GROUP: &str = "herd";

/// One client: its whole answer.
async fn client(to: SocketAddr, request: String) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(256);
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Sends `count` requests at once to a sleeper; from the first connect to the last answer, in
/// milliseconds.
fn herd(fixture: &Fixture, count: usize, settings: &Settings) -> f64 {
    fixture.acc(&["stop", "bench"]).ok();
    pause(settings.settle);
    let before = fixture.info("bench")["wakes"].as_u64();
    let (to, host) = (fixture.address(), fixture.host("bench"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (answers, took) = runtime.block_on(async {
        let began = now();
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let clients: Vec<_> = (0..count)
            .map(|_| tokio::spawn(client(to, request.clone())))
            .collect();
        let mut answers = Vec::new();
        for client in clients {
            answers.push(tokio::time::timeout(LIMIT, client).await);
        }
        (answers, ms(began.elapsed()))
    });
    let mut instances = BTreeSet::new();
    for answer in answers {
        let answer = answer
            .expect("answered in time")
            .unwrap()
            .unwrap_or_else(|e| panic!("a client got no answer: {e}"));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200"), "not a 200: {answer}");
        instances.insert(
            answer
                .rsplit("\r\n\r\n")
                .next()
                .unwrap_or_default()
                .to_owned(),
        );
    }
    assert_eq!(
        instances.len(),
        1,
        "more than one process answered: {instances:?}"
    );
    // The event is written a moment after the first request was passed on.
    wait_until("one herd is one wake", LIMIT, || {
        let after = fixture.info("bench")["wakes"].as_u64();
        holds(
            after == before.map(|w| w + 1),
            format!("{before:?}, then {after:?}"),
        )
    });
    took
}

/// The rows of the herd.
pub fn measure(settings: &Settings) -> Report {
    let dir = folder();
    let mut report = Report::default();
    let app = match App::tiny(dir.path()) {
        Ok(app) => app,
        Err(why) => {
            report
                .rows
                .push(Row::skipped(GROUP, "first requests at once", why));
            return report;
        }
    };
    limits::raise_open_files();
    let combinations = if settings.quick {
        vec![Combination::BUILTIN]
    } else {
        vec![Combination::BUILTIN, Combination::REAL]
    };
    let counts: &[usize] = if settings.quick { &[20] } else { &[500, 1000] };
    for combination in combinations {
        let name = if combination == Combination::BUILTIN {
            "builtin"
        } else {
            "nginx+supervisord"
        };
        let Some(fixture) =
            Fixture::with(combination, |s| (s.idle, s.run_in_memory) = ("1h", true))
        else {
            report.rows.push(Row::skipped(
                GROUP,
                &format!("first requests at once, {name}"),
                "nginx or supervisord is not installed",
            ));
            continue;
        };
        fixture.model(app.model, &app.model_text());
        fixture.acc(&["create", "bench", "--model", app.model]).ok();
        let mut sides = vec![Side::new("one first request", || {
            herd(&fixture, 1, settings)
        })];
        let fixture = &fixture;
        sides.extend(
            counts
                .iter()
                .map(|n| Side::new(n.to_string(), move || herd(fixture, *n, settings))),
        );
        let round = Round::run(settings.herds, settings.warm, sides);
        for count in counts {
            let wall = round
                .sample(&count.to_string(), "ms", |v| *v)
                .expect("taken");
            let goal = if *count == 500 && combination == Combination::BUILTIN {
                Goal::AtMost(80.0)
            } else {
                Goal::None
            };
            let what = format!("{count} first requests at once, {name}, wall time");
            report.rows.push(
                Row::plain(GROUP, &what, &wall, 0.5, goal)
                    .note("one start, one process, all answered 200"),
            );
        }
        let one = round
            .sample("one first request", "ms", |v| *v)
            .expect("taken");
        report.rows.push(Row::plain(
            GROUP,
            &format!("one first request, {name}, same client"),
            &one,
            0.5,
            Goal::None,
        ));
    }
    report
}
