//! The table: each figure, its reference, the goal, and whether the goal was reached. As text and
//! as JSON.
//!
//! It measures nothing. A comparison is accepted only as a [`Ratio`] or an [`Added`], so both sides
//! are from the same run.

use serde_json::{Value, json};

use super::round::{Added, Apart, Ratio, Sample};

/// The goal of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// At most this value.
    AtMost(f64),
    /// At least this value.
    AtLeast(f64),
    /// Measured for the reader; there is no goal.
    None,
}

/// How the figure is to be read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// In the unit of the sample.
    Plain,
    /// Above the reference, in the unit of both.
    Added,
    /// Times the reference.
    Ratio,
}

/// The result of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The goal was reached.
    Pass,
    /// The goal was missed.
    Fail,
    /// There is no goal.
    Shown,
    /// Not measured.
    Skipped,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::Shown => "-",
            Self::Skipped => "skipped",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    group: &'static str,
    what: String,
    goal: Goal,
    kind: Kind,
    figure: f64,
    share: f64,
    sample: Option<Sample>,
    reference: Option<Sample>,
    note: String,
}

impl Row {
    /// `sample` at `share` is so much above `reference`.
    pub fn added(
        group: &'static str,
        what: &str,
        (sample, reference): (&Sample, &Sample),
        share: f64,
        goal: Goal,
    ) -> Result<Self, Apart> {
        let figure = Added::of(sample, reference, share)?.value();
        Ok(Self::new(group, what, goal, Kind::Added, figure).with(sample, Some(reference), share))
    }

    /// `sample` at `share` is so many times `reference`.
    pub fn ratio(
        group: &'static str,
        what: &str,
        (sample, reference): (&Sample, &Sample),
        share: f64,
        goal: Goal,
    ) -> Result<Self, Apart> {
        let figure = Ratio::of(sample, reference, share)?.value();
        Ok(Self::new(group, what, goal, Kind::Ratio, figure).with(sample, Some(reference), share))
    }

    /// `sample` at `share`, by itself.
    pub fn plain(group: &'static str, what: &str, sample: &Sample, share: f64, goal: Goal) -> Self {
        Self::new(group, what, goal, Kind::Plain, sample.at(share)).with(sample, None, share)
    }

    /// A figure that could not be measured, and why.
    pub fn skipped(group: &'static str, what: &str, why: impl Into<String>) -> Self {
        Self::new(group, what, Goal::None, Kind::Plain, f64::NAN).note(why)
    }

