//! What a proof came to: numbers for a table and for `--json`.

use serde::Serialize;

/// The whole result.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Nothing was lost, wrong or doubled, and the run was as long as it should be.
    pub proven: bool,
    /// The instance.
    pub instance: String,
    /// Its model.
    pub model: String,
    /// The edge.
    pub edge: String,
    /// The supervisor.
    pub supervisor: String,
    /// What chance was drawn from: give it to `--seed` to repeat the run.
    pub seed: u64,
    /// How often the instance was put to sleep.
    pub cycles: u32,
    /// How many of these were idle stops.
    pub idle_stops: u32,
    /// Clients at once.
    pub clients: u16,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The application recorded what reached it: without, nothing can be said about what was
    /// doubled or held.
    pub recorded: bool,
    /// Ended before its time by Ctrl-C.
    pub interrupted: bool,
    /// The numbers that count.
    #[serde(flatten)]
    pub tally: Tally,
    /// Requests that were sent while the instance was not awake, from sending to the answer;
    /// `None`: not known.
    pub wake: Option<Spread>,
    /// Those among them that were sent when the former process had ended already: nothing but a
    /// wake.
    pub wake_from_sleep: Option<Spread>,
    /// What became of the streams that were open; `None` without `--streams`.
    pub streams: Option<Streams>,
    /// What was killed; `None` without `--chaos`.
    pub strikes: Option<Strikes>,
    /// Verbs (stop, monitor) that failed; with `--chaos` some do, without it none may.
    pub verbs_failed: Vec<String>,
    /// The first of those that were lost, wrong or doubled.
    pub faults: Vec<RequestFault>,
}

/// Requests by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Requests sent; one sent again counts once.
    pub sent: u64,
    /// Messages sent over WebSockets.
    pub messages: u64,
    /// Answered 2xx with what was expected.
    pub right: u64,
    /// Not answered 2xx although it could have been: the application never saw it, or it was safe
    /// to send again.
    pub lost: u64,
    /// Answered with something else than what was expected.
    pub wrong: u64,
    /// Delivered to the application more often than it was sent; `None`: not known.
    pub doubled: Option<u64>,
    /// Were in the application when it was killed.
    pub broken_by_the_crash: u64,
    /// On a connection that the killed process of the edge held, so that no answer was possible;
    /// or, behind nginx, not safe to send again and in the server when it was killed. Safe ones are
    /// sent again, and are among these only when that did not help.
    pub cut_by_the_crash: u64,
    /// Safe ones that were sent again because they got no answer.
    pub retried: u64,
    /// Sent while the instance was not awake, and answered; `None`: not known.
    pub held: Option<u64>,
}

impl Tally {
    /// Nothing lost, wrong or, as far as is known, doubled.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.wrong == 0 && self.doubled.unwrap_or_default() == 0
    }
}

/// How durations are spread, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// 95 in a hundred.
    pub p95_ms: f64,
    /// 99 in a hundred.
    pub p99_ms: f64,
    /// The longest.
    pub longest_ms: f64,
}

impl Spread {
    /// Of these nanoseconds.
    #[must_use]
    pub fn of(mut ns: Vec<u64>) -> Self {
        ns.sort_unstable();
        let at = |percent: usize| {
            ns.get((ns.len() * percent).div_ceil(100).saturating_sub(1))
                .map_or(0.0, |n| millis(*n))
        };
        Self {
            count: ns.len() as u64,
            p50_ms: at(50),
            p95_ms: at(95),
            p99_ms: at(99),
            longest_ms: at(100),
        }
    }
}

/// To the hundredth of a millisecond.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53 hundredths")]
fn millis(ns: u64) -> f64 {
    (ns / 10_000) as f64 / 100.0
}

/// WebSockets and event streams that were held open, by how they ended. Those left are the ones
/// that the proof itself has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Streams {
    /// How many began.
    pub opened: u64,
    /// Ended by a stop: a WebSocket with 1001, an event stream after a whole event.
    pub ended_in_order: u64,
    /// Held by a process that was killed, or by one before that.
    pub cut_by_the_crash: u64,
    /// Ended otherwise, or could not begin.
    pub broken: u64,
}

/// What was killed, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Strikes {
    /// The instance.
    pub instance: u32,
    /// The part of acc's server that serves.
    pub server: u32,
    /// The part of acc's server that keeps the other running.
    pub master: u32,
    /// supervisord.
    pub supervisor: u32,
    /// A worker of nginx.
    pub worker: u32,
}

/// One request that ended badly.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestFault {
    /// Its id.
    pub id: String,
    /// GET, POST, stream, …
    pub kind: &'static str,
    /// `lost`, `wrong` or `doubled`.
    pub verdict: &'static str,
    /// When it was sent, in seconds from the begin.
    pub at_s: f64,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// What happened.
    pub what: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_values_themselves() {
        let spread = Spread::of((1..=200).rev().map(|ms| ms * 1_000_000).collect());
        assert_eq!(
            (
                spread.p50_ms,
                spread.p95_ms,
                spread.p99_ms,
                spread.longest_ms
            ),
            (100.0, 190.0, 198.0, 200.0)
        );
        assert_eq!(
            Spread::of(vec![5_000_000]),
            Spread {
                count: 1,
                p50_ms: 5.0,
                p95_ms: 5.0,
                p99_ms: 5.0,
                longest_ms: 5.0
            }
        );
        assert_eq!(Spread::of(vec![]), Spread::default());
    }
}
