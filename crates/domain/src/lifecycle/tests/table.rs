//! The table of all phases and events, as `docs/lifecycle.md` prints it.

use super::*;

pub(super) fn sample_events() -> Vec<(&'static str, Event)> {
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
                run_id: the_run(),
                answers: false,
            },
        ),
        (
            "spawned, answers",
            Event::Spawned {
                run: 1,
                run_id: the_run(),
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
        ("found a process", Event::Found(Some(the_run()))),
        ("found none", Event::Found(None)),
    ]
}

/// A machine of every phase, as an operator's verbs lead to it.
pub(super) fn sample(phase: Phase) -> Machine {
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
