//! The report of `acc prove` as text for people. Pure: the same report gives the same text.

use std::fmt::Write as _;
use std::time::Duration;

use super::human::{NONE, clean, duration};
use crate::prove::report::{Report, Spread, Strikes, Tally};

/// `acc prove`.
#[must_use]
pub fn proof(r: &Report) -> String {
    let mut lines = head(r);
    lines.extend(outcomes(r));
    let mut text: String = lines
        .iter()
        .map(|(key, value)| format!("{key:<12}{value}\n"))
        .collect();
    for fault in &r.faults {
        let (at, took) = (fault.at_s, fault.took_s);
        let _ = writeln!(
            text,
            "{:<12}{} {} at {at:.3} s, after {took:.3} s: {}",
            fault.verdict,
            fault.kind,
            fault.id,
            clean(&fault.what)
        );
    }
    for verb in &r.verbs_failed {
        let _ = writeln!(text, "{:<12}{}", "verb failed", clean(verb));
    }
    let _ = writeln!(text, "{:<12}{}", "verdict", verdict(r));
    text
}

/// What was proved: the instance, the run, how often it slept.
fn head(r: &Report) -> Vec<(&'static str, String)> {
    vec![
        (
            "instance",
            format!(
                "{} ({}), edge {}, supervisor {}",
                clean(&r.instance),
                clean(&r.model),
                r.edge,
                r.supervisor
            ),
        ),
        (
            "run",
            format!(
                "{} clients, {}, seed {}",
                r.clients,
                duration(Duration::from_millis(r.took_ms)),
                r.seed
            ),
        ),
        (
            "cycles",
            format!("{} ({} of them idle stops)", r.cycles, r.idle_stops),
        ),
    ]
}

/// What became of the requests, the streams and the processes that were killed.
fn outcomes(r: &Report) -> Vec<(&'static str, String)> {
    let t = &r.tally;
    let unknown = || "unknown: the application keeps no record".to_owned();
    let number = |n: Option<u64>| n.map_or_else(unknown, |n| n.to_string());
    let mut lines = vec![
        (
            "requests",
            format!("{}, and {} messages", t.sent, t.messages),
        ),
        ("right", t.right.to_string()),
        ("lost", t.lost.to_string()),
        ("wrong", t.wrong.to_string()),
        ("doubled", number(t.doubled)),
    ];
    if let Some(s) = &r.streams {
        let cut = if r.strikes.is_some() {
            format!(", {} cut by the crash", s.cut_by_the_crash)
        } else {
            String::new()
        };
        lines.push((
            "streams",
            format!(
                "{} opened, {} ended in order by a stop{cut}, {} broken",
                s.opened, s.ended_in_order, s.broken
            ),
        ));
    }
    if let Some(s) = &r.strikes {
        lines.extend(killed(s, t));
    }
    lines.push(("retried", t.retried.to_string()));
    lines.push(("held", number(t.held)));
    lines.extend(r.wake.as_ref().map(|s| ("wake", spread(s))));
    lines.extend(
        r.wake_from_sleep
            .as_ref()
            .map(|s| ("from sleep", spread(s))),
    );
    lines
}

/// What was killed, and the requests that ended with it.
fn killed(s: &Strikes, t: &Tally) -> [(&'static str, String); 3] {
    let killed = format!(
        "instance {}, server {}, master {}, supervisor {}, nginx workers {}",
        s.instance, s.server, s.master, s.supervisor, s.worker
    );
    [
        ("killed", killed),
        (
            "broken",
            format!(
                "{} requests in the application at the crash",
                t.broken_by_the_crash
            ),
        ),
        (
            "cut",
            format!(
                "{} requests on a cut connection at the crash",
                t.cut_by_the_crash
            ),
        ),
    ]
}

fn spread(s: &Spread) -> String {
    match s.count {
        0 => NONE.to_owned(),
        _ => format!(
            "p50 {:.0} ms, p95 {:.0} ms, p99 {:.0} ms, longest {:.0} ms",
            s.p50_ms, s.p95_ms, s.p99_ms, s.longest_ms
        ),
    }
}

/// The last line of a report.
fn verdict(r: &Report) -> &'static str {
    match (r.proven, r.interrupted) {
        (true, _) if r.recorded => "nothing was lost, wrong or doubled",
        (true, _) => {
            "nothing was lost or wrong; duplicates are unknown because the application keeps no record"
        }
        (false, true) if r.tally.is_clean() => {
            "nothing was lost, wrong or doubled until it was interrupted"
        }
        (false, _) if r.tally.is_clean() => "not proven: the run did not complete as planned",
        (false, _) => "not proven",
    }
}
