//! How long to wait before looking again: growing steps.
//!
//! It never decides whether an instance is ready.

use std::time::Duration;

/// Growing pauses.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    next: Duration,
    /// In tenths.
    factor: u32,
    most: Duration,
}

impl Steps {
    /// For a TCP port, where nobody tells when it is bound.
    pub const PORT: Self = Self { next: Duration::from_micros(500), factor: 13, most: Duration::from_millis(25) };
    /// Between the bind of a socket and its listen, when that takes longer than usual.
    pub const SOCKET: Self = Self { next: Duration::from_micros(100), factor: 15, most: Duration::from_millis(10) };
    /// For a connection in a queue, whose end is told by itself as a rule.
    pub const QUEUE: Self = Self { next: Duration::from_millis(20), factor: 15, most: Duration::from_millis(250) };
    /// Where somebody else listens, who may let go.
    pub const STRANGER: Self = Self { next: Duration::from_millis(50), factor: 15, most: Duration::from_millis(200) };
    /// For an application that answers, but not yet that it is well.
    pub const HEALTH: Self = Self { next: Duration::from_millis(1), factor: 15, most: Duration::from_millis(100) };

    /// The next pause; the one after it is longer.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * self.factor / 10).min(self.most);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut steps = Steps::PORT;
        let pauses: Vec<Duration> = (0..40).map(|_| steps.pause()).collect();
        assert_eq!(pauses[0], Duration::from_micros(500));
        assert!(pauses.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!(pauses[39], Duration::from_millis(25));
        let mut steps = Steps::SOCKET;
        assert!((0..100).map(|_| steps.pause()).filter(|p| *p < Duration::from_millis(1)).count() < 10);
    }
}
