//! The binary itself: its size without symbols, and how fast it starts.

use std::process::{Command, Stdio};

use super::Settings;
use super::apps::{folder, ms};
use super::round::{Round, Side};
use super::table::{Goal, Report, Row};
use crate::support::fixture::ACC;
use crate::support::{need, now};

const GROUP: &str = "binary";

/// Runs a command to its end, in milliseconds.
fn run(command: &mut Command) -> f64 {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env_clear();
    let began = now();
    let status = command.status().unwrap();
    let took = ms(began.elapsed());
    assert!(status.success(), "{command:?}: {status}");
    took
}

/// Its size in MB without symbols; an error says why the size is not known.
fn stripped() -> Result<f64, String> {
    let dir = folder();
    let copy = dir.path().join("acc");
    std::fs::copy(ACC, &copy).map_err(|e| e.to_string())?;
    let strip = need::find("strip").ok_or("not installed: strip")?;
    let status = Command::new(strip)
        .arg(&copy)
        .status()
        .map_err(|e| e.to_string())?;
    let size = std::fs::metadata(&copy).map_err(|e| e.to_string())?.len();
    #[expect(clippy::cast_precision_loss, reason = "a size in MB")]
    let size = size as f64 / 1e6;
    if status.success() {
        Ok(size)
    } else {
        Err("strip failed".to_owned())
    }
}

/// The rows of the binary.
pub fn measure(settings: &Settings) -> Report {
    let mut report = Report::default();
    let nothing = need::find("true").expect("every system has it");
    let round = Round::run(
        settings.wakes,
        settings.warm,
        vec![
            Side::new("acc --version", || run(Command::new(ACC).arg("--version"))),
            Side::new("true", || run(&mut Command::new(&nothing))),
        ],
    );
    let took = |side| round.sample(side, "ms", |v| *v).expect("taken");
    report.rows.push(Row::plain(
        GROUP,
        "start of the binary (`acc --version`)",
        &took("acc --version"),
        0.5,
        Goal::AtMost(5.0),
    ));
    report.rows.push(Row::plain(
        GROUP,
        "start of `true`, the same way",
        &took("true"),
        0.5,
        Goal::None,
    ));
    match stripped() {
        Ok(size) => {
            let size = Round::run(1, 0, vec![Side::new("size", || size)])
                .sample("size", "MB", |v| *v)
                .expect("taken");
            report.rows.push(Row::plain(
                GROUP,
                "size of the binary, stripped",
                &size,
                0.5,
                Goal::AtMost(15.0),
            ));
        }
        Err(why) => report
            .rows
            .push(Row::skipped(GROUP, "size of the binary, stripped", why)),
    }
    report
}