    /// Adds a remark, such as another condition.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn new(group: &'static str, what: &str, goal: Goal, kind: Kind, figure: f64) -> Self {
        Self {
            group,
            what: what.to_owned(),
            goal,
            kind,
            figure,
            share: 0.5,
            sample: None,
            reference: None,
            note: String::new(),
        }
    }

    fn with(mut self, sample: &Sample, reference: Option<&Sample>, share: f64) -> Self {
        (self.sample, self.reference, self.share) =
            (Some(sample.clone()), reference.cloned(), share);
        self
    }

    /// The result. The figure is rounded as it is shown, so that a missed goal never looks equal to
    /// the goal.
    pub fn verdict(&self) -> Verdict {
        let shown = (self.figure * 1000.0).round() / 1000.0;
        match self.goal {
            _ if self.sample.is_none() => Verdict::Skipped,
            Goal::None => Verdict::Shown,
            Goal::AtMost(limit) if shown <= limit => Verdict::Pass,
            Goal::AtLeast(limit) if shown >= limit => Verdict::Pass,
            Goal::AtMost(_) | Goal::AtLeast(_) => Verdict::Fail,
        }
    }

    /// The measured number as text.
    fn figure_text(&self) -> String {
        match self.kind {
            _ if self.sample.is_none() => String::new(),
            Kind::Plain => self.in_unit(self.figure),
            Kind::Added => format!("{:+}", Signed(self.figure)) + " " + self.unit(),
            Kind::Ratio if !self.figure.is_finite() => "?".to_owned(),
            Kind::Ratio => format!("{:.3} x", self.figure),
        }
    }

    fn goal_text(&self) -> String {
        let (sign, limit) = match self.goal {
            Goal::AtMost(limit) => ("<=", limit),
            Goal::AtLeast(limit) => (">=", limit),
            Goal::None => return String::new(),
        };
        match self.kind {
            Kind::Plain => format!("{sign} {limit} {}", self.unit()),
            Kind::Added => format!("{sign} +{limit} {}", self.unit()),
            Kind::Ratio => format!("{sign} {limit} x"),
        }
    }

    fn reference_text(&self) -> String {
        self.reference.as_ref().map_or_else(String::new, |r| {
            format!("{} {}", r.name(), self.in_unit(r.at(self.share)))
        })
    }

    fn unit(&self) -> &'static str {
        self.sample.as_ref().map_or("", Sample::unit)
    }

    fn in_unit(&self, value: f64) -> String {
        format!("{} {}", short(value), self.unit())
            .trim_end()
            .to_owned()
    }

    fn spread_text(&self) -> String {
        let Some(sample) = &self.sample else {
            return String::new();
        };
        let of = |s: &Sample| s.spread().map(short).join("/");
        match &self.reference {
            Some(reference) => format!("n={} {} | {}", sample.count(), of(sample), of(reference)),
            None => format!("n={} {}", sample.count(), of(sample)),
        }
    }

    fn json(&self) -> Value {
        let sample = |s: &Sample| {
            let [min, p5, p50, p95, max] = s.spread();
            json!({ "name": s.name(), "unit": s.unit(), "n": s.count(), "min": min, "p5": p5, "p50": p50, "p95": p95, "max": max })
        };
        let (goal, limit) = match self.goal {
            Goal::AtMost(limit) => ("at most", Some(limit)),
            Goal::AtLeast(limit) => ("at least", Some(limit)),
            Goal::None => ("none", None),
        };
        let kind = match self.kind {
            Kind::Plain => "plain",
            Kind::Added => "above the reference",
            Kind::Ratio => "times the reference",
        };
        json!({
            "group": self.group, "what": self.what, "goal": goal, "limit": limit, "kind": kind,
            "figure": if self.figure.is_finite() { json!(self.figure) } else { Value::Null },
            "at": self.share, "verdict": self.verdict().word().to_lowercase(), "note": self.note,
            "measured": self.sample.as_ref().map(sample), "reference": self.reference.as_ref().map(sample),
        })
    }
}

/// A number with its sign, as short as [`short`].
struct Signed(f64);

impl std::fmt::Display for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}{}",
            if self.0 < 0.0 { "-" } else { "+" },
            short(self.0.abs())
        )
    }
}

