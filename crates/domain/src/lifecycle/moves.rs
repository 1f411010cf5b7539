//! Transitions that several rows of the table share: go, start, drain, stop, fail.

use std::time::Duration;

use super::effect::{Effect, Note};
use super::limits::Limits;
use super::machine::{Answer, BACK_OFF, Machine, STABLE, Step};
use super::phase::{Cause, Denied, Drain, Failure, Phase};
use crate::instance::{DesiredState, Exit, RunId};
use crate::time::Timestamp;

impl Machine {
    pub(super) fn stay(&self) -> Result<Step, Denied> {
        Ok(Step {
            next: self.clone(),
            effects: Vec::new(),
            answer: Answer::Already,
        })
    }

    pub(super) fn with<const N: usize>(self, effects: [Effect; N]) -> Result<Step, Denied> {
        Ok(Step {
            next: self,
            effects: effects.into(),
            answer: Answer::Done,
        })
    }

    pub(super) fn go(&self, phase: Phase, now: Timestamp) -> Self {
        Self {
            phase,
            since: now,
            armed: self.armed + 1,
            ..self.clone()
        }
    }

    pub(super) fn arm(&mut self, at: Timestamp) -> Effect {
        self.armed += 1;
        Effect::Arm {
            at,
            armed: self.armed,
        }
    }

    pub(super) fn may_wake(&self) -> Result<(), Denied> {
        match self.desired {
            _ if self.retiring => Err(Denied::Destroyed),
            DesiredState::Down => Err(Denied::Disabled),
            DesiredState::Auto | DesiredState::Up => Ok(()),
        }
    }

    pub(super) fn set_desired(&self, desired: DesiredState) -> Result<Step, Denied> {
        if self.phase == Phase::Destroyed {
            return Err(Denied::Destroyed);
        }
        if self.desired == desired {
            return self.stay();
        }
        let mut next = self.clone();
        next.desired = desired;
        if desired == DesiredState::Down {
            next.demand = None;
        }
        next.with([
            Effect::Persist,
            Effect::Record(Note::DesiredChanged(desired)),
        ])
    }

    /// It is about to be destroyed: waiting requests get an error, and no request wakes it. This is
    /// only in memory: if acc dies before the end, nothing has changed.
    pub(super) fn retire(&self, retiring: bool) -> Result<Step, Denied> {
        let mut next = self.clone();
        next.retiring = retiring;
        if retiring {
            next.demand = None;
        }
        next.with([])
    }

    pub(super) fn start(&self, cause: Cause, now: Timestamp, l: &Limits) -> Result<Step, Denied> {
        self.may_wake()?;
        let mut next = self.go(Phase::Waking, now);
        next.run += 1;
        next.run_id = None;
        next.demand = None;
        next.cause = cause;
        next.failed_run = None;
        // Starts are queued, so the time of this run is only bounded loosely until it is spawned.
        let arm = next.arm(now.after(l.start * 4));
        next.with([Effect::Persist, arm, Effect::Spawn])
    }

    /// The supervisor has started the process, which may answer already.
    pub(super) fn spawned(
        &self,
        run_id: RunId,
        answers: bool,
        now: Timestamp,
        l: &Limits,
    ) -> Result<Step, Denied> {
        let mut next = self.clone();
        next.run_id = Some(run_id);
        if answers {
            next.answered(now, [Effect::Watch])
        } else {
            next.since_spawn(now, l)
        }
    }

    /// The process exists: from now on the start timeout applies.
    pub(super) fn since_spawn(mut self, now: Timestamp, l: &Limits) -> Result<Step, Denied> {
        let arm = self.arm(now.after(l.start));
        self.with([Effect::Persist, arm, Effect::Watch, Effect::Probe])
    }

    /// It answers: it is awake.
    pub(super) fn answered<const N: usize>(
        &self,
        now: Timestamp,
        more: [Effect; N],
    ) -> Result<Step, Denied> {
        let mut next = self.go(Phase::Awake, now);
        next.quiet_since = now;
        next.failure = None;
        let mut effects = vec![Effect::Persist];
        effects.extend(more);
        effects.extend([
            Effect::OpenGate,
            Effect::Record(Note::Woke(self.cause, now.since(self.since))),
        ]);
        Ok(Step {
            next,
            effects,
            answer: Answer::Done,
        })
    }

    pub(super) fn drain(&self, drain: Drain, now: Timestamp, l: &Limits) -> Result<Step, Denied> {
        let mut next = self.go(Phase::Draining, self.since);
        next.checks = 0;
        next.drains_for(drain, now);
        let arm = next.arm(now.after(l.drain));
        next.with([Effect::Persist, Effect::CloseGate, arm, Effect::Count(0)])
    }

    /// It drains for this reason from now on.
    pub(super) fn drains_for(&mut self, drain: Drain, now: Timestamp) {
        (self.drain, self.drained_since, self.streams_ended) = (drain, now, false);
    }

