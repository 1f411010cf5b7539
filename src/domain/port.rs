//! Which TCP port a new instance gets. Ports are allocated, never computed from a number.

use std::collections::BTreeSet;

/// The ports acc may give out, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// First.
    pub first: u16,
    /// Last.
    pub last: u16,
}

impl PortRange {
    /// Candidates in the order to try them: those after `newest` first, so that a freed port rests as long as possible
    /// before another instance gets it; ports in `taken` are left out.
    pub fn candidates(self, taken: &BTreeSet<u16>, newest: Option<u16>) -> impl Iterator<Item = u16> + '_ {
        let start = newest.filter(|p| *p >= self.first && *p < self.last).map_or(self.first, |p| p + 1);
        (start..=self.last).chain(self.first..start).filter(move |p| !taken.contains(p))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_port_is_used_last() {
        let range = PortRange { first: 10, last: 13 };
        let taken = BTreeSet::from([11]);
        assert_eq!(range.candidates(&taken, Some(12)).collect::<Vec<_>>(), [13, 10, 12]);
        assert_eq!(range.candidates(&taken, Some(13)).collect::<Vec<_>>(), [10, 12, 13]);
        assert_eq!(range.candidates(&BTreeSet::from([10, 11, 12, 13]), None).count(), 0);
    }
}
