//! Tests of the table: single cells, the printed table, and long random walks that hold the
//! promises.

mod model;
mod stops;
mod table;
mod walks;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::instance::{DesiredState, Exit, RunId};
use table::{sample, sample_events};
use walks::{any_event, of_run};

const LIMITS: Limits = Limits {
    idle: Duration::from_secs(60),
    min_awake: Duration::from_secs(5),
    start: Duration::from_secs(30),
    drain: Duration::from_secs(20),
    drain_streams: Duration::from_secs(2),
    stop: Duration::from_secs(10),
};
/// Of a runner without processes of this host: nothing here may need one.
fn the_run() -> RunId {
    RunId::new("vm-4")
}

fn at(s: u64) -> Timestamp {
    Timestamp(1_000_000 + s * 1000)
}

#[test]
fn requests_are_admitted_only_by_one_that_is_awake() {
    for phase in Phase::ALL {
        let machine = sample(phase);
        let mut requests = Requests::none(at(0));
        assert!(!requests.admit(), "before it is known what runs");
        requests.follow(&machine);
        assert_eq!(requests.admit(), phase == Phase::Awake, "{phase:?}");
        assert_eq!(requests.open(), u32::from(phase == Phase::Awake));
    }
}

#[test]
fn a_request_that_ends_is_use_unless_the_rules_say_otherwise() {
    let awake = sample(Phase::Awake);
    let mut requests = Requests::none(at(0));
    requests.follow(&awake);
    assert_eq!(requests.quiet_since(), awake.quiet_since());
    assert!(requests.admit() && requests.admit() && requests.admit());
    requests.release(false, at(7));
    assert_eq!(
        (requests.open(), requests.quiet_since()),
        (2, awake.quiet_since())
    );
    requests.release(true, at(8));
    assert_eq!((requests.open(), requests.quiet_since()), (1, at(8)));
    // A clock that was read before is no step back.
    requests.release(true, at(6));
    assert_eq!((requests.open(), requests.quiet_since()), (0, at(8)));
    assert_eq!(awake.with_requests(&requests).quiet_since(), at(8));
}

/// A machine and its requests, kept as the service keeps them.
struct Served {
    machine: Machine,
    requests: Requests,
}

impl Served {
    fn new(machine: Machine) -> Self {
        let mut requests = Requests::none(machine.quiet_since());
        requests.follow(&machine);
        Self { machine, requests }
    }

    fn step(&mut self, event: &Event, now: Timestamp) -> Result<(Machine, Step), Denied> {
        let before = self.machine.with_requests(&self.requests);
        let taken = step(&before, event, now, &LIMITS)?;
        self.requests.follow(&taken.next);
        self.machine = taken.next.clone();
        Ok((before, taken))
    }
}

/// Applies events in turn; each must be taken.
fn walk(events: &[(u64, Event)]) -> Step {
    let mut last = Step {
        next: Machine::creating(DesiredState::Auto, at(0)),
        effects: vec![],
        answer: Answer::Done,
    };
    for (time, event) in events {
        last = step(&last.next, event, at(*time), &LIMITS)
            .unwrap_or_else(|d| panic!("{event:?} at {time}: {d}"));
    }
    last
}

/// Events that lead to an awake instance of run 1 at second 1.
fn to_awake() -> Vec<(u64, Event)> {
    vec![
        (0, Event::Created),
        (0, Event::Wake(Cause::Request)),
        (
            0,
            Event::Spawned {
                run: 1,
                run_id: the_run(),
                answers: false,
            },
        ),
        (1, Event::Ready { run: 1 }),
    ]
}

#[test]
fn who_asked_for_a_wake_that_another_acc_began_is_not_known() {
    let begun = walk(&[(0, Event::Created), (0, Event::Wake(Cause::Request))]).next;
    let found = step(
        &Machine::restore(begun.stored()),
        &Event::Found(Some(the_run())),
        at(1),
        &LIMITS,
    )
    .unwrap()
    .next;
    let awake = step(&found, &Event::Ready { run: found.run() }, at(2), &LIMITS).unwrap();
    let woke = |effect: &Effect| matches!(effect, Effect::Record(Note::Woke(Cause::Unknown, _)));
    assert!(awake.effects.iter().any(woke), "{:?}", awake.effects);
}

