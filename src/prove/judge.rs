//! Judges a run: what the clients saw, held against what the application recorded and what was killed when. Pure.
//!
//! - **doubled**: the application has one try of a request more than once. Of a safe one acc may send the same try again, once
//!   for each kill that fell on its way; of a POST never.
//! - **right**: answered 2xx, and all of what was expected.
//! - **wrong**: answered 2xx with something else; or the application had it whole, lived, and the client was told otherwise.
//! - **broken by the crash**: not right, and the process that had it was killed by us. A POST that was in the killed process's
//!   socket and not read yet is one too: 502 says "it may have been seen", and the kill fell between sending and answer.
//! - **cut by the crash**: its connection was held by the process of the edge that was killed, so that nobody could answer it; or,
//!   behind nginx, acc's server was killed while it had this one: an answer that ended in the middle, or the honest one that it
//!   may have been seen and is not sent twice.
//! - **lost**: everything else. An error answer to what the application never saw is always this, with or without a crash, and so
//!   is a connection that ends although no killed process held it.

use std::collections::HashSet;

use super::chaos::{Strike, Struck};
use super::record::{Arrival, Record};
use super::report::{Fault, Spread, Tally};
use super::shot::{End, Kind, Shot};
use crate::proxy::failure::MAYBE_SEEN;

/// Faults that are told one by one.
const TOLD: usize = 20;

/// What a run is judged by.
pub(super) struct Evidence<'a> {
    /// All requests.
    pub(super) shots: &'a [Shot],
    /// The application's record; `None`: it keeps none.
    pub(super) record: Option<&'a Record>,
    /// What was killed.
    pub(super) strikes: &'a [Strike],
    /// The begin of the run, in nanoseconds of the monotonic clock.
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
    pub(super) faults: Vec<Fault>,
}

/// What became of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Right,
    Lost,
    Wrong,
    Broken,
    Cut,
}

/// Judges all of them.
pub(super) fn judge(evidence: &Evidence<'_>) -> Judgement {
    let killed: HashSet<i32> = evidence.strikes.iter().filter(|s| s.what == Struck::Instance).map(|s| s.pid).collect();
    // Without a record nobody knows how often something was delivered, nor whether it was before or after a start.
    let recorded = evidence.record.map(|_| 0);
    let mut judgement = Judgement { tally: Tally { doubled: recorded, held: recorded, ..Tally::default() }, ..Judgement::default() };
    let (mut wakes, mut from_sleep) = (Vec::new(), Vec::new());
    for shot in evidence.shots {
        let seen = evidence.record.and_then(|r| r.requests.get(&shot.id)).map_or(&[][..], Vec::as_slice);
        let verdict = verdict(shot, seen, &killed, evidence);
        let doubled = is_doubled(shot, seen, evidence) || messages_doubled(shot, evidence.record);
        count(&mut judgement.tally, shot, verdict, doubled);
        if verdict == Verdict::Right
            && let Some(wake) = wake_of(shot, seen)
        {
            judgement.tally.held = judgement.tally.held.map(|held| held + 1);
            wakes.push(wake);
            from_sleep.extend(seen.last().filter(|a| a.before_ended > 0 && a.before_ended < shot.sent).map(|_| wake));
        }
        let bad = matches!(verdict, Verdict::Lost | Verdict::Wrong) || doubled;
        if bad && judgement.faults.len() < TOLD {
            judgement.faults.push(fault(shot, seen, verdict, doubled, evidence));
        }
    }
    judgement.wake = evidence.record.map(|_| Spread::of(wakes));
    judgement.wake_from_sleep = evidence.record.map(|_| Spread::of(from_sleep));
    judgement
}

fn count(tally: &mut Tally, shot: &Shot, verdict: Verdict, doubled: bool) {
    tally.sent += 1;
    tally.messages += u64::from(shot.messages);
    tally.retried += u64::from(shot.tries > 1);
    tally.doubled = tally.doubled.map(|times| times + u64::from(doubled));
    let which = match verdict {
        Verdict::Right => &mut tally.right,
        Verdict::Lost => &mut tally.lost,
        Verdict::Wrong => &mut tally.wrong,
        Verdict::Broken => &mut tally.broken_by_the_crash,
        Verdict::Cut => &mut tally.cut_by_the_crash,
    };
    *which += 1;
}

