//! A second, much smaller model of an instance, written from the promises and not from the table:
//! what runs, how much is in flight, since when it is quiet. Random events go to both, and the two
//! are compared after each.

use super::*;

/// All that the promises speak of.
#[derive(Debug)]
struct Model {
    /// Something may run: from the order to start until the end was heard of.
    runs: bool,
    /// It answered, and was not asked to stop since: it may be served.
    serves: bool,
    /// Requests through acc.
    in_flight: u32,
    /// Nothing was used since.
    quiet: Timestamp,
    /// It is out of service.
    gone: bool,
}

impl Model {
    fn admitted(&mut self) {
        self.in_flight += 1;
    }

    fn released(&mut self, counts: bool, now: Timestamp) {
        self.in_flight -= 1;
        if counts || !self.serves {
            self.quiet = now;
        }
    }

    /// What must have become true by this step, judged by the event and by what is to be done,
    /// never by the phase.
    fn follow(&mut self, before: &Machine, event: &Event, step: &Step, now: Timestamp) {
        if step.effects.contains(&Effect::Spawn) {
            (self.runs, self.serves) = (true, false);
        }
        if step.effects.contains(&Effect::Terminate) {
            self.runs = true;
        }
        for effect in &step.effects {
            match effect {
                Effect::OpenGate => self.serves = true,
                Effect::CloseGate | Effect::Terminate => self.serves = false,
                Effect::Record(Note::Destroyed) => self.gone = true,
                _ => {}
            }
        }
        match event {
            Event::Checked { run, in_flight, .. }
                if *run == before.run() && *in_flight > 0 && self.serves =>
            {
                self.quiet = now
            }
            _ => {}
        }
        if step
            .effects
            .iter()
            .any(|e| matches!(e, Effect::Record(Note::Woke(..))))
        {
            self.quiet = now;
        }
    }
}

/// Whether the event is a fact. Facts are processed or ignored, but never refused: the sender
/// cannot change them.
fn is_fact(event: &Event) -> bool {
    matches!(
        event,
        Event::Spawned { .. }
            | Event::Ready { .. }
            | Event::StartFailed { .. }
            | Event::Exited { .. }
            | Event::Checked { .. }
            | Event::InFlight { .. }
            | Event::DrainFailed { .. }
            | Event::Displaced { .. }
            | Event::Timer { .. }
            | Event::Found(_)
            | Event::Created
    )
}

/// Events in the order of a possible world: what was not spawned neither answers nor ends.
fn possible(model: &Model, machine: &Machine, event: &Event) -> bool {
    match event {
        Event::Spawned { run, .. } => {
            *run == machine.run() && machine.run_id().is_none() && model.runs
        }
        Event::Ready { .. } | Event::Exited { .. } => machine.run_id().is_some(),
        Event::StartFailed { run, .. } => {
            *run == machine.run() && model.runs && machine.run_id().is_none()
        }
        // Only the first event of a new acc; random walks belong to one.
        Event::Found(_) => false,
        _ => true,
    }
}

fn compare(
    model: &Model,
    machine: &Machine,
    event: &Event,
    step: &Step,
    now: Timestamp,
) -> Result<(), TestCaseError> {
    let phase = machine.phase();
    prop_assert_eq!(machine.tickets(), model.in_flight, "{:?}", event);
    prop_assert_eq!(
        phase == Phase::Awake,
        model.serves,
        "{:?} {:?} {:?}",
        event,
        phase,
        step.effects
    );
    prop_assert_eq!(phase == Phase::Destroyed, model.gone);
    if matches!(
        phase,
        Phase::Waking | Phase::Awake | Phase::Draining | Phase::Stopping
    ) {
        prop_assert!(model.runs, "{:?} {:?}", event, phase);
    }
    if matches!(
        phase,
        Phase::Creating | Phase::Asleep | Phase::Failed | Phase::Destroyed
    ) {
        prop_assert!(!model.runs, "{:?} {:?}", event, phase);
    }
    if phase == Phase::Awake {
        prop_assert_eq!(machine.quiet_since(), model.quiet, "{:?}", event);
    }
    // An idle stop: nothing in flight, and quiet for the whole timeout.
    if matches!(event, Event::Checked { .. }) && step.effects.contains(&Effect::CloseGate) {
        prop_assert!(
            model.in_flight == 0 && now.since(model.quiet) >= LIMITS.idle,
            "{:?}",
            model
        );
    }
    Ok(())
}

fn event(pick: usize, more: u64, machine: &Machine) -> Event {
    let run = machine.run().saturating_sub(u64::from(more == 0));
    match sample_events().get(pick).map(|(_, e)| e.clone()) {
        Some(event) => of_run(event, run),
        None if pick == sample_events().len() => timer(machine),
        None => Event::SetDesired(
            [DesiredState::Auto, DesiredState::Up, DesiredState::Down]
                [usize::try_from(more).unwrap_or(0)],
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn the_small_account_agrees(events in proptest::collection::vec(any_event(), 1..150)) {
        let mut served = Served::new(Machine::creating(DesiredState::Auto, at(0)));
        let mut model = Model { runs: false, serves: false, in_flight: 0, quiet: at(0), gone: false };
        let mut now = at(0);
        for (pick, more, ms) in events {
            now = now.after(Duration::from_millis(ms));
            if pick == sample_events().len() + 1 {
                let admitted = served.requests.admit();
                prop_assert_eq!(admitted, model.serves);
                if admitted {
                    model.admitted();
                }
                continue;
            }
            if pick == sample_events().len() + 2 {
                if model.in_flight > 0 {
                    served.requests.release(more != 0, now);
                    model.released(more != 0, now);
                }
                continue;
            }
            let event = event(pick, more, &served.machine);
            if !possible(&model, &served.machine, &event) {
                continue;
            }
            let taken = served.step(&event, now);
            prop_assert!(taken.is_ok() || !is_fact(&event), "{:?} was refused: {:?}", event, taken);
            let Ok((before, taken)) = taken else { continue };
            let ended = matches!(&event, Event::Exited { run, .. } | Event::StartFailed { run, .. } if *run == before.run());
            if ended {
                (model.runs, model.serves) = (false, false);
            }
            model.follow(&before, &event, &taken, now);
            compare(&model, &taken.next, &event, &taken, now)?;
        }
    }
}