fn then(mut events: Vec<(u64, Event)>, more: &[(u64, Event)]) -> Vec<(u64, Event)> {
    events.extend_from_slice(more);
    events
}

fn timer(machine: &Machine) -> Event {
    Event::Timer {
        armed: machine.armed,
        waits_for: "an answer".into(),
    }
}

#[test]
fn a_wake_is_written_before_it_is_done_and_opens_the_gate_last() {
    let waking = walk(&to_awake()[..2]);
    assert_eq!(waking.next.phase(), Phase::Waking);
    assert_eq!(waking.effects.first(), Some(&Effect::Persist));
    assert_eq!(waking.effects.last(), Some(&Effect::Spawn));
    let awake = walk(&to_awake());
    assert_eq!(awake.next.phase(), Phase::Awake);
    assert_eq!(awake.effects[..2], [Effect::Persist, Effect::OpenGate]);
}

#[test]
fn a_stale_timer_and_facts_of_an_older_run_change_nothing() {
    let waking = walk(&to_awake()[..3]).next;
    let old = Event::Timer {
        armed: waking.armed - 1,
        waits_for: String::new(),
    };
    for event in [
        old,
        Event::Exited {
            run: 0,
            exit: Exit::Code(1),
        },
        Event::Ready { run: 0 },
        Event::StartFailed {
            run: 9,
            failure: Failure::NotStarted("x".into()),
        },
    ] {
        let after = step(&waking, &event, at(900), &LIMITS).unwrap();
        assert_eq!(
            (after.next, after.effects),
            (waking.clone(), vec![]),
            "{event:?}"
        );
    }
}

