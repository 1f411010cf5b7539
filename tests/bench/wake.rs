//! The wake: the time that acc adds to the start of an application, compared with that start
//! without acc, and the time of each phase.
//!
//! The application is put to sleep, then gets a request on a new connection. Own starts and wakes
//! alternate.

use super::Settings;
use super::apps::{App, Asked, ask, folder};
use super::round::{Round, Side, percentile};
use super::table::{Goal, Phases, Report, Row};
use crate::support::fixture::in_memory;
use crate::support::wait::pause;
use crate::support::{Combination, Fixture};

const GROUP: &str = "wake";

/// One wake.
#[derive(Debug, Clone, Default)]
struct Woken {
    /// From the connect to the first byte of the answer, in milliseconds.
    took: f64,
    /// Its phases in milliseconds, in order; empty if acc did not report them.
    phases: Vec<(String, f64)>,
}

/// The goals of one combination: at the median and at 95 %.
struct Promise {
    combination: Combination,
    p50: Goal,
    p95: Goal,
    /// Does the application get its socket from acc?
    handed: bool,
}

/// Name of a combination in the table.
fn named(combination: Combination) -> String {
    match (combination.edge, combination.supervisor) {
        ("builtin", "builtin") => "builtin".to_owned(),
        (edge, supervisor) => format!("{edge}+{supervisor}"),
    }
}

/// Puts the instance to sleep and wakes it by a request.
fn wake(fixture: &Fixture, settings: &Settings) -> Woken {
    fixture.acc(&["stop", "bench"]).ok();
    pause(settings.settle);
    let asked = ask(fixture.address(), &fixture.host("bench"));
    Woken {
        took: asked.took(),
        phases: phases(fixture, &asked).unwrap_or_default(),
    }
}

/// The phases of the last wake: acc's events say when acc noticed the request and how long each
/// step took, the client knows when it sent the request and when the first byte arrived.
fn phases(fixture: &Fixture, asked: &Asked) -> Option<Vec<(String, f64)>> {
    let events = fixture.json(&["events", "bench", "--lines", "3"]);
    let woke = events
        .as_array()?
        .iter()
        .rev()
        .find(|e| e["kind"] == "woke")?;
    let told = woke.get("phases").filter(|p| p.is_object())?;
    let us = |key: &str| told[key].as_f64();
    let seen = us("noticed_at_us")?;
    let mut at = seen;
    let mut parts = vec![("noticed".to_owned(), (seen - asked.sent_us) / 1000.0)];
    for phase in ["spawned", "listening", "answered"] {
        let took = us(&format!("{phase}_us"))?;
        parts.push((phase.to_owned(), took / 1000.0));
        at += took;
    }
    parts.push(("first byte".to_owned(), (asked.first_byte_us - at) / 1000.0));
    if let Some(call) = us("call_us") {
        parts.push(("of which the supervisor's call".to_owned(), call / 1000.0));
    }
    Some(parts)
}

/// The medians of the phases, if acc reported them.
fn bars(name: String, all: &[Woken], own: f64) -> Option<Phases> {
    let first = all.iter().find(|w| !w.phases.is_empty())?;
    let median = |n: usize| {
        percentile(
            &all.iter()
                .filter_map(|w| w.phases.get(n))
                .map(|p| p.1)
                .collect::<Vec<_>>(),
            0.5,
        )
    };
    let parts = first
        .phases
        .iter()
        .enumerate()
        .map(|(n, (phase, _))| (phase.clone(), median(n)))
        .collect();
    Some(Phases { name, parts, own })
}

