//! Finds the instance whose text makes a configuration invalid, by bisection. Pure: the caller runs
//! nginx and reports the results.

/// Search for the first of `n` routes with which the configuration is refused, given that all of
/// them together are refused. Takes about log2(n) checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bisection {
    /// Accepted with this many routes; `None`: not yet tried with none.
    good: Option<usize>,
    /// Refused with this many routes.
    bad: usize,
}

impl Bisection {
    /// Starts a search among this many routes.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { good: None, bad: n }
    }

    /// How many of the first routes to check next; `None`: the search is over.
    #[must_use]
    pub fn next(self) -> Option<usize> {
        match self.good {
            None if self.bad > 0 => Some(0),
            Some(good) if self.bad - good > 1 => Some(good + (self.bad - good) / 2),
            _ => None,
        }
    }

    /// Reports the result of a check with `count` routes.
    pub fn answer(&mut self, count: usize, refused: bool) {
        if refused {
            self.bad = count;
        } else {
            self.good = Some(count);
        }
    }

    /// The index of the culprit. `None`: the configuration is refused even without routes.
    #[must_use]
    pub fn found(self) -> Option<usize> {
        self.good.filter(|good| self.bad == good + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(n: usize, refused: impl Fn(usize) -> bool) -> (Option<usize>, usize) {
        let (mut search, mut asked) = (Bisection::new(n), 0);
        while let Some(count) = search.next() {
            search.answer(count, refused(count));
            asked += 1;
        }
        (search.found(), asked)
    }

    #[test]
    fn finds_the_one_wherever_it_stands() {
        for n in 1..40 {
            for wrong in 0..n {
                let (found, asked) = search(n, |count| count > wrong);
                assert_eq!(found, Some(wrong));
                assert!(asked <= 8, "{asked} for {n}");
            }
        }
    }

    #[test]
    fn names_nobody_when_nobody_is_to_blame() {
        assert_eq!(search(5, |_| true), (None, 1));
        assert_eq!(search(0, |_| true), (None, 0));
    }
}