fn verdict(shot: &Shot, seen: &[Arrival], killed: &HashSet<i32>, evidence: &Evidence<'_>) -> Verdict {
    let last: Vec<&Arrival> = seen.iter().filter(|a| a.attempt == shot.tries).collect();
    let in_killed = last.iter().any(|a| killed.contains(&a.pid));
    let repeatable = shot.kind.safe() && !matches!(shot.end, End::HungUp(_));
    let cut = || shot.line.is_some_and(|line| evidence.strikes.iter().any(|s| s.cut(&line)));
    let met_instance = || met(shot, evidence).any(|s| s.what == Struck::Instance);
    let met_server = || met(shot, evidence).any(|s| s.what == Struck::Server && s.is_behind());
    match &shot.end {
        End::Right => Verdict::Right,
        _ if in_killed => Verdict::Broken,
        End::Wrong(_) => Verdict::Wrong,
        End::Cut(_) | End::Torn(_) | End::HungUp(_) if cut() => Verdict::Cut,
        End::Torn(_) | End::HungUp(_) if met_server() => Verdict::Cut,
        End::Answered(502, _) if !repeatable && last.is_empty() && met_instance() => Verdict::Broken,
        End::Answered(502..=504, _) if !last.is_empty() && met_server() => Verdict::Cut,
        End::Answered(502, why) if !repeatable && why.contains(MAYBE_SEEN) && met_server() => Verdict::Cut,
        End::Answered(..) if !last.is_empty() => Verdict::Wrong,
        // Nothing else kills an application's connection: it was in its socket.
        End::Cut(_) | End::Torn(_) | End::HungUp(_) if !repeatable && last.is_empty() && met_instance() => Verdict::Broken,
        End::Answered(..) | End::Cut(_) | End::Torn(_) | End::HungUp(_) | End::NotConnected(_) | End::Late => Verdict::Lost,
    }
}

/// What was killed while the request was under way.
fn met<'a>(shot: &Shot, evidence: &Evidence<'a>) -> impl Iterator<Item = &'a Strike> {
    let (sent, ended) = (shot.sent, shot.ended);
    evidence.strikes.iter().filter(move |s| s.met(sent, ended))
}

fn is_doubled(shot: &Shot, seen: &[Arrival], evidence: &Evidence<'_>) -> bool {
    let on_its_way = |s: &&Strike| matches!(s.what, Struck::Instance | Struck::Server | Struck::Worker);
    let again = if shot.kind.safe() { met(shot, evidence).filter(on_its_way).count() } else { 0 };
    (1..=shot.tries).any(|attempt| seen.iter().filter(|a| a.attempt == attempt).count() > 1 + again)
}

fn messages_doubled(shot: &Shot, record: Option<&Record>) -> bool {
    let Some(record) = record.filter(|_| shot.kind == Kind::Socket) else { return false };
    (0..u32::from(shot.messages)).any(|n| record.messages.get(&(shot.id, n)).is_some_and(|times| *times > 1))
}

/// From sending to the answer, for one that was sent before its process was started; what the application itself was asked
/// to take is not counted.
fn wake_of(shot: &Shot, seen: &[Arrival]) -> Option<u64> {
    let started = seen.last()?.started;
    (started > shot.sent).then(|| shot.head.saturating_sub(shot.sent).saturating_sub(u64::from(shot.own_ms) * 1_000_000))
}

fn fault(shot: &Shot, seen: &[Arrival], verdict: Verdict, doubled: bool, evidence: &Evidence<'_>) -> Fault {
    let what = match &shot.end {
        End::Right => "answered right".to_owned(),
        End::Wrong(why) | End::Cut(why) | End::Torn(why) | End::HungUp(why) | End::NotConnected(why) => why.to_string(),
        End::Answered(status, text) => format!("answered {status}: {text}"),
        End::Late => "no answer in time".to_owned(),
    };
    let pids: Vec<String> = seen.iter().map(|a| format!("{} (try {})", a.pid, a.attempt)).collect();
    let delivered = match (evidence.record, pids.is_empty()) {
        (None, _) => String::new(),
        (Some(_), true) => "; the application never saw it".to_owned(),
        (Some(_), false) => format!("; delivered to {}", pids.join(", ")),
    };
    Fault {
        id: shot.id.text(evidence.tag, shot.tries),
        kind: shot.kind.as_str(),
        verdict: match verdict {
            Verdict::Lost => "lost",
            Verdict::Wrong => "wrong",
            _ if doubled => "doubled",
            Verdict::Right | Verdict::Broken | Verdict::Cut => "right",
        },
        at_s: seconds(shot.sent.saturating_sub(evidence.began)),
        took_s: seconds(shot.ended.saturating_sub(shot.sent)),
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
