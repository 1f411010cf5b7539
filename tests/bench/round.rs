//! Figures that are measured together and may be compared: the sides of a [`Round`] are measured in
//! turn (A B A B), and a [`Ratio`] or an [`Added`] is made only from two samples of the same round.
//!
//! It knows no clock and no program: a side is any function that gives a figure.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// One side of a comparison: its name, and the function that takes one measurement.
pub struct Side<'a, T> {
    name: String,
    take: Box<dyn FnMut() -> T + 'a>,
}

impl<'a, T> Side<'a, T> {
    /// A side of this name.
    pub fn new(name: impl Into<String>, take: impl FnMut() -> T + 'a) -> Self {
        Self {
            name: name.into(),
            take: Box::new(take),
        }
    }
}

/// The figures of one run of interleaved repetitions.
pub struct Round<T> {
    id: u64,
    sides: Vec<(String, Vec<T>)>,
}

impl<T> Round<T> {
    /// Takes `repetitions` measurements of every side, one of each in turn, after `warm` turns that
    /// are not counted. Each turn begins with another side, so that no side always follows the
    /// heaviest one.
    pub fn run(repetitions: usize, warm: usize, mut sides: Vec<Side<'_, T>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut kept: Vec<(String, Vec<T>)> =
            sides.iter().map(|s| (s.name.clone(), Vec::new())).collect();
        let count = sides.len();
        for turn in 0..warm + repetitions {
            for n in 0..count {
                let at = (n + turn) % count;
                let taken = (sides[at].take)();
                if turn >= warm {
                    kept[at].1.push(taken);
                }
            }
        }
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            sides: kept,
        }
    }

    /// One figure of every measurement of a side; `None`: there is no such side.
    pub fn sample(
        &self,
        side: &str,
        unit: &'static str,
        get: impl Fn(&T) -> f64,
    ) -> Option<Sample> {
        let (name, all) = self.sides.iter().find(|(name, _)| name == side)?;
        Some(Sample {
            round: self.id,
            name: name.clone(),
            unit,
            values: all.iter().map(get).collect(),
        })
    }

    /// The measurements of a side.
    pub fn all(&self, side: &str) -> &[T] {
        self.sides
            .iter()
            .find(|(name, _)| name == side)
            .map_or(&[], |(_, all)| all)
    }
}

/// The figures of one side.
#[derive(Debug, Clone)]
pub struct Sample {
    round: u64,
    name: String,
    unit: &'static str,
    values: Vec<f64>,
}

impl Sample {
    /// The side's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The unit of its figures.
    pub fn unit(&self) -> &'static str {
        self.unit
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// The figure that `share` of them do not exceed (nearest rank); not a number when there is
    /// none.
    pub fn at(&self, share: f64) -> f64 {
        percentile(&self.values, share)
    }

    /// Least, 5 %, median, 95 % and greatest.
    pub fn spread(&self) -> [f64; 5] {
        [0.0, 0.05, 0.5, 0.95, 1.0].map(|share| self.at(share))
    }
}

/// The value that `share` of `values` do not exceed (nearest rank); not a number when there is
/// none.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank"
    )]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    match sorted.len() {
        0 => f64::NAN,
        n => sorted[rank.clamp(1, n) - 1],
    }
}

/// Two samples from different runs, or in different units, cannot be compared.
#[derive(Debug, PartialEq, Eq)]
pub struct Apart(String);

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

fn together(figure: &Sample, reference: &Sample) -> Result<(), Apart> {
    let apart = |why: &str| {
        Err(Apart(format!(
            "`{}` and `{}` {why}",
            figure.name, reference.name
        )))
    };
    if figure.round != reference.round {
        return apart("were not measured in the same run");
    }
    if figure.unit != reference.unit {
        apart("have different units")
    } else {
        Ok(())
    }
}

/// How many times the reference the figure is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio(f64);

impl Ratio {
    /// The ratio of the two at this rank.
    pub fn of(figure: &Sample, reference: &Sample, share: f64) -> Result<Self, Apart> {
        together(figure, reference)?;
        Ok(Self(figure.at(share) / reference.at(share)))
    }

    /// The number.
    pub fn value(self) -> f64 {
        self.0
    }
}

/// How much the figure is above the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Added(f64);

impl Added {
    /// The difference of the two at this rank.
    pub fn of(figure: &Sample, reference: &Sample, share: f64) -> Result<Self, Apart> {
        together(figure, reference)?;
        Ok(Self(figure.at(share) - reference.at(share)))
    }

    /// The number, in the unit of both.
    pub fn value(self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn round(a: f64, b: f64) -> Round<f64> {
        Round::run(
            3,
            0,
            vec![Side::new("a", move || a), Side::new("b", move || b)],
        )
    }

    #[test]
    fn only_what_was_measured_in_the_same_run_is_compared() {
        let (one, two) = (round(4.0, 2.0), round(4.0, 2.0));
        let get = |r: &Round<f64>, side| r.sample(side, "ms", |v| *v).unwrap();
        assert_eq!(
            Ratio::of(&get(&one, "a"), &get(&one, "b"), 0.5)
                .unwrap()
                .value(),
            2.0
        );
        assert_eq!(
            Added::of(&get(&one, "a"), &get(&one, "b"), 0.5)
                .unwrap()
                .value(),
            2.0
        );
        let refused = Ratio::of(&get(&one, "a"), &get(&two, "b"), 0.5).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "`a` and `b` were not measured in the same run"
        );
        assert!(Added::of(&get(&two, "a"), &get(&one, "b"), 0.5).is_err());
        let bytes = one.sample("b", "MiB", |v| *v).unwrap();
        assert_eq!(
            Ratio::of(&get(&one, "a"), &bytes, 0.5)
                .unwrap_err()
                .to_string(),
            "`a` and `b` have different units"
        );
    }

    #[test]
    fn sides_take_turns_and_each_comes_first_in_its_turn() {
        let order = RefCell::new(String::new());
        let side = |name: &'static str| Side::new(name, || order.borrow_mut().push_str(name));
        let round = Round::run(2, 1, vec![side("a"), side("b"), side("c")]);
        assert_eq!(order.borrow().as_str(), "abcbcacab");
        assert_eq!(round.all("a").len(), 2);
        assert!(round.sample("d", "ms", |()| 0.0).is_none());
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(
            [0.0, 0.05, 0.5, 0.95, 1.0].map(|s| percentile(&values, s)),
            [1.0, 1.0, 10.0, 19.0, 20.0]
        );
        assert!(percentile(&[], 0.5).is_nan());
    }
}
