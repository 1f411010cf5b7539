//! Long random walks through the machine: after each event the promises hold.

use super::*;

pub(super) fn any_event() -> impl Strategy<Value = (usize, u64, u64)> {
    (
        0..sample_events().len() + 5,
        0..3u64,
        prop_oneof![Just(0), 1..2000u64, 1000..100_000u64],
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// For all events in any order: the phase is saved before anything acts on it, no timer is set
    /// in the past, an idle stop never comes early or with something in flight, a gate opens only
    /// for an instance that answered, and a process disappears only by ending.
    #[test]
    fn long_walks_keep_the_promises(events in proptest::collection::vec(any_event(), 1..200)) {
        let mut served = Served::new(Machine::creating(DesiredState::Auto, at(0)));
        let mut now = at(0);
        for (pick, back, ms) in events {
            now = now.after(Duration::from_millis(ms));
            let samples = sample_events();
            let run = served.machine.run().saturating_sub(back.saturating_sub(1).min(1));
            let event = match samples.get(pick).map(|(_, e)| e.clone()) {
                Some(Event::Spawned { .. }) if served.machine.run_id().is_some() => continue,
                Some(event) => of_run(event, run),
                None if pick == samples.len() => timer(&served.machine),
                None if pick == samples.len() + 1 => {
                    prop_assert_eq!(served.requests.admit(), served.machine.phase() == Phase::Awake);
                    continue;
                }
                None if pick == samples.len() + 2 => {
                    served.requests.release(back != 0, now);
                    continue;
                }
                None => Event::SetDesired([DesiredState::Auto, DesiredState::Up, DesiredState::Down][usize::try_from(back).unwrap_or(0)]),
            };
            match served.step(&event, now) {
                Ok((before, taken)) => check(&before, &event, &taken, now)?,
                Err(denied) => prop_assert!(is_wish(&event), "a fact was refused ({denied}): {event:?}"),
            }
        }
    }
}

/// Whether the event is a request. A request may be refused; a fact may not.
fn is_wish(event: &Event) -> bool {
    use Event::{Created, Destroy, Reset, Retire, SetDesired, Sleep, Wake};
    matches!(
        event,
        Created | Wake(_) | Sleep { .. } | SetDesired(_) | Retire(_) | Destroy | Reset
    )
}

pub(super) fn of_run(event: Event, run: u64) -> Event {
    match event {
        Event::Spawned {
            run_id, answers, ..
        } => Event::Spawned {
            run,
            run_id,
            answers,
        },
        Event::Ready { .. } => Event::Ready { run },
        Event::StartFailed { failure, .. } => Event::StartFailed { run, failure },
        Event::Exited { exit, .. } => Event::Exited { run, exit },
        Event::Checked {
            in_flight, used, ..
        } => Event::Checked {
            run,
            in_flight,
            used,
        },
        Event::InFlight { count, .. } => Event::InFlight { run, count },
        Event::DrainFailed { .. } => Event::DrainFailed { run },
        Event::Displaced { why, .. } => Event::Displaced { run, why },
        other => other,
    }
}

fn check(
    before: &Machine,
    event: &Event,
    taken: &Step,
    now: Timestamp,
) -> Result<(), TestCaseError> {
    let Step { next, effects, .. } = taken;
    // A gate that is closed once more, with the next kill, is no new act.
    let again = before.phase() == Phase::Stopping && next.phase() == Phase::Stopping;
    let acts = |e: &Effect| {
        matches!(e, Effect::Spawn | Effect::OpenGate | Effect::Terminate)
            || !again && matches!(e, Effect::CloseGate)
    };
    if before.phase() != next.phase() {
        prop_assert_eq!(
            effects.first(),
            Some(&Effect::Persist),
            "{:?} {:?}",
            event,
            effects
        );
    }
    if effects.iter().any(acts) {
        let persisted = effects.iter().position(|e| *e == Effect::Persist);
        let acted = effects.iter().position(acts);
        prop_assert!(
            persisted < acted && persisted.is_some(),
            "{:?} {:?}",
            event,
            effects
        );
    }
    for effect in effects {
        if let Effect::Arm { at, .. } = effect {
            prop_assert!(*at > now);
        }
    }
    if effects.contains(&Effect::OpenGate) {
        prop_assert!(next.phase() == Phase::Awake);
    }
    if before.phase() == Phase::Awake
        && next.phase() == Phase::Draining
        && matches!(event, Event::Checked { .. })
    {
        prop_assert!(next.tickets() == 0 && now.since(before.since()) >= LIMITS.idle);
    }
    if before.phase() == Phase::Draining
        && next.phase() == Phase::Stopping
        && matches!(event, Event::InFlight { .. })
    {
        prop_assert!(next.tickets() == 0);
    }
    // A run is given up only by its own end.
    if before.run_id().is_some() && next.run_id().is_none() {
        let ended = matches!(event, Event::Exited { run, .. } if *run == before.run())
            || matches!(event, Event::Found(None));
        prop_assert!(ended, "{:?}", event);
    }
    if next.run() > before.run() {
        prop_assert!(next.phase() == Phase::Waking && effects.contains(&Effect::Spawn));
    }
    Ok(())
}
