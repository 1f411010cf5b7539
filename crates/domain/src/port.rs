//! Which TCP port a new instance gets. Ports are allocated, never computed from a number.

/// The ports that acc may allocate, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// First.
    pub first: u16,
    /// Last.
    pub last: u16,
}

impl PortRange {
    /// The ports in the order to try them: those after `newest` first, so that a freed port stays
    /// unused as long as possible.
    pub fn candidates(self, newest: Option<u16>) -> impl Iterator<Item = u16> {
        let start = newest
            .filter(|p| *p >= self.first && *p < self.last)
            .map_or(self.first, |p| p + 1);
        (start..=self.last).chain(self.first..start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_port_is_used_last() {
        let range = PortRange {
            first: 10,
            last: 13,
        };
        assert_eq!(
            range.candidates(Some(12)).collect::<Vec<_>>(),
            [13, 10, 11, 12]
        );
        assert_eq!(
            range.candidates(Some(13)).collect::<Vec<_>>(),
            [10, 11, 12, 13]
        );
        assert_eq!(range.candidates(None).collect::<Vec<_>>(), [10, 11, 12, 13]);
    }
}
