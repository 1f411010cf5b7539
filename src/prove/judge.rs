//! Judges a run: compares what the clients got with what the application recorded and with the
//! kills. Pure.
//!
//! - **doubled**: the application recorded one try of a request more than once. acc may repeat the
//!   same try of a safe request once for each kill that fell on its way; that of a POST never.
//! - **right**: answered 2xx, complete and as expected.
//! - **wrong**: answered 2xx with something else; or the application got all of it and survived,
//!   and the client received an error.
//! - **broken by the crash**: not right, and the process that had it was killed. That includes a
//!   POST in the killed process's socket that was not read yet: the 502 says that it may have been
//!   seen, and the kill fell between sending and response.
//! - **cut by the crash**: the killed process of the edge held its connection, so that no response
//!   was possible; or, behind nginx, acc's server was killed while it had the request: the response
//!   broke off, or said that the request may have been seen and is not sent twice.
//! - **lost**: everything else. An error for a request that the application never got is always
//!   lost, with or without a crash, and so is a connection that ends although no killed process
//!   held it.

use std::collections::HashSet;

use super::record::{AppRecord, RecordedArrival};
use super::report::{RequestFault, Spread, Tally};
use super::sample::{RequestEnd, RequestKind, Sample};
use super::strike::{Strike, Struck};
use crate::proxy::failure::MAYBE_SEEN;

/// Faults that are reported individually.
const REPORTED_MAX: usize = 20;

/// The evidence about a run.
pub(super) struct Evidence<'a> {
    /// All requests.
    pub(super) samples: &'a [Sample],
    /// The application's record; `None`: there is none.
    pub(super) record: Option<&'a AppRecord>,
    /// What was killed.
    pub(super) strikes: &'a [Strike],
    /// Start of the run, in nanoseconds of the monotonic clock.
    pub(super) began: u64,
    /// The run's tag.
    pub(super) tag: &'a str,
}

/// The judgement.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    pub(super) tally: Tally,
    pub(super) wake: Option<Spread>,
    pub(super) wake_from_sleep: Option<Spread>,
    pub(super) faults: Vec<RequestFault>,
}

/// The verdict on one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SampleVerdict {
    Right,
    Lost,
    Wrong,
    Broken,
    Cut,
}

/// Judges all of them.
pub(super) fn judge(evidence: &Evidence<'_>) -> Judgement {
    let killed: HashSet<i32> = evidence
        .strikes
        .iter()
        .filter(|s| s.what == Struck::Instance)
        .map(|s| s.pid)
        .collect();
    // Without a record it is unknown how often a request was delivered, and whether before or
    // after a start.
    let recorded = evidence.record.map(|_| 0);
    let mut judgement = Judgement {
        tally: Tally {
            doubled: recorded,
            held: recorded,
            ..Tally::default()
        },
        ..Judgement::default()
    };
    let (mut wakes, mut from_sleep) = (Vec::new(), Vec::new());
    for sample in evidence.samples {
        let seen = evidence
            .record
            .and_then(|r| r.requests.get(&sample.id))
            .map_or(&[][..], Vec::as_slice);
        let verdict = verdict(sample, seen, &killed, evidence);
        let doubled =
            is_doubled(sample, seen, evidence) || messages_doubled(sample, evidence.record);
        count(&mut judgement.tally, sample, verdict, doubled);
        if verdict == SampleVerdict::Right
            && let Some(wake) = wake_of(sample, seen)
        {
            judgement.tally.held = judgement.tally.held.map(|held| held + 1);
            wakes.push(wake);
            from_sleep.extend(
                seen.last()
                    .filter(|a| a.before_ended > 0 && a.before_ended < sample.sent)
                    .map(|_| wake),
            );
        }
        let bad = matches!(verdict, SampleVerdict::Lost | SampleVerdict::Wrong) || doubled;
        if bad && judgement.faults.len() < REPORTED_MAX {
            judgement
                .faults
                .push(fault(sample, seen, verdict, doubled, evidence));
        }
    }
    judgement.wake = evidence.record.map(|_| Spread::of(wakes));
    judgement.wake_from_sleep = evidence.record.map(|_| Spread::of(from_sleep));
    judgement
}

fn count(tally: &mut Tally, sample: &Sample, verdict: SampleVerdict, doubled: bool) {
    tally.sent += 1;
    tally.messages += u64::from(sample.messages);
    tally.retried += u64::from(sample.tries > 1);
    tally.doubled = tally.doubled.map(|times| times + u64::from(doubled));
    let which = match verdict {
        SampleVerdict::Right => &mut tally.right,
        SampleVerdict::Lost => &mut tally.lost,
        SampleVerdict::Wrong => &mut tally.wrong,
        SampleVerdict::Broken => &mut tally.broken_by_the_crash,
        SampleVerdict::Cut => &mut tally.cut_by_the_crash,
    };
    *which += 1;
}