/// All wakes of one application in one round.
fn application(
    app: &Result<App, String>,
    what: &str,
    promises: Vec<Promise>,
    settings: &Settings,
    dir: &std::path::Path,
) -> Report {
    let mut report = Report::default();
    let app = match app {
        Ok(app) => app,
        Err(why) => {
            report
                .rows
                .push(Row::skipped(GROUP, &format!("wake, {what}"), why.clone()));
            return report;
        }
    };
    let mut fixtures = Vec::new();
    for promise in promises {
        let what = if promise.handed {
            format!("{what} with listen = \"fd\"")
        } else {
            what.to_owned()
        };
        let name = format!("{}, {what}", named(promise.combination));
        let Some(fixture) = Fixture::with(promise.combination, |s| {
            (s.idle, s.run_in_memory) = ("1h", true)
        }) else {
            report.rows.push(Row::skipped(
                GROUP,
                &format!("wake, {name}"),
                "nginx or supervisord is not installed",
            ));
            continue;
        };
        fixture.model(
            app.model,
            &if promise.handed {
                app.handed_model_text()
            } else {
                app.model_text()
            },
        );
        fixture.acc(&["create", "bench", "--model", app.model]).ok();
        fixtures.push((name, fixture, promise));
    }
    // In the same folder as the sockets of instances.
    let sockets = in_memory();
    let sockets = sockets.as_ref().map_or(dir, tempfile::TempDir::path);
    let own_start = || {
        // The same rest as before a wake: a processor that was busy a moment ago starts a program
        // sooner.
        pause(settings.settle);
        Woken {
            took: app.own_start(dir, sockets),
            phases: Vec::new(),
        }
    };
    let mut sides = vec![Side::new("own start", own_start)];
    sides.extend(
        fixtures
            .iter()
            .map(|(name, fixture, _)| Side::new(name.as_str(), || wake(fixture, settings))),
    );
    let round = Round::run(settings.wakes, settings.warm, sides);
    let took = |side: &str| {
        round
            .sample(side, "ms", |w| w.took)
            .expect("every side was taken")
    };
    let own = took("own start");
    for (name, _, promise) in &fixtures {
        let pair = (&took(name), &own);
        for (share, word, goal) in [(0.5, "p50", promise.p50), (0.95, "p95", promise.p95)] {
            let row = Row::added(GROUP, &format!("wake, {name}, {word}"), pair, share, goal);
            report.rows.push(row.expect("one round"));
        }
        report
            .phases
            .extend(bars(name.clone(), round.all(name), own.at(0.5)));
    }
    report
}

fn promise(combination: Combination, p50: Goal, p95: Goal) -> Promise {
    Promise {
        combination,
        p50,
        p95,
        handed: false,
    }
}

/// The wake of an application that starts in a millisecond.
pub fn tiny(settings: &Settings) -> Report {
    let dir = folder();
    let mut promises = vec![
        promise(Combination::BUILTIN, Goal::AtMost(0.5), Goal::AtMost(1.5)),
        promise(Combination::REAL, Goal::AtMost(5.0), Goal::AtMost(12.0)),
    ];
    let mixed = Combination::ALL
        .into_iter()
        .filter(|c| *c != Combination::REAL && *c != Combination::BUILTIN);
    promises.extend(mixed.map(|c| promise(c, Goal::None, Goal::None)));
    promises.push(Promise {
        handed: true,
        ..promise(Combination::BUILTIN, Goal::None, Goal::None)
    });
    promises.truncate(if settings.quick { 1 } else { promises.len() });
    application(
        &App::tiny(dir.path()),
        "tiny application",
        promises,
        settings,
        dir.path(),
    )
}

/// The wakes of real applications.
pub fn usual(settings: &Settings) -> Report {
    let (dir, mut report) = (folder(), Report::default());
    if settings.quick {
        return report;
    }
    for (app, what) in [
        (App::flask(dir.path()), "Flask under gunicorn"),
        (App::node(dir.path()), "Node"),
    ] {
        let promises = vec![
            promise(Combination::BUILTIN, Goal::AtMost(1.0), Goal::None),
            promise(Combination::REAL, Goal::None, Goal::None),
        ];
        report.add(application(&app, what, promises, settings, dir.path()));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_medians_of_each_phase() {
        let woken = |a, b| Woken {
            took: a + b,
            phases: vec![("noticed".into(), a), ("spawned".into(), b)],
        };
        let all = [
            woken(1.0, 30.0),
            woken(2.0, 10.0),
            Woken::default(),
            woken(3.0, 20.0),
        ];
        let bars = bars("x".into(), &all, 1.5).unwrap();
        assert_eq!(
            bars.parts,
            [("noticed".to_owned(), 2.0), ("spawned".to_owned(), 20.0)]
        );
        assert!(super::bars("x".into(), &[Woken::default()], 1.0).is_none());
    }
}
