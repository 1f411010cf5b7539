//! How long to wait before the next check: growing pauses.
//!
//! It never decides whether an instance is ready.

use std::time::Duration;

/// Growing pauses.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    next: Duration,
    /// In tenths of the pause before.
    factor: u32,
    most: Duration,
}

impl Steps {
    /// Between the bind of a socket and its listen, if that takes longer than usual.
    pub const SOCKET: Self = Self {
        next: Duration::from_micros(100),
        factor: 15,
        most: Duration::from_millis(10),
    };
    /// For a connection in a queue; usually an event reports that it was accepted.
    pub const QUEUE: Self = Self {
        next: Duration::from_millis(20),
        factor: 15,
        most: Duration::from_millis(250),
    };
    /// Where another program listens, which may go away.
    pub const STRANGER: Self = Self {
        next: Duration::from_millis(50),
        factor: 15,
        most: Duration::from_millis(200),
    };
    /// For an application that answers, but whose health check fails so far.
    pub const HEALTH: Self = Self {
        next: Duration::from_millis(1),
        factor: 15,
        most: Duration::from_millis(100),
    };

    /// No event reports the bind of a TCP port, so it is polled: every millisecond at first, which
    /// adds at most half of that to the start. See [`PortSteps`].
    const PORT_AT_FIRST: Self = Self {
        next: Duration::from_micros(500),
        factor: 13,
        most: Duration::from_millis(1),
    };
    const PORT: Self = Self {
        next: Duration::from_millis(1),
        factor: 11,
        most: Duration::from_millis(25),
    };

    /// Returns the next pause; each is longer than the one before.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * self.factor / 10).min(self.most);
        pause
    }
}

/// How long to poll often: a fast application answers by then.
const YOUNG: Duration = Duration::from_secs(1);
/// Each waiting start adds this much to the pause of all: together they poll at most 8,000 times a
/// second.
const SHARE: Duration = Duration::from_micros(125);

/// Pauses between two checks of a TCP port: short at the beginning of a start, and longer the more
/// ports are polled.
#[derive(Debug, Clone, Copy)]
pub struct PortSteps {
    waited: Duration,
    at_first: Steps,
    later: Steps,
}

impl Default for PortSteps {
    fn default() -> Self {
        Self {
            waited: Duration::ZERO,
            at_first: Steps::PORT_AT_FIRST,
            later: Steps::PORT,
        }
    }
}

impl PortSteps {
    /// Returns the next pause, while this many ports are polled.
    pub fn pause(&mut self, waiting: u32) -> Duration {
        let steps = if self.waited < YOUNG {
            &mut self.at_first
        } else {
            &mut self.later
        };
        let pause = steps.pause().max(SHARE * waiting);
        self.waited += pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_looked_for_often_while_a_start_is_young_and_rarely_by_a_crowd() {
        let mut steps = PortSteps::default();
        let mut waited = Duration::ZERO;
        while waited < YOUNG {
            let pause = steps.pause(1);
            assert!(
                pause <= Duration::from_millis(1),
                "{pause:?} after {waited:?}"
            );
            waited += pause;
        }
        let later: Vec<Duration> = (0..60).map(|_| steps.pause(1)).collect();
        assert!(later.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!(later[59], Duration::from_millis(25));
        let mut of_many = PortSteps::default();
        assert!((0..100).all(|_| 100 / of_many.pause(100).as_micros().max(1) * 1_000_000 <= 8_000));
        assert_eq!(
            PortSteps::default().pause(100),
            Duration::from_micros(12_500)
        );
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut steps = Steps::HEALTH;
        let pauses: Vec<Duration> = (0..40).map(|_| steps.pause()).collect();
        assert_eq!(pauses[0], Duration::from_millis(1));
        assert!(pauses.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!(pauses[39], Duration::from_millis(100));
        let mut steps = Steps::SOCKET;
        assert!(
            (0..100)
                .map(|_| steps.pause())
                .filter(|p| *p < Duration::from_millis(1))
                .count()
                < 10
        );
    }
}
