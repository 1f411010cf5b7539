//! Puts the instance to sleep over and over while it is used; the next request wakes it.
//!
//! Most stops are by the operator, and drain; every fifth is an idle stop, at the moment when the
//! clients come back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::context::{Order, ProveContext};
use super::operator::{Operator, find};
use super::rng::Rng;
use super::target::ProofTarget;
use crate::config::Config;
use crate::domain::lifecycle::Phase;
use crate::host::clock::monotonic_ns;
use crate::service::outcome::{MonitorAction, Outcome};
use crate::service::request::Request;

/// Every how many stops one is an idle stop.
const IDLE_EVERY: u32 = 5;
/// An idle stop is tried only if acc allows it this soon after a wake.
const IDLE_WITHIN: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(2);
/// Failed verbs that are reported individually.
const REPORTED_MAX: usize = 20;

/// The result of the cycles.
#[derive(Debug, Default)]
pub(super) struct Slept {
    pub(super) cycles: u32,
    pub(super) idle_stops: u32,
    pub(super) verbs_failed: Vec<String>,
}

/// The loop.
pub(super) struct Cycles<'a> {
    pub(super) config: &'a Config,
    pub(super) operator: &'a dyn Operator,
    pub(super) context: &'a ProveContext,
    pub(super) target: &'a ProofTarget,
    pub(super) order: &'a watch::Sender<Order>,
    pub(super) rng: Rng,
    /// Number of cycles; `None`: until the time is over.
    pub(super) most: Option<u32>,
    /// Longest time.
    pub(super) time: Option<Duration>,
}

impl Cycles<'_> {
    /// Runs all cycles. `slept` is updated continuously, so that it is valid when this is dropped.
    pub(super) async fn run(mut self, slept: &mut Slept) {
        let began = monotonic_ns();
        let over =
            |time: Duration| Duration::from_nanos(monotonic_ns().saturating_sub(began)) >= time;
        let mut n = 0;
        while self.most.is_none_or(|most| slept.cycles < most) && !self.time.is_some_and(over) {
            if !self.until_used().await {
                note(
                    slept,
                    "no request was answered for a long time; the proof was stopped".to_owned(),
                );
                return;
            }
            n += 1;
            let pause = self.rng.below(30);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let idle =
                n % IDLE_EVERY == 0 && self.idle_is_possible() && self.idle_stop(slept).await;
            if idle || self.stop(slept).await {
                slept.cycles += 1;
                slept.idle_stops += u32::from(idle);
                self.context
                    .meter
                    .cycles
                    .store(u64::from(slept.cycles), Ordering::Relaxed);
            }
        }
    }

    /// Waits until as many requests were answered as there are clients: then the instance is awake
    /// and in use.
    async fn until_used(&self) -> bool {
        let meter = &self.context.meter;
        let enough = meter.right.load(Ordering::Relaxed) + 8;
        let patience = (self.context.limit + self.config.stop.drain + self.config.stop.timeout) * 2;
        let used = async {
            while meter.right.load(Ordering::Relaxed) < enough {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(patience, used).await.is_ok()
    }

    async fn stop(&self, slept: &mut Slept) -> bool {
        match self
            .operator
            .ask(Request::Stop {
                instance: self.target.name.as_str().into(),
                now: false,
            })
            .await
        {
            Ok(Outcome::Instance { already, .. }) => !already,
            Ok(other) => {
                note(slept, format!("stop: {other:?}"));
                false
            }
            Err(e) => {
                note(slept, format!("stop: {e}"));
                false
            }
        }
    }

    fn idle_is_possible(&self) -> bool {
        self.config.idle.min_awake <= IDLE_WITHIN && self.target.idle <= IDLE_WITHIN
    }

    /// Lets clients rest until the instance is idle, starts a monitor run, and lets them come back
    /// during it.
    async fn idle_stop(&mut self, slept: &mut Slept) -> bool {
        self.order.send_replace(Order::Rest);
        while self.context.meter.busy.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(POLL).await;
        }
        let rest = self.target.idle.max(self.config.idle.min_awake) + Duration::from_millis(20);
        tokio::time::sleep(rest).await;
        let already = self.is_asleep().await;
        // Mostly while acc checks and closes the gate, and now and then later: a check of many TCP
        // connections takes a while.
        let moment =
            Duration::from_micros(self.rng.below(20_000) * if self.rng.one_in(3) { 10 } else { 1 });
        let come_back = async {
            tokio::time::sleep(moment).await;
            self.order.send_replace(Order::Go);
        };
        let (pass, ()) = tokio::join!(
            self.operator.ask(Request::Monitor {
                dry_run: false,
                thorough: false
            }),
            come_back
        );
        match pass {
            Ok(Outcome::Monitor(pass)) => {
                already
                    || pass
                        .lines
                        .iter()
                        .any(|l| l.instance == self.target.name && l.action == MonitorAction::Sleep)
            }
            Ok(_) => already,
            Err(e) => {
                note(slept, format!("monitor: {e}"));
                already
            }
        }
    }

    async fn is_asleep(&self) -> bool {
        let view = find(self.operator, &self.target.name).await;
        view.is_ok_and(|view| view.phase == Phase::Asleep)
    }
}

fn note(slept: &mut Slept, what: String) {
    if slept.verbs_failed.len() < REPORTED_MAX {
        slept.verbs_failed.push(what);
    }
}
