//! Stops: idle, by the operator, before the start is over, and of what does not end.

use super::*;

#[test]
fn an_idle_stop_closes_the_gate_looks_again_and_gives_way() {
    let quiet = Event::Checked {
        run: 1,
        in_flight: 0,
        used: None,
    };
    let draining = walk(&then(to_awake(), &[(61, quiet.clone())]));
    assert_eq!(draining.next.phase(), Phase::Draining);
    assert!(matches!(
        draining.effects[..],
        [
            Effect::Persist,
            Effect::CloseGate,
            Effect::Arm { .. },
            Effect::Count(0)
        ]
    ));
    assert_eq!(
        walk(&then(to_awake(), &[(60, quiet.clone())])).next.phase(),
        Phase::Awake,
        "not idle for the whole timeout"
    );

    let request = walk(&then(
        to_awake(),
        &[(61, quiet.clone()), (61, Event::Wake(Cause::Request))],
    ));
    assert_eq!(
        (request.next.phase(), request.effects.last()),
        (Phase::Awake, Some(&Effect::OpenGate))
    );

    let mut busy = then(to_awake(), &[(61, quiet)]);
    busy.extend((0..IDLE_CHECKS).map(|_| (61, Event::InFlight { run: 1, count: 1 })));
    let cancelled = walk(&busy);
    assert_eq!(cancelled.next.phase(), Phase::Awake);
    assert!(
        cancelled
            .effects
            .contains(&Effect::Record(Note::StopCancelled(1)))
    );
}

#[test]
fn an_operators_stop_waits_for_what_is_in_flight_then_wakes_for_who_waits() {
    let counted = Event::InFlight { run: 1, count: 0 };
    let begin = || {
        let mut served = Served::new(walk(&to_awake()).next);
        assert!(served.requests.admit());
        let (_, draining) = served.step(&Event::Sleep { now: false }, at(3)).unwrap();
        assert_eq!(draining.next.phase(), Phase::Draining);
        assert!(!served.requests.admit());
        served
    };
    // The kernel sees nothing, but a ticket is out.
    let (_, still) = begin().step(&counted, at(4)).unwrap();
    assert_eq!(
        (still.next.phase(), still.effects),
        (Phase::Draining, vec![Effect::Count(1)])
    );
    let mut served = begin();
    served.step(&Event::Wake(Cause::Request), at(4)).unwrap();
    served.requests.release(true, at(5));
    let (_, stopping) = served.step(&counted, at(5)).unwrap();
    assert_eq!(stopping.next.phase(), Phase::Stopping);
    assert!(stopping.effects.contains(&Effect::Terminate));
    let exited = Event::Exited {
        run: 1,
        exit: Exit::Code(0),
    };
    let (_, again) = served.step(&exited, at(6)).unwrap();
    assert_eq!((again.next.phase(), again.next.run()), (Phase::Waking, 2));
}

#[test]
fn a_drain_that_takes_too_long_is_cut_only_for_the_operator() {
    let draining = walk(&then(to_awake(), &[(2, Event::Sleep { now: false })])).next;
    let cut = step(&draining, &timer(&draining), at(30), &LIMITS).unwrap();
    assert_eq!(cut.next.phase(), Phase::Stopping);
    let idle = walk(&then(
        to_awake(),
        &[(
            61,
            Event::Checked {
                run: 1,
                in_flight: 0,
                used: None,
            },
        )],
    ))
    .next;
    let kept = step(&idle, &timer(&idle), at(90), &LIMITS).unwrap();
    assert_eq!(kept.next.phase(), Phase::Awake);
}

#[test]
fn a_stop_before_the_spawn_is_reported_ends_what_comes_of_it() {
    let stopped = walk(&[
        (0, Event::Created),
        (0, Event::Wake(Cause::Request)),
        (0, Event::Sleep { now: false }),
    ]);
    assert_eq!(stopped.next.phase(), Phase::Stopping);
    let spawned = step(
        &stopped.next,
        &Event::Spawned {
            run: 1,
            run_id: the_run(),
            answers: false,
        },
        at(1),
        &LIMITS,
    )
    .unwrap();
    assert!(
        spawned.effects.contains(&Effect::Terminate) && spawned.effects.contains(&Effect::Watch)
    );
    let failure = Failure::NotStarted("no".into());
    let never = step(
        &stopped.next,
        &Event::StartFailed { run: 1, failure },
        at(1),
        &LIMITS,
    )
    .unwrap();
    assert_eq!(never.next.phase(), Phase::Asleep);
}

#[test]
fn one_that_does_not_end_is_killed_and_killed_again() {
    let stopping = walk(&then(to_awake(), &[(2, Event::Sleep { now: true })])).next;
    let killed = step(&stopping, &timer(&stopping), at(12), &LIMITS).unwrap();
    assert_eq!(killed.effects[..2], [Effect::CloseGate, Effect::Kill]);
    let again = step(&killed.next, &timer(&killed.next), at(17), &LIMITS).unwrap();
    assert_eq!(again.effects[..2], [Effect::CloseGate, Effect::Kill]);
}

#[test]
fn a_disabled_one_is_not_woken() {
    let machine = walk(&[
        (0, Event::Created),
        (0, Event::SetDesired(DesiredState::Down)),
    ])
    .next;
    for cause in [Cause::Request, Cause::Operator, Cause::Pinned] {
        assert_eq!(
            step(&machine, &Event::Wake(cause), at(1), &LIMITS),
            Err(Denied::Disabled)
        );
    }
}

#[test]
fn one_that_is_disabled_while_it_stops_ends_although_somebody_waits() {
    let stopping = then(
        to_awake(),
        &[
            (10, Event::Sleep { now: true }),
            (10, Event::Wake(Cause::Request)),
            (10, Event::SetDesired(DesiredState::Down)),
        ],
    );
    let end = walk(&then(
        stopping,
        &[(
            11,
            Event::Exited {
                run: 1,
                exit: Exit::Code(0),
            },
        )],
    ));
    assert_eq!(end.next.phase(), Phase::Asleep);
    // An instance that is disabled while it drains has no waiting requests, and not even the
    // operator can wake it.
    let draining = walk(&then(
        to_awake(),
        &[
            (10, Event::SetDesired(DesiredState::Down)),
            (10, Event::Sleep { now: false }),
        ],
    ))
    .next;
    for cause in [Cause::Request, Cause::Operator] {
        assert_eq!(
            step(&draining, &Event::Wake(cause), at(11), &LIMITS),
            Err(Denied::Disabled)
        );
    }
}
