//! Figures beside their references and goals, as a table or as JSON.

use serde_json::{Value, json};

/// The kinds of goals.
#[derive(Clone, Copy)]
pub enum Goal {
    /// At most this many times the reference.
    Times(f64),
    /// At most this much above the reference.
    Above(f64),
    /// At most this value.
    AtMost(f64),
    /// No goal: only for information.
    None,
}

/// One row.
pub struct Figure {
    /// The name.
    pub what: String,
    /// The unit.
    pub unit: &'static str,
    /// Measured in the same run, the repetitions interleaved; `None`: the goal is absolute.
    pub reference: Option<f64>,
    /// The figure.
    pub value: f64,
    /// Half of all repetitions lie between these two.
    pub spread: Option<[f64; 2]>,
    /// The goal.
    pub goal: Goal,
}

impl Figure {
    fn passes(&self) -> Option<bool> {
        let reference = self.reference.unwrap_or(f64::NAN);
        match self.goal {
            Goal::Times(n) => Some(self.value <= reference * n),
            Goal::Above(n) => Some(self.value - reference <= n),
            Goal::AtMost(n) => Some(self.value <= n),
            Goal::None => None,
        }
    }

    fn goal(&self) -> String {
        match self.goal {
            Goal::Times(n) => format!("{n} times"),
            Goal::Above(n) => format!("+ {n}"),
            Goal::AtMost(n) => format!("{n}"),
            Goal::None => String::new(),
        }
    }

    fn compared(&self) -> String {
        match (self.goal, self.reference) {
            (Goal::Times(_) | Goal::None | Goal::AtMost(_), Some(r)) if r > 0.0 => {
                format!("{:.2} times", self.value / r)
            }
            (Goal::Above(_), Some(r)) => format!("+ {:.2}", self.value - r),
            _ => String::new(),
        }
    }
}

/// Median.
pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank"
    )]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.clamp(1, sorted.len().max(1)) - 1)
        .copied()
        .unwrap_or(f64::NAN)
}

/// All rows of a run.
#[derive(Default)]
pub struct Table(Vec<Figure>);

impl Table {
    /// A single measurement.
    pub fn once(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        reference: Option<f64>,
        value: f64,
        goal: Goal,
    ) {
        self.0.push(Figure {
            what: what.into(),
            unit,
            reference,
            value,
            spread: None,
            goal,
        });
    }

    /// The medians of repetitions.
    pub fn repeated(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        reference: &[f64],
        samples: &[f64],
        goal: Goal,
    ) {
        let spread = Some([quantile(samples, 0.25), quantile(samples, 0.75)]);
        let reference = (!reference.is_empty()).then(|| median(reference));
        self.0.push(Figure {
            what: what.into(),
            unit,
            reference,
            value: median(samples),
            spread,
            goal,
        });
    }

    /// The table as text.
    pub fn print(&self) {
        println!(
            "{:<58} {:>5} {:>10} {:>9} {:>15} {:>12} {:>10}  ",
            "WHAT", "UNIT", "REFERENCE", "FIGURE", "MIDDLE HALF", "COMPARED", "GOAL"
        );
        for f in &self.0 {
            let reference = f.reference.map_or_else(String::new, |r| format!("{r:.2}"));
            let spread = f
                .spread
                .map_or_else(String::new, |[low, high]| format!("{low:.2}-{high:.2}"));
            let verdict = f
                .passes()
                .map_or("", |passes| if passes { "pass" } else { "FAIL" });
            println!(
                "{:<58} {:>5} {reference:>10} {:>9.2} {spread:>15} {:>12} {:>10}  {verdict}",
                f.what,
                f.unit,
                f.value,
                f.compared(),
                f.goal()
            );
        }
    }

    /// The table as JSON.
    pub fn json(&self) -> Value {
        let row = |f: &Figure| {
            json!({ "what": f.what, "unit": f.unit, "reference": f.reference, "figure": f.value, "middle_half": f.spread,
                "compared": f.compared(), "goal": f.goal(), "pass": f.passes() })
        };
        self.0.iter().map(row).collect()
    }
}
