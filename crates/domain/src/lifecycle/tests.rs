//! Tests of the table: single cells, the printed table, and long random walks that hold the
//! promises.

mod model;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::instance::{DesiredState, Exit, Process};

const LIMITS: Limits = Limits {
    idle: Duration::from_secs(60),
    min_awake: Duration::from_secs(5),
    start: Duration::from_secs(30),
    drain: Duration::from_secs(20),
    drain_streams: Duration::from_secs(2),
    stop: Duration::from_secs(10),
};
const PROCESS: Process = Process {
    pid: 7,
    start_time: 1,
};

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
                process: PROCESS,
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
        &Event::Found(Some(PROCESS)),
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
                process: PROCESS,
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
                    process: PROCESS,
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
            process: PROCESS,
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
fn after_a_restart_of_acc_what_runs_decides() {
    let stored = |phase| Stored {
        phase,
        desired: DesiredState::Auto,
        run: 4,
        process: Some(PROCESS),
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
            step(&machine, &Event::Found(Some(PROCESS)), at(9), &LIMITS)
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

fn sample_events() -> Vec<(&'static str, Event)> {
    let failure = Failure::NotStarted("x".into());
    vec![
        ("created", Event::Created),
        ("wake: request", Event::Wake(Cause::Request)),
        ("wake: operator", Event::Wake(Cause::Operator)),
        ("sleep", Event::Sleep { now: false }),
        ("sleep now", Event::Sleep { now: true }),
        ("retire", Event::Retire(true)),
        ("destroy", Event::Destroy),
        ("reset", Event::Reset),
        (
            "spawned",
            Event::Spawned {
                run: 1,
                process: PROCESS,
                answers: false,
            },
        ),
        (
            "spawned, answers",
            Event::Spawned {
                run: 1,
                process: PROCESS,
                answers: true,
            },
        ),
        ("ready", Event::Ready { run: 1 }),
        ("start failed", Event::StartFailed { run: 1, failure }),
        (
            "exited",
            Event::Exited {
                run: 1,
                exit: Exit::Code(1),
            },
        ),
        (
            "checked: idle",
            Event::Checked {
                run: 1,
                in_flight: 0,
                used: None,
            },
        ),
        (
            "checked: in use",
            Event::Checked {
                run: 1,
                in_flight: 1,
                used: None,
            },
        ),
        ("in flight: 0", Event::InFlight { run: 1, count: 0 }),
        ("in flight: 1", Event::InFlight { run: 1, count: 1 }),
        ("drain failed", Event::DrainFailed { run: 1 }),
        (
            "displaced",
            Event::Displaced {
                run: 1,
                why: "x".into(),
            },
        ),
        ("found a process", Event::Found(Some(PROCESS))),
        ("found none", Event::Found(None)),
    ]
}

/// A machine of every phase, as an operator's verbs lead to it.
fn sample(phase: Phase) -> Machine {
    let exited = Event::Exited {
        run: 1,
        exit: Exit::Code(1),
    };
    match phase {
        Phase::Creating => Machine::creating(DesiredState::Auto, at(0)),
        Phase::Asleep => walk(&to_awake()[..1]).next,
        Phase::Waking => walk(&to_awake()[..3]).next,
        Phase::Awake => walk(&to_awake()).next,
        Phase::Draining => walk(&then(to_awake(), &[(2, Event::Sleep { now: false })])).next,
        Phase::Stopping => walk(&then(to_awake(), &[(2, Event::Sleep { now: true })])).next,
        Phase::Failed => walk(&then(to_awake()[..3].to_vec(), &[(3, exited)])).next,
        Phase::Destroyed => walk(&[(0, Event::Created), (0, Event::Destroy)]).next,
    }
}

fn cell(phase: Phase, event: &Event) -> String {
    let now = if matches!(phase, Phase::Failed) {
        at(3)
    } else {
        at(100)
    };
    match step(&sample(phase), event, now, &LIMITS) {
        Err(denied) => format!("no: {denied}"),
        Ok(Step { next, .. }) if next.phase() != phase => format!("**{}**", next.phase().as_str()),
        Ok(Step { effects, .. }) if !effects.is_empty() => "acts".to_owned(),
        Ok(_) => "-".to_owned(),
    }
}

#[test]
fn the_printed_table_is_true() {
    let mut text = String::from(
        "# The lifecycle of an instance\n\nGenerated from the code by a test (`ACC_UPDATE=1 cargo test printed_table`), so it is always current.\n\
         Bold is the next phase, `acts` means effects without a change of phase, `-` nothing; `no` is a refusal.\n\
         Facts belong to the current run; a drain was requested by the operator; a failure has just happened.\n\n| |",
    );
    for phase in Phase::ALL {
        text.push_str(&format!(" {} |", phase.as_str()));
    }
    text.push_str(&format!("\n|---|{}\n", "---|".repeat(Phase::ALL.len())));
    for (name, event) in sample_events() {
        let cells: Vec<String> = Phase::ALL.iter().map(|p| cell(*p, &event)).collect();
        text.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/lifecycle.md");
    if std::env::vars().any(|(k, _)| k == "ACC_UPDATE") {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap_or_default(),
        text,
        "run with ACC_UPDATE=1"
    );
}

fn any_event() -> impl Strategy<Value = (usize, u64, u64)> {
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
                Some(Event::Spawned { .. }) if served.machine.process().is_some() => continue,
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

fn of_run(event: Event, run: u64) -> Event {
    match event {
        Event::Spawned {
            process, answers, ..
        } => Event::Spawned {
            run,
            process,
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
    if before.process().is_some() && next.process().is_none() {
        let ended = matches!(event, Event::Exited { run, .. } if *run == before.run())
            || matches!(event, Event::Found(None));
        prop_assert!(ended, "{:?}", event);
    }
    if next.run() > before.run() {
        prop_assert!(next.phase() == Phase::Waking && effects.contains(&Effect::Spawn));
    }
    Ok(())
}
