//! The table: one function per phase, with every event. The module above explains the words.

use super::effect::{Effect, Note};
use super::event::Event;
use super::limits::Limits;
use super::machine::{IDLE_CHECKS, KILL_AGAIN, Machine, Step};
use super::phase::{Cause, Denied, Drain, Failure, Phase};
use crate::idle;
use crate::instance::Exit;
use crate::time::Timestamp;

/// Chooses the row.
pub(super) fn apply(
    m: &Machine,
    event: &Event,
    now: Timestamp,
    l: &Limits,
) -> Result<Step, Denied> {
    match event {
        Event::SetDesired(desired) => return m.set_desired(*desired),
        Event::Retire(retiring) => return m.retire(*retiring),
        _ => {}
    }
    match m.phase {
        Phase::Creating => creating(m, event, now),
        Phase::Asleep => asleep(m, event, now, l),
        Phase::Waking => waking(m, event, now, l),
        Phase::Awake => awake(m, event, now, l),
        Phase::Draining => draining(m, event, now, l),
        Phase::Stopping => stopping(m, event, now, l),
        Phase::Failed => failed(m, event, now, l),
        Phase::Destroyed => destroyed(m, event),
    }
}

fn creating(m: &Machine, event: &Event, now: Timestamp) -> Result<Step, Denied> {
    match event {
        Event::Created => m
            .go(Phase::Asleep, now)
            .with([Effect::Persist, Effect::Record(Note::Created)]),
        Event::Wake(_) | Event::Sleep { .. } | Event::Destroy | Event::Reset => {
            Err(Denied::Creating)
        }
        Event::SetDesired(_)
        | Event::Retire(_)
        | Event::Spawned { .. }
        | Event::Ready { .. }
        | Event::StartFailed { .. }
        | Event::Exited { .. }
        | Event::Checked { .. }
        | Event::InFlight { .. }
        | Event::DrainFailed { .. }
        | Event::Displaced { .. }
        | Event::Timer { .. }
        | Event::Found(_) => m.stay(),
    }
}

fn asleep(m: &Machine, event: &Event, now: Timestamp, l: &Limits) -> Result<Step, Denied> {
    match event {
        Event::Wake(cause) => m.start(*cause, now, l),
        Event::Destroy => m.destroy(now),
        Event::Sleep { .. } | Event::Reset => m.stay(),
        // Nothing should run, yet something does: it is stopped, and never served.
        Event::Found(Some(run_id)) => {
            let mut next = m.go(Phase::Stopping, now);
            next.run_id = Some(run_id.clone());
            next.stop_now(now, l, [Effect::CloseGate, Effect::Watch])
        }
        Event::Found(None)
        | Event::Created
        | Event::SetDesired(_)
        | Event::Retire(_)
        | Event::Spawned { .. }
        | Event::Ready { .. }
        | Event::StartFailed { .. }
        | Event::Exited { .. }
        | Event::Checked { .. }
        | Event::InFlight { .. }
        | Event::DrainFailed { .. }
        | Event::Displaced { .. }
        | Event::Timer { .. } => m.stay(),
    }
}

fn waking(m: &Machine, event: &Event, now: Timestamp, l: &Limits) -> Result<Step, Denied> {
    match event {
        Event::Wake(_) => m.stay(),
        // If it is not spawned yet, the stop waits for the supervisor's answer: a run ends by
        // `Exited` or `StartFailed` only.
        Event::Sleep { .. } => m.stopping_for(Drain::Operator, now).stop_now(now, l, []),
        Event::Spawned {
            run,
            run_id,
            answers,
        } if *run == m.run => m.spawned(run_id.clone(), *answers, now, l),
        Event::Ready { run } if *run == m.run => m.answered(now, []),
        Event::StartFailed { run, failure } if *run == m.run && m.run_id.is_none() => {
            m.ended(failure.clone(), now)
        }
        Event::StartFailed { run, failure } if *run == m.run => m.fail(failure, now, l),
        Event::Exited { run, exit } if *run == m.run => m.ended(Failure::ExitedAtStart(*exit), now),
        Event::Timer { armed, waits_for } if *armed == m.armed => m.fail(
            &Failure::NotReady {
                within: now.since(m.since).max(l.start),
                what: waits_for.clone(),
            },
            now,
            l,
        ),
        Event::Found(Some(run_id)) => {
            let mut next = m.clone();
            next.run_id = Some(run_id.clone());
            next.since_spawn(now, l)
        }
        Event::Found(None) => {
            let mut next = m.go(Phase::Asleep, now);
            next.run_id = None;
            next.with([Effect::Persist, Effect::CloseGate])
        }
        Event::Destroy => Err(Denied::NotAsleep(m.phase)),
        Event::Created
        | Event::SetDesired(_)
        | Event::Retire(_)
        | Event::Reset
        | Event::Spawned { .. }
        | Event::Ready { .. }
        | Event::StartFailed { .. }
        | Event::Exited { .. }
        | Event::Checked { .. }
        | Event::InFlight { .. }
        | Event::DrainFailed { .. }
        | Event::Displaced { .. }
        | Event::Timer { .. } => m.stay(),
    }
}