fn verdict(
    sample: &Sample,
    seen: &[RecordedArrival],
    killed: &HashSet<i32>,
    evidence: &Evidence<'_>,
) -> SampleVerdict {
    let last: Vec<&RecordedArrival> = seen.iter().filter(|a| a.attempt == sample.tries).collect();
    let in_killed = last.iter().any(|a| killed.contains(&a.pid));
    let repeatable = sample.kind.safe() && !matches!(sample.end, RequestEnd::HungUp(_));
    let cut = || {
        sample
            .line
            .is_some_and(|line| evidence.strikes.iter().any(|s| s.cut(&line)))
    };
    let met_instance = || met(sample, evidence).any(|s| s.what == Struck::Instance);
    let met_server = || met(sample, evidence).any(|s| s.what == Struck::Server && s.is_behind());
    match &sample.end {
        RequestEnd::Right => SampleVerdict::Right,
        _ if in_killed => SampleVerdict::Broken,
        RequestEnd::Wrong(_) => SampleVerdict::Wrong,
        RequestEnd::Cut(_) | RequestEnd::Torn(_) | RequestEnd::HungUp(_) if cut() => {
            SampleVerdict::Cut
        }
        RequestEnd::Torn(_) | RequestEnd::HungUp(_) if met_server() => SampleVerdict::Cut,
        RequestEnd::Answered(502, _) if !repeatable && last.is_empty() && met_instance() => {
            SampleVerdict::Broken
        }
        RequestEnd::Answered(502..=504, _) if !last.is_empty() && met_server() => {
            SampleVerdict::Cut
        }
        RequestEnd::Answered(502, why)
            if !repeatable && why.contains(MAYBE_SEEN) && met_server() =>
        {
            SampleVerdict::Cut
        }
        RequestEnd::Answered(..) if !last.is_empty() => SampleVerdict::Wrong,
        // Nothing else kills an application's connection: it was in its socket.
        RequestEnd::Cut(_) | RequestEnd::Torn(_) | RequestEnd::HungUp(_)
            if !repeatable && last.is_empty() && met_instance() =>
        {
            SampleVerdict::Broken
        }
        RequestEnd::Answered(..)
        | RequestEnd::Cut(_)
        | RequestEnd::Torn(_)
        | RequestEnd::HungUp(_)
        | RequestEnd::NotConnected(_)
        | RequestEnd::Late => SampleVerdict::Lost,
    }
}

/// The kills during the request.
fn met<'a>(sample: &Sample, evidence: &Evidence<'a>) -> impl Iterator<Item = &'a Strike> {
    let (sent, ended) = (sample.sent, sample.ended);
    evidence.strikes.iter().filter(move |s| s.met(sent, ended))
}

fn is_doubled(sample: &Sample, seen: &[RecordedArrival], evidence: &Evidence<'_>) -> bool {
    let on_its_way =
        |s: &&Strike| matches!(s.what, Struck::Instance | Struck::Server | Struck::Worker);
    let again = if sample.kind.safe() {
        met(sample, evidence).filter(on_its_way).count()
    } else {
        0
    };
    (1..=sample.tries)
        .any(|attempt| seen.iter().filter(|a| a.attempt == attempt).count() > 1 + again)
}

fn messages_doubled(sample: &Sample, record: Option<&AppRecord>) -> bool {
    let Some(record) = record.filter(|_| sample.kind == RequestKind::Socket) else {
        return false;
    };
    (0..u32::from(sample.messages)).any(|n| {
        record
            .messages
            .get(&(sample.id, n))
            .is_some_and(|times| *times > 1)
    })
}

/// The time from sending to the response, for a request that was sent before its process was
/// started; without the delay that the application was asked for.
fn wake_of(sample: &Sample, seen: &[RecordedArrival]) -> Option<u64> {
    let started = seen.last()?.started;
    (started > sample.sent).then(|| {
        sample
            .head
            .saturating_sub(sample.sent)
            .saturating_sub(u64::from(sample.own_ms) * 1_000_000)
    })
}

fn fault(
    sample: &Sample,
    seen: &[RecordedArrival],
    verdict: SampleVerdict,
    doubled: bool,
    evidence: &Evidence<'_>,
) -> RequestFault {
    let what = match &sample.end {
        RequestEnd::Right => "answered correctly".to_owned(),
        RequestEnd::Wrong(why)
        | RequestEnd::Cut(why)
        | RequestEnd::Torn(why)
        | RequestEnd::HungUp(why)
        | RequestEnd::NotConnected(why) => why.to_string(),
        RequestEnd::Answered(status, text) => format!("answered {status}: {text}"),
        RequestEnd::Late => "no answer within the time limit".to_owned(),
    };
    let pids: Vec<String> = seen
        .iter()
        .map(|a| format!("{} (try {})", a.pid, a.attempt))
        .collect();
    let delivered = match (evidence.record, pids.is_empty()) {
        (None, _) => String::new(),
        (Some(_), true) => "; the application did not receive it".to_owned(),
        (Some(_), false) => format!("; delivered to {}", pids.join(", ")),
    };
    RequestFault {
        id: sample.id.text(evidence.tag, sample.tries),
        kind: sample.kind.as_str(),
        verdict: match verdict {
            SampleVerdict::Lost => "lost",
            SampleVerdict::Wrong => "wrong",
            _ if doubled => "doubled",
            SampleVerdict::Right | SampleVerdict::Broken | SampleVerdict::Cut => "right",
        },
        at_s: seconds(sample.sent.saturating_sub(evidence.began)),
        took_s: seconds(sample.ended.saturating_sub(sample.sent)),
        what: what + &delivered,
    }
}

/// To the millisecond.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53 milliseconds")]
fn seconds(ns: u64) -> f64 {
    (ns / 1_000_000) as f64 / 1000.0
}

#[cfg(test)]
mod tests;
