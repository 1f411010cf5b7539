//! Whose text makes a configuration wrong: found by halving. Pure: the caller asks nginx and passes
//! its answers on.

/// The search for the first of `n` routes with which the configuration is refused, given that all
/// of them are refused together. Ends after about log2(n) answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bisection {
    /// Accepted with this many; `None`: not even asked with none.
    good: Option<usize>,
    /// Refused with this many.
    bad: usize,
}

impl Bisection {
    /// Among this many routes.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { good: None, bad: n }
    }

    /// Ask with this many of the first routes; `None`: the search is over.
    #[must_use]
    pub fn next(self) -> Option<usize> {
        match self.good {
            None if self.bad > 0 => Some(0),
            Some(good) if self.bad - good > 1 => Some(good + (self.bad - good) / 2),
            _ => None,
        }
    }

    /// What came of asking with `count` routes.
    pub fn answer(&mut self, count: usize, refused: bool) {
        if refused {
            self.bad = count;
        } else {
            self.good = Some(count);
        }
    }

    /// The place of the culprit. `None`: it is refused without any route.
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