fn awake(m: &Machine, event: &Event, now: Timestamp, l: &Limits) -> Result<Step, Denied> {
    match event {
        Event::Wake(_) => m.stay(),
        Event::Sleep { now: true } => {
            m.stopping_for(Drain::Operator, now)
                .stop_now(now, l, [Effect::CloseGate])
        }
        Event::Sleep { now: false } => m.drain(Drain::Operator, now, l),
        Event::Displaced { run, why } if *run == m.run => {
            let noted = Effect::Record(Note::Displaced(why.clone()));
            m.stopping_for(Drain::Displaced, now)
                .stop_now(now, l, [Effect::CloseGate, noted])
        }
        Event::Checked {
            run,
            in_flight,
            used,
        } if *run == m.run => checked(m, *in_flight, *used, now, l),
        Event::Exited { run, exit } if *run == m.run => m.ended(Failure::Died(*exit), now),
        Event::Found(Some(run_id)) => {
            let mut next = m.clone();
            next.run_id = Some(run_id.clone());
            next.with([Effect::Persist, Effect::Watch, Effect::OpenGate])
        }
        Event::Found(None) => m.ended(Failure::Died(Exit::Unknown), now),
        Event::Destroy => Err(Denied::NotAsleep(m.phase)),
        Event::Created
        | Event::SetDesired(_)
        | Event::Retire(_)
        | Event::Reset
        | Event::Spawned { .. }
        | Event::Ready { .. }
        | Event::StartFailed { .. }
        | Event::Exited { .. }
        | Event::Checked { .. }
        | Event::InFlight { .. }
        | Event::DrainFailed { .. }
        | Event::Displaced { .. }
        | Event::Timer { .. } => m.stay(),
    }
}

/// A check from outside: puts it to sleep if it is idle.
fn checked(
    m: &Machine,
    in_flight: u32,
    used: Option<Timestamp>,
    now: Timestamp,
    l: &Limits,
) -> Result<Step, Denied> {
    let mut next = m.clone();
    if in_flight > 0 {
        next.quiet_since = now;
    } else if let Some(used) = used {
        next.quiet_since = next.quiet_since.max(used);
    }
    match idle::verdict(&next.idle_sample(in_flight, l), now) {
        idle::IdleVerdict::Sleep => next.drain(Drain::Idle, now, l),
        idle::IdleVerdict::Pinned
        | idle::IdleVerdict::InUse(_)
        | idle::IdleVerdict::JustWoken(_)
        | idle::IdleVerdict::NotYet(_) => next.with([]),
    }
}

fn draining(m: &Machine, event: &Event, now: Timestamp, l: &Limits) -> Result<Step, Denied> {
    match event {
        // Any request cancels an idle stop. Only the operator cancels an operator's stop; requests
        // wait until it is over.
        Event::Wake(cause) if m.drain == Drain::Idle || *cause == Cause::Operator => {
            m.may_wake().and_then(|()| m.back_to_awake([]))
        }
        Event::Wake(cause) => wake_afterwards(m, *cause),
        Event::Sleep { now: true } => m.stopping_for(Drain::Operator, now).stop_now(now, l, []),
        Event::Sleep { now: false } if m.drain == Drain::Operator => m.stay(),
        Event::Sleep { now: false } => {
            let mut next = m.clone();
            next.drains_for(Drain::Operator, now);
            let arm = next.arm(now.after(l.drain));
            next.with([arm])
        }
        Event::InFlight { run, count: 0 } if *run == m.run && m.tickets == 0 => {
            m.go(Phase::Stopping, now).stop_now(now, l, [])
        }
        Event::InFlight { run, count } if *run == m.run => {
            in_flight(m, (*count).max(m.tickets), now, l)
        }
        Event::DrainFailed { run } if *run == m.run => m.back_to_awake([]),
        Event::Timer { armed, .. } if *armed == m.armed => match m.drain {
            Drain::Operator | Drain::Displaced => m.go(Phase::Stopping, now).stop_now(now, l, []),
            Drain::Idle => m.back_to_awake([]),
        },
        Event::Exited { run, exit } if *run == m.run => m.ended(Failure::Died(*exit), now),
        // After a crash of acc the reason of the drain is unknown: nothing may be cut, so it serves
        // again.
        Event::Found(Some(run_id)) => {
            let mut next = m.clone();
            next.run_id = Some(run_id.clone());
            next.back_to_awake([Effect::Watch])
        }
        Event::Found(None) => m.ended(Failure::Died(Exit::Unknown), now),
        Event::Destroy => Err(Denied::NotAsleep(m.phase)),
        Event::Created
        | Event::SetDesired(_)
        | Event::Retire(_)
        | Event::Reset
        | Event::Spawned { .. }
        | Event::Ready { .. }
        | Event::StartFailed { .. }
        | Event::Exited { .. }
        | Event::Checked { .. }
        | Event::InFlight { .. }
        | Event::DrainFailed { .. }
        | Event::Displaced { .. }
        | Event::Timer { .. } => m.stay(),
    }
}

