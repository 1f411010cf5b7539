//! The cost of thousands of sleeping instances. `benches/density.rs`, a separate program, measures
//! one installation with ten sleeping instances beside one with many, in turns; here its figures
//! become rows and lines.
//!
//! A figure and its reference come from one object of one run of that program, so they may be
//! compared.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Settings;
use super::round::{Round, Side};
use super::table::{Curve, Goal, Report, Row};

const GROUP: &str = "density";
/// Number of sleeping instances that the goals are about; the smaller number is only for the lines.
const COUNTS: [&str; 2] = ["1000", "10000"];
/// The lines drawn: the beginning of a row's name, and the label of the line.
const LINES: &[(&str, &str)] = &[
    (
        "server's own memory (master and worker), after",
        "own memory of the server, MiB",
    ),
    (
        "own memory of nginx's largest process, after",
        "own memory of nginx's largest process, MiB",
    ),
    ("create no.", "create, ms"),
    ("wake, others asleep", "wake, ms"),
    ("`acc monitor`, 100 awake", "acc monitor with 100 awake, ms"),
];

/// How a goal of that program is compared here, and with which limit.
enum Meaning {
    Ratio(f64),
    Added(f64),
    Plain(f64),
    None,
}

fn meaning(goal: &str) -> Meaning {
    let number = |text: &str| text.trim().parse().ok();
    if goal.is_empty() {
        Meaning::None
    } else if let Some(limit) = goal.strip_suffix(" times").and_then(number) {
        Meaning::Ratio(limit)
    } else if let Some(limit) = goal.strip_prefix("+ ").and_then(number) {
        Meaning::Added(limit)
    } else {
        number(goal).map_or(Meaning::None, Meaning::Plain)
    }
}

/// The unit as a static text; empty: not known.
fn unit(text: &str) -> &'static str {
    ["ms", "s", "MiB", "MB", "%"]
        .into_iter()
        .find(|u| *u == text)
        .unwrap_or("")
}

/// One figure of that program as a row.
fn row(told: &Value, count: &str, rounds: &Value) -> Option<Row> {
    let what = format!("{} ({count} asleep)", told["what"].as_str()?);
    let (unit, figure, reference) = (
        unit(told["unit"].as_str()?),
        told["figure"].as_f64()?,
        told["reference"].as_f64(),
    );
    let name = if told["goal"].as_str().is_some_and(|g| g.starts_with('+')) {
        "true"
    } else {
        "few"
    };
    let mut sides = vec![Side::new("many", move || figure)];
    sides.extend(reference.map(|r| Side::new(name, move || r)));
    let round = Round::run(1, 0, sides);
    let many = round.sample("many", unit, |v| *v)?;
    let few = round.sample(name, unit, |v| *v);
    let row = match (meaning(told["goal"].as_str().unwrap_or_default()), few) {
        (Meaning::Ratio(limit), Some(few)) => {
            Row::ratio(GROUP, &what, (&many, &few), 0.5, Goal::AtMost(limit)).ok()?
        }
        (Meaning::Added(limit), Some(few)) => {
            Row::added(GROUP, &what, (&many, &few), 0.5, Goal::AtMost(limit)).ok()?
        }
        (Meaning::None, Some(few)) => {
            Row::ratio(GROUP, &what, (&many, &few), 0.5, Goal::None).ok()?
        }
        (Meaning::Plain(limit), _) => Row::plain(GROUP, &what, &many, 0.5, Goal::AtMost(limit)),
        (_, None) => Row::plain(GROUP, &what, &many, 0.5, Goal::None),
    };
    Some(match told["middle_half"].as_array() {
        Some(half) => row.note(format!(
            "median of {rounds}, the middle half is {:.2} to {:.2}",
            half[0].as_f64()?,
            half[1].as_f64()?
        )),
        None => row,
    })
}

/// All figures of that program.
fn report(told: &Value, counted: bool) -> Report {
    let mut report = Report::default();
    let (count, few) = (
        told["sleepers"].to_string(),
        told["few"].as_f64().unwrap_or(10.0),
    );
    for figure in told["figures"].as_array().into_iter().flatten() {
        if counted {
            report.rows.extend(row(figure, &count, &told["rounds"]));
        }
        let line = LINES.iter().find(|(begins, _)| {
            figure["what"]
                .as_str()
                .is_some_and(|w| w.starts_with(begins))
        });
        if let (Some((_, name)), Some(least), Some(most)) = (
            line,
            figure["reference"].as_f64(),
            figure["figure"].as_f64(),
        ) {
            let many = told["sleepers"].as_f64().unwrap_or(f64::NAN);
            report.curves.push(Curve {
                name: (*name).to_owned(),
                runs: vec![vec![(few, least), (many, most)]],
            });
        }
    }
    report
}

/// Runs the program; an error says why there are no figures.
fn run(program: &Path, count: &str) -> Result<Value, String> {
    let mut command = Command::new(program);
    let done = command
        .args(["--json", "--count", count])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| e.to_string())?;
    if !done.status.success() {
        return Err(format!(
            "it failed: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        ));
    }
    serde_json::from_slice(&done.stdout).map_err(|e| format!("it prints no JSON ({e})"))
}

/// The rows and lines of density.
pub fn measure(settings: &Settings) -> Report {
    let mut report = Report::default();
    let skipped = |why: String| Row::skipped(GROUP, "thousands of sleepers", why);
    let Some(program) = &settings.density else {
        report.rows.push(skipped(
            "its program was not built: use tests/bench/run".to_owned(),
        ));
        return report;
    };
    if settings.quick {
        return report;
    }
    for count in COUNTS {
        match run(program, count) {
            Ok(told) => {
                let one = self::report(&told, count == COUNTS[COUNTS.len() - 1]);
                report.rows.extend(one.rows);
                for curve in one.curves {
                    match report.curves.iter_mut().find(|c| c.name == curve.name) {
                        Some(known) => known.runs.extend(curve.runs),
                        None => report.curves.push(curve),
                    }
                }
            }
            Err(why) => report.rows.push(skipped(why)),
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn its_figures_become_rows_and_lines() {
        let figure = |what: &str, reference: Option<f64>, figure: f64, goal: &str| json!({ "what": what, "unit": "ms", "reference": reference, "figure": figure, "middle_half": [1.0, 2.0], "goal": goal });
        let told = json!({ "sleepers": 10_000, "few": 10, "rounds": 30, "figures": [
            figure("create no. 10000 against no. 10", Some(5.0), 5.5, "1.2 times"),
            figure("`acc info NAME` above `true`", Some(1.0), 12.5, "+ 10"),
            figure("the same", None, 5.5, "7"),
            figure("`acc doctor`", Some(5.0), 10.0, ""),
        ]});
        let report = report(&told, true);
        let json = report.json(&Value::Null);
        let seen: Vec<_> = json["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| (r["verdict"].as_str().unwrap(), r["kind"].as_str().unwrap()))
            .collect();
        assert_eq!(
            seen,
            [
                ("pass", "times the reference"),
                ("fail", "above the reference"),
                ("pass", "plain"),
                ("-", "times the reference")
            ]
        );
        assert_eq!(report.curves.len(), 1);
        assert_eq!(report.curves[0].runs, [[(10.0, 5.0), (10_000.0, 5.5)]]);
    }
}