#[test]
fn a_start_that_fails_backs_off_and_the_operator_may_try_at_once() {
    let mut machine = walk(&[(0, Event::Created)]).next;
    let mut waits = Vec::new();
    let mut now = 0;
    for run in 1..=11 {
        machine = step(&machine, &Event::Wake(Cause::Request), at(now), &LIMITS)
            .unwrap()
            .next;
        machine = step(
            &machine,
            &Event::Spawned {
                run,
                run_id: the_run(),
                answers: false,
            },
            at(now),
            &LIMITS,
        )
        .unwrap()
        .next;
        machine = step(
            &machine,
            &Event::Exited {
                run,
                exit: Exit::Code(1),
            },
            at(now),
            &LIMITS,
        )
        .unwrap()
        .next;
        assert_eq!(machine.phase(), Phase::Failed);
        let Err(Denied::Failed { retry_in, .. }) =
            step(&machine, &Event::Wake(Cause::Request), at(now), &LIMITS)
        else {
            panic!()
        };
        assert!(step(&machine, &Event::Wake(Cause::Operator), at(now), &LIMITS).is_ok());
        waits.push(retry_in.as_secs());
        now += retry_in.as_secs();
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    let reset = step(&machine, &Event::Reset, at(0), &LIMITS).unwrap().next;
    assert_eq!((reset.phase(), reset.failure()), (Phase::Asleep, None));
}

#[test]
fn one_that_hangs_at_start_is_ended_and_its_waiters_hear_at_once() {
    let waking = walk(&to_awake()[..3]).next;
    let failed = step(&waking, &timer(&waking), at(31), &LIMITS).unwrap();
    assert_eq!(
        (failed.next.phase(), failed.next.failed_run()),
        (Phase::Stopping, Some(1))
    );
    assert!(failed.effects.contains(&Effect::Terminate));
    let denied = step(&failed.next, &Event::Wake(Cause::Request), at(31), &LIMITS);
    assert!(matches!(denied, Err(Denied::Failed { .. })));
    let ended = step(
        &failed.next,
        &Event::Exited {
            run: 1,
            exit: Exit::Signal(15),
        },
        at(32),
        &LIMITS,
    )
    .unwrap();
    assert_eq!(ended.next.phase(), Phase::Failed);
    assert!(
        ended
            .next
            .failure()
            .unwrap()
            .to_string()
            .contains("an answer")
    );
}

#[test]
fn one_that_dies_is_woken_by_the_next_request_but_a_crash_loop_is_not() {
    let died = then(
        to_awake(),
        &[(
            2,
            Event::Exited {
                run: 1,
                exit: Exit::Code(3),
            },
        )],
    );
    let failed = walk(&died);
    assert_eq!(failed.next.phase(), Phase::Failed);
    assert!(failed.effects.contains(&Effect::CloseGate));
    let again = then(
        died,
        &[
            (2, Event::Wake(Cause::Request)),
            (
                2,
                Event::Spawned {
                    run: 2,
                    run_id: the_run(),
                    answers: false,
                },
            ),
            (3, Event::Ready { run: 2 }),
            (
                4,
                Event::Exited {
                    run: 2,
                    exit: Exit::Signal(11),
                },
            ),
        ],
    );
    let looping = walk(&again).next;
    assert!(step(&looping, &Event::Wake(Cause::Request), at(4), &LIMITS).is_err());
    assert!(step(&looping, &Event::Wake(Cause::Request), at(6), &LIMITS).is_ok());
}

#[test]
fn after_a_restart_of_acc_what_runs_decides() {
    let stored = |phase| Stored {
        phase,
        desired: DesiredState::Auto,
        run: 4,
        run_id: Some(the_run()),
        since: at(0),
        quiet_since: at(0),
        failures: 0,
        failure: None,
        retry_at: at(0),
    };
    for (phase, running, gone) in [
        (Phase::Asleep, Phase::Stopping, Phase::Asleep),
        (Phase::Waking, Phase::Waking, Phase::Asleep),
        (Phase::Awake, Phase::Awake, Phase::Failed),
        (Phase::Draining, Phase::Awake, Phase::Failed),
        (Phase::Stopping, Phase::Stopping, Phase::Asleep),
        (Phase::Failed, Phase::Stopping, Phase::Failed),
    ] {
        let machine = Machine::restore(stored(phase));
        assert_eq!(
            step(&machine, &Event::Found(Some(the_run())), at(9), &LIMITS)
                .unwrap()
                .next
                .phase(),
            running,
            "{phase:?}"
        );
        assert_eq!(
            step(&machine, &Event::Found(None), at(9), &LIMITS)
                .unwrap()
                .next
                .phase(),
            gone,
            "{phase:?}"
        );
    }
}

#[test]
fn one_that_cannot_be_reached_is_stopped_for_that_reason_and_no_other() {
    let why = "another program listens there".to_owned();
    let displaced = Event::Displaced {
        run: 1,
        why: why.clone(),
    };
    let exited = Event::Exited {
        run: 1,
        exit: Exit::Code(0),
    };
    let mut served = Served::new(walk(&to_awake()).next);
    assert!(served.requests.admit());
    let (_, stopping) = served.step(&displaced, at(5)).unwrap();
    assert_eq!(stopping.next.phase(), Phase::Stopping);
    let desired = [
        Effect::Persist,
        Effect::CloseGate,
        Effect::Record(Note::Displaced(why)),
        Effect::EndStreams,
        Effect::Terminate,
    ];
    assert_eq!(stopping.effects[..5], desired);
    let end = step(&stopping.next, &exited, at(6), &LIMITS).unwrap();
    assert_eq!(
        end.effects,
        [
            Effect::Persist,
            Effect::Record(Note::Slept(Drain::Displaced))
        ]
    );
    // A request that arrives meanwhile waits for the next run.
    let asked = step(&stopping.next, &Event::Wake(Cause::Request), at(6), &LIMITS).unwrap();
    assert_eq!(
        step(&asked.next, &exited, at(7), &LIMITS)
            .unwrap()
            .next
            .phase(),
        Phase::Waking
    );
    // Of another run, or one that is being stopped anyway, it is no news.
    let next_run = Event::Displaced {
        run: 2,
        why: String::new(),
    };
    for (events, event) in [
        (to_awake(), next_run),
        (
            then(to_awake(), &[(5, Event::Sleep { now: true })]),
            displaced,
        ),
    ] {
        let before = walk(&events).next;
        assert_eq!(step(&before, &event, at(6), &LIMITS).unwrap().next, before);
    }
    let slept = walk(&then(
        to_awake(),
        &[(5, Event::Sleep { now: true }), (6, exited)],
    ));
    assert!(
        slept
            .effects
            .contains(&Effect::Record(Note::Slept(Drain::Operator)))
    );
}