/// A number with about three digits.
pub fn short(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => "?".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The phases of a wake: their medians, in the unit of their samples, in order.
#[derive(Debug, Clone)]
pub struct Phases {
    /// The name of the wake.
    pub name: String,
    /// Each phase with its median in milliseconds.
    pub parts: Vec<(String, f64)>,
    /// The median of the same application's own start.
    pub own: f64,
}

/// A cost against the number of instances.
#[derive(Debug, Clone)]
pub struct Curve {
    /// The name of the cost, with the unit.
    pub name: String,
    /// Number of instances and cost; each line is from one run.
    pub runs: Vec<Vec<(f64, f64)>>,
}

/// All results of one run.
#[derive(Debug, Default)]
pub struct Report {
    /// The table.
    pub rows: Vec<Row>,
    /// For the bars.
    pub phases: Vec<Phases>,
    /// For the lines.
    pub curves: Vec<Curve>,
}

impl Report {
    /// Adds the results of another part.
    pub fn add(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.phases.extend(other.phases);
        self.curves.extend(other.curves);
    }

    /// The table for people.
    pub fn text(&self) -> String {
        let mut table =
            vec![["WHAT", "GOAL", "REFERENCE", "MEASURED", "FIGURE", ""].map(str::to_owned)];
        for row in &self.rows {
            let measured = row
                .sample
                .as_ref()
                .map_or_else(|| row.note.clone(), |s| row.in_unit(s.at(row.share)));
            let figure = if row.kind == Kind::Plain {
                String::new()
            } else {
                row.figure_text()
            };
            table.push([
                row.what.clone(),
                row.goal_text(),
                row.reference_text(),
                measured,
                figure,
                row.verdict().word().to_owned(),
            ]);
        }
        let mut text = columns(&table);
        text += "\nspread: repetitions, then min/p5/p50/p95/max of what was measured, and of the reference\n";
        let mut spreads: Vec<[String; 3]> = Vec::new();
        for row in self.rows.iter().filter(|r| r.sample.is_some()) {
            let line = [
                format!("  {}", row.what),
                row.spread_text(),
                row.note.clone(),
            ];
            // Two ranks of the same samples have the same spread.
            if spreads.last().is_none_or(|last| last[1..] != line[1..]) {
                spreads.push(line);
            }
        }
        text += &columns(&spreads);
        if !self.phases.is_empty() {
            text += "\nwhere a wake goes, medians in ms\n";
            for phases in &self.phases {
                let parts: Vec<String> = phases
                    .parts
                    .iter()
                    .map(|(name, ms)| format!("{name} {}", short(*ms)))
                    .collect();
                text += &format!(
                    "  {}: {} (own start {})\n",
                    phases.name,
                    parts.join(", "),
                    short(phases.own)
                );
            }
        }
        text
    }

    /// The results as JSON.
    pub fn json(&self, machine: &Value) -> Value {
        let phases: Vec<Value> = self
            .phases
            .iter()
            .map(|p| {
                let parts: Vec<Value> = p
                    .parts
                    .iter()
                    .map(|(name, ms)| json!({ "phase": name, "p50_ms": ms }))
                    .collect();
                json!({ "name": p.name, "own_start_p50_ms": p.own, "phases": parts })
            })
            .collect();
        let curves: Vec<Value> = self
            .curves
            .iter()
            .map(|c| json!({ "name": c.name, "runs": c.runs }))
            .collect();
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({ "machine": machine, "rows": rows, "phases": phases, "curves": curves })
    }
}

/// Pads every column to its widest cell.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<usize> = (0..N)
        .map(|n| rows.iter().map(|r| r[n].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text += line.join("  ").trim_end();
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::round::{Round, Side};
    use super::*;

    fn pair() -> (Sample, Sample) {
        let round = Round::run(
            3,
            0,
            vec![Side::new("own start", || 2.0), Side::new("wake", || 2.4)],
        );
        (
            round.sample("wake", "ms", |v| *v).unwrap(),
            round.sample("own start", "ms", |v| *v).unwrap(),
        )
    }

    #[test]
    fn a_goal_is_reached_or_not() {
        let (wake, own) = pair();
        let row =
            |limit| Row::added("wake", "a wake", (&wake, &own), 0.5, Goal::AtMost(limit)).unwrap();
        assert_eq!(
            (row(0.5).verdict(), row(0.4).verdict(), row(0.3).verdict()),
            (Verdict::Pass, Verdict::Pass, Verdict::Fail)
        );
        let ratio = Row::ratio(
            "awake",
            "throughput",
            (&wake, &own),
            0.5,
            Goal::AtLeast(1.3),
        )
        .unwrap();
        assert_eq!(ratio.verdict(), Verdict::Fail);
        assert_eq!(
            Row::plain("rest", "wake-ups", &wake, 0.5, Goal::None).verdict(),
            Verdict::Shown
        );
        assert_eq!(
            Row::skipped("wake", "node", "not installed: node").verdict(),
            Verdict::Skipped
        );
    }

    #[test]
    fn the_table_says_all_of_it() {
        let (wake, own) = pair();
        let mut report = Report::default();
        report
            .rows
            .push(Row::added("wake", "a wake", (&wake, &own), 0.5, Goal::AtMost(0.5)).unwrap());
        report
            .rows
            .push(Row::skipped("wake", "node", "not installed: node"));
        let text = report.text();
        for part in [
            "<= +0.5 ms",
            "own start 2.00 ms",
            "2.40 ms",
            "+0.40 ms",
            "pass",
            "not installed: node",
            "skipped",
            "n=3",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let json = report.json(&json!({}));
        assert_eq!(json["rows"][0]["verdict"], "pass");
        assert_eq!(json["rows"][0]["reference"]["p50"], 2.0);
        assert!(json["rows"][1]["figure"].is_null());
    }
}