/// Something is in flight: waits for it; for streams, a shorter time.
fn in_flight(m: &Machine, count: u32, now: Timestamp, l: &Limits) -> Result<Step, Denied> {
    if m.drain == Drain::Idle && m.checks + 1 >= IDLE_CHECKS {
        return m.back_to_awake([Effect::Record(Note::StopCancelled(count))]);
    }
    let mut next = m.clone();
    next.checks += 1;
    let count = Effect::Count(next.checks);
    if m.drain == Drain::Idle || m.streams_ended || now.since(m.drained_since) < l.drain_streams {
        return next.with([count]);
    }
    next.streams_ended = true;
    next.with([Effect::EndStreams, count])
}

/// It is started again for this cause once the stop is over.
fn wake_afterwards(m: &Machine, cause: Cause) -> Result<Step, Denied> {
    m.may_wake()?;
    let mut next = m.clone();
    next.demand = Some(cause);
    next.with([])
}

fn stopping(m: &Machine, event: &Event, now: Timestamp, l: &Limits) -> Result<Step, Denied> {
    match event {
        Event::Wake(cause) => {
            if *cause == Cause::Request && m.failed_run == Some(m.run) {
                return Err(m.failed_denial(now));
            }
            wake_afterwards(m, m.demand.unwrap_or(*cause))
        }
        Event::Sleep { .. } => {
            let mut next = m.clone();
            next.demand = None;
            next.with([])
        }
        Event::Exited { run, .. } if *run == m.run => m.stopped(now, l),
        Event::StartFailed { run, .. } if *run == m.run && m.run_id.is_none() => m.stopped(now, l),
        Event::Spawned { run, run_id, .. } if *run == m.run => {
            let mut next = m.clone();
            next.run_id = Some(run_id.clone());
            next.stop_now(now, l, [Effect::Watch])
        }
        Event::Timer { armed, .. } if *armed == m.armed => {
            let mut next = m.clone();
            let arm = next.arm(now.after(KILL_AGAIN));
            // The gate is closed again, in case the first attempt failed.
            next.with([
                Effect::CloseGate,
                Effect::Kill,
                arm,
                Effect::Record(Note::Killed),
            ])
        }
        Event::Found(Some(run_id)) => {
            let mut next = m.clone();
            next.run_id = Some(run_id.clone());
            next.stop_now(now, l, [Effect::CloseGate, Effect::Watch])
        }
        Event::Found(None) => m.stopped(now, l),
        Event::Destroy => Err(Denied::NotAsleep(m.phase)),
        Event::Created
        | Event::SetDesired(_)
        | Event::Retire(_)
        | Event::Reset
        | Event::Spawned { .. }
        | Event::Ready { .. }
        | Event::StartFailed { .. }
        | Event::Exited { .. }
        | Event::Checked { .. }
        | Event::InFlight { .. }
        | Event::DrainFailed { .. }
        | Event::Displaced { .. }
        | Event::Timer { .. } => m.stay(),
    }
}

fn failed(m: &Machine, event: &Event, now: Timestamp, l: &Limits) -> Result<Step, Denied> {
    match event {
        Event::Wake(cause) => {
            m.may_wake()?;
            if *cause != Cause::Operator && now < m.retry_at {
                return Err(m.failed_denial(now));
            }
            m.start(*cause, now, l)
        }
        Event::Reset => {
            let mut next = m.go(Phase::Asleep, now);
            next.failures = 0;
            next.failure = None;
            next.with([Effect::Persist])
        }
        Event::Destroy => m.destroy(now),
        Event::Found(Some(run_id)) => {
            let mut next = m.go(Phase::Stopping, now);
            next.run_id = Some(run_id.clone());
            next.failed_run = Some(m.run);
            next.stop_now(now, l, [Effect::CloseGate, Effect::Watch])
        }
        Event::Found(None)
        | Event::Sleep { .. }
        | Event::Created
        | Event::SetDesired(_)
        | Event::Retire(_)
        | Event::Spawned { .. }
        | Event::Ready { .. }
        | Event::StartFailed { .. }
        | Event::Exited { .. }
        | Event::Checked { .. }
        | Event::InFlight { .. }
        | Event::DrainFailed { .. }
        | Event::Displaced { .. }
        | Event::Timer { .. } => m.stay(),
    }
}

fn destroyed(m: &Machine, event: &Event) -> Result<Step, Denied> {
    match event {
        Event::Wake(_) | Event::Reset => Err(Denied::Destroyed),
        Event::Destroy | Event::Sleep { .. } => m.stay(),
        Event::Created
        | Event::SetDesired(_)
        | Event::Retire(_)
        | Event::Spawned { .. }
        | Event::Ready { .. }
        | Event::StartFailed { .. }
        | Event::Exited { .. }
        | Event::Checked { .. }
        | Event::InFlight { .. }
        | Event::DrainFailed { .. }
        | Event::Displaced { .. }
        | Event::Timer { .. }
        | Event::Found(_) => m.stay(),
    }
}
