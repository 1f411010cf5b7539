//! The result of a proof: numbers for a table and for `--json`.

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
    /// The random seed: pass it to `--seed` to repeat the run.
    pub seed: u64,
    /// How often the instance was put to sleep.
    pub cycles: u32,
    /// How many of these were idle stops.
    pub idle_stops: u32,
    /// Number of simultaneous clients.
    pub clients: u16,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Whether the application recorded its requests: otherwise it is unknown which were doubled or
    /// held.
    pub recorded: bool,
    /// Ended early by Ctrl-C.
    pub interrupted: bool,
    /// The counts of requests.
    #[serde(flatten)]
    pub tally: Tally,
    /// Requests that were sent while the instance was not awake, from sending to the response;
    /// `None`: unknown.
    pub wake: Option<Spread>,
    /// Those among them that were sent after the former process had ended: a wake and nothing else.
    pub wake_from_sleep: Option<Spread>,
    /// How the open streams ended; `None` without `--streams`.
    pub streams: Option<Streams>,
    /// What was killed; `None` without `--chaos`.
    pub strikes: Option<Strikes>,
    /// Verbs (stop, monitor) that failed; some may with `--chaos`, none without.
    pub verbs_failed: Vec<String>,
    /// The first requests that were lost, wrong or doubled.
    pub faults: Vec<RequestFault>,
}

/// Requests by their result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Requests sent; a repeated one counts once.
    pub sent: u64,
    /// Messages sent over WebSockets.
    pub messages: u64,
    /// Answered 2xx with what was expected.
    pub right: u64,
    /// Not answered 2xx although that was possible: the application never got it, or it was safe to
    /// repeat.
    pub lost: u64,
    /// Answered with something else than expected.
    pub wrong: u64,
    /// Delivered to the application more often than sent; `None`: unknown.
    pub doubled: Option<u64>,
    /// In the application when it was killed.
    pub broken_by_the_crash: u64,
    /// On a connection that the killed process of the edge held, so that no response was possible;
    /// or, behind nginx, not safe to repeat and in the server when it was killed. Safe ones are
    /// repeated, and count here only if that did not help.
    pub cut_by_the_crash: u64,
    /// Safe ones that were repeated because they got no response.
    pub retried: u64,
    /// Sent while the instance was not awake, and answered; `None`: unknown.
    pub held: Option<u64>,
}

impl Tally {
    /// Nothing was lost, wrong or, as far as known, doubled.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.wrong == 0 && self.doubled.unwrap_or_default() == 0
    }
}

/// The distribution of durations, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Number of durations.
    pub count: u64,
    /// The median.
    pub p50_ms: f64,
    /// The 95th percentile.
    pub p95_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The longest.
    pub longest_ms: f64,
}

impl Spread {
    /// The distribution of these nanoseconds.
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

/// Rounds to a hundredth of a millisecond.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53 hundredths")]
fn millis(ns: u64) -> f64 {
    (ns / 10_000) as f64 / 100.0
}

/// WebSockets and event streams that were held open, by how they ended. The rest was ended by the
/// proof itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Streams {
    /// How many began.
    pub opened: u64,
    /// Ended by a stop: a WebSocket with 1001, an event stream after a whole event.
    pub ended_in_order: u64,
    /// A process that held it, or worked behind it, was killed.
    pub cut_by_the_crash: u64,
    /// Ended otherwise, or could not begin.
    pub broken: u64,
}

/// What was killed, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Strikes {
    /// The instance.
    pub instance: u32,
    /// The worker of acc's server.
    pub server: u32,
    /// The master of acc's server.
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
    /// When it was sent, in seconds from the start.
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