    /// It is stopped without a drain.
    pub(super) fn stopping_for(&self, why: Drain, now: Timestamp) -> Self {
        Self {
            drain: why,
            ..self.go(Phase::Stopping, now)
        }
    }

    pub(super) fn back_to_awake<const N: usize>(&self, more: [Effect; N]) -> Result<Step, Denied> {
        // `since` was kept while draining: it still counts from the wake.
        let mut next = self.go(Phase::Awake, self.since);
        next.demand = None;
        let mut effects = vec![Effect::Persist];
        effects.extend(more);
        effects.push(Effect::OpenGate);
        Ok(Step {
            next,
            effects,
            answer: Answer::Done,
        })
    }

    /// The machine is in `Stopping`: saves it and asks the process to end.
    pub(super) fn stop_now<const N: usize>(
        mut self,
        now: Timestamp,
        l: &Limits,
        first: [Effect; N],
    ) -> Result<Step, Denied> {
        let arm = self.arm(now.after(l.stop));
        let mut effects = vec![Effect::Persist];
        effects.extend(first);
        effects.extend([Effect::EndStreams, Effect::Terminate, arm]);
        Ok(Step {
            next: self,
            effects,
            answer: Answer::Done,
        })
    }

    /// A start failed while something may run: ends it, and reports the failure to waiting requests
    /// at once.
    pub(super) fn fail(
        &self,
        failure: &Failure,
        now: Timestamp,
        l: &Limits,
    ) -> Result<Step, Denied> {
        let mut next = self.failing(failure.clone(), now, self.failures + 1);
        next.phase = Phase::Stopping;
        next.stop_now(
            now,
            l,
            [
                Effect::CloseGate,
                Effect::Record(Note::Failed(failure.clone())),
            ],
        )
    }

    /// The process has ended although it should run.
    pub(super) fn ended(&self, failure: Failure, now: Timestamp) -> Result<Step, Denied> {
        let served = matches!(self.phase, Phase::Awake | Phase::Draining);
        if served && failure == Failure::Died(Exit::Code(0)) {
            let mut next = self.go(Phase::Asleep, now);
            next.run_id = None;
            next.failures = 0;
            return next.with([
                Effect::Persist,
                Effect::CloseGate,
                Effect::Record(Note::EndedItself),
            ]);
        }
        let failures = if served && now.since(self.since) >= STABLE {
            1
        } else {
            self.failures + 1
        };
        let mut next = self.failing(failure.clone(), now, failures);
        if served && failures == 1 {
            // The first death of a served instance: the next request may start it at once.
            next.retry_at = now;
        }
        next.phase = Phase::Failed;
        next.run_id = None;
        next.with([
            Effect::Persist,
            Effect::CloseGate,
            Effect::Record(Note::Failed(failure)),
        ])
    }

    pub(super) fn failing(&self, failure: Failure, now: Timestamp, failures: u32) -> Self {
        let mut next = self.go(self.phase, now);
        next.failures = failures;
        next.failure = Some(failure);
        next.failed_run = Some(self.run);
        next.retry_at = now.after(back_off(failures));
        next.demand = None;
        next
    }

    pub(super) fn failed_denial(&self, now: Timestamp) -> Denied {
        Denied::Failed {
            name: self.failure.as_ref().map_or("failed", Failure::name),
            retry_in: self.retry_at.since(now),
        }
    }

    /// The process of a stop has ended.
    pub(super) fn stopped(&self, now: Timestamp, l: &Limits) -> Result<Step, Denied> {
        let mut next = self.go(Phase::Asleep, now);
        next.run_id = None;
        if self.failed_run == Some(self.run) {
            if self.demand == Some(Cause::Operator) && self.may_wake().is_ok() {
                return next.start(Cause::Operator, now, l);
            }
            next.phase = Phase::Failed;
            next.demand = None;
            return next.with([Effect::Persist]);
        }
        next.failures = 0;
        let slept = Effect::Record(Note::Slept(self.drain));
        // An end is a fact and is never refused, whatever was requested meanwhile.
        if let Some(cause) = self.demand.filter(|_| self.may_wake().is_ok()) {
            let mut step = next.start(cause, now, l)?;
            step.effects.push(slept);
            return Ok(step);
        }
        next.with([Effect::Persist, slept])
    }

    pub(super) fn destroy(&self, now: Timestamp) -> Result<Step, Denied> {
        self.go(Phase::Destroyed, now).with([
            Effect::Persist,
            Effect::CloseGate,
            Effect::Record(Note::Destroyed),
        ])
    }
}

/// The pause after the `failures`-th failure in a row.
fn back_off(failures: u32) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1).min(16));
    BACK_OFF.0.saturating_mul(doubled).min(BACK_OFF.1)
}
