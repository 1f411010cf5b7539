//! One client: asks without a pause, in all the ways the application can be asked, and notes how each request ended.
//!
//! As any careful client it sends a safe request again when it got no answer: once when its connection had carried requests
//! before and was closed, and when a crash has cut its connection. A connection is cut by a crash when the killed process held
//! it, and in the middle of an answer also when what the answer came from was killed. Nothing else is ever sent twice. It judges
//! nothing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::chaos::Strike;
use super::dice::Dice;
use super::plan::{self, Plan};
use super::shot::{End, Id, Kind, Line, Shot};
use super::wire::{Broken, Talk, Wire};
use crate::host::clock::monotonic_ns;

/// Pause before connecting again where nobody listened.
const CONNECT_AGAIN: Duration = Duration::from_millis(10);
/// Pause of a client whose request failed: what is broken is not made better by a storm.
const AFTER_FAULT: Duration = Duration::from_millis(20);

/// Most times that one request is sent.
const TRIES: u8 = 10;

/// What clients are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Ask.
    Go,
    /// Finish what is under way, and wait.
    Rest,
    /// Finish what is under way, and end.
    End,
}

/// Counts that are shown while it runs.
#[derive(Debug, Default)]
pub struct Meter {
    /// Requests that have ended.
    pub sent: AtomicU64,
    /// Answered as expected.
    pub right: AtomicU64,
    /// Not so; what that means is judged at the end.
    pub not_right: AtomicU64,
    /// Times it was put to sleep.
    pub cycles: AtomicU64,
    /// Requests under way.
    pub(super) busy: AtomicU64,
}

/// What all clients share.
pub(super) struct Field {
    /// The edge.
    pub(super) to: SocketAddr,
    /// The instance's host, with port.
    pub(super) host: String,
    /// The instance's name, which the demo application shows.
    pub(super) name: String,
    /// It is the demo application: answers can be checked.
    pub(super) demo: bool,
    /// Longest wait for an answer.
    pub(super) limit: Duration,
    /// Tag of the ids of this run.
    pub(super) tag: String,
    /// Things are being killed.
    pub(super) chaos: bool,
    /// What was killed so far.
    pub(super) strikes: Mutex<Vec<Strike>>,
    /// For the display.
    pub(super) meter: Arc<Meter>,
}

impl Field {
    /// Was there such a crash?
    fn struck(&self, like: impl Fn(&Strike) -> bool) -> bool {
        self.strikes.lock().unwrap_or_else(PoisonError::into_inner).iter().any(like)
    }

    /// Was something killed that held this connection, or that was behind it since this time?
    pub(super) fn met_a_kill(&self, line: Option<Line>, since: u64) -> bool {
        let now = monotonic_ns();
        self.struck(|s| line.is_some_and(|line| s.cut(&line)) || (s.is_behind() && s.met(since, now)))
    }
}

/// One client.
pub(super) struct Client {
    field: Arc<Field>,
    number: u16,
    dice: Dice,
    wire: Option<Wire>,
    shots: Vec<Shot>,
}

/// A try that has ended.
struct Try {
    line: Option<Line>,
    begun: u64,
    head: Option<u64>,
    messages: u8,
    reused: bool,
    end: End,
}

impl Client {
    pub(super) fn new(field: Arc<Field>, number: u16, seed: u64) -> Self {
        Self { dice: Dice::new(seed, u64::from(number) + 1), field, number, wire: None, shots: Vec::new() }
    }

    /// Asks until it is told to end; everything it asked.
    pub(super) async fn run(mut self, mut order: watch::Receiver<Order>) -> Vec<Shot> {
        loop {
            let now = *order.borrow_and_update();
            match now {
                Order::Go => self.one().await,
                Order::Rest => {
                    // An idle instance has no connections either.
                    self.wire = None;
                    if order.changed().await.is_err() {
                        return self.shots;
                    }
                }
                Order::End => return self.shots,
            }
        }
    }

    /// One request, sent as often as it may be.
    async fn one(&mut self) {
        let n = u32::try_from(self.shots.len()).unwrap_or(u32::MAX);
        let id = Id { client: self.number, n };
        let plan = Plan::draw(&mut self.dice, self.field.demo);
        self.field.meter.busy.fetch_add(1, Ordering::Relaxed);
        let mut sent = 0;
        let mut tries = 0;
        let last = loop {
            tries += 1;
            let this = self.attempt(&plan, id, tries, &mut sent).await;
            if !self.may_repeat(&plan, &this, tries) {
                break this;
            }
        };
        let ended = monotonic_ns();
        let right = last.end == End::Right;
        let meter = &self.field.meter;
        meter.busy.fetch_sub(1, Ordering::Relaxed);
        meter.sent.fetch_add(1, Ordering::Relaxed);
        if right { &meter.right } else { &meter.not_right }.fetch_add(1, Ordering::Relaxed);
        let head = last.head.unwrap_or(ended);
        let (own_ms, messages) = (plan.own_ms(), last.messages);
        self.shots.push(Shot { id, kind: plan.kind, tries, line: last.line, sent, head, ended, own_ms, messages, end: last.end });
        if !right {
            self.wire = None;
            tokio::time::sleep(AFTER_FAULT).await;
        }
    }

    fn may_repeat(&self, plan: &Plan, this: &Try, tries: u8) -> bool {
        if !plan.kind.safe() || tries >= TRIES {
            return false;
        }
        let cut = |s: &Strike| this.line.is_some_and(|line| s.cut(&line));
        let now = monotonic_ns();
        match this.end {
            End::Cut(_) => (this.reused && tries == 1) || self.field.struck(cut),
            End::Torn(_) => self.field.struck(|s| cut(s) || (s.is_behind() && s.met(this.begun, now))),
            _ => false,
        }
    }

    /// Sends it once. `sent` is set at the first time.
    async fn attempt(&mut self, plan: &Plan, id: Id, number: u8, sent: &mut u64) -> Try {
        let begin = monotonic_ns();
        if *sent == 0 {
            *sent = begin;
        }
        let fresh = number > 1 || plan.fresh;
        let mut wire = match self.connection(fresh).await {
            Ok(wire) => wire,
            Err(why) => return Try { line: None, begun: begin, head: None, messages: 0, reused: false, end: End::NotConnected(why) },
        };
        let (line, reused) = (Some(wire.line), wire.used);
        let text = id.text(&self.field.tag, number);
        let limit = self.field.limit + Duration::from_millis(u64::from(plan.takes_ms()));
        let mut this = Try { line, begun: begin, head: None, messages: 0, reused, end: End::Late };
        let work = async {
            if plan.kind == Kind::Socket {
                return converse(&self.field, &mut wire, plan, &text, &mut this).await;
            }
            match wire.ask(plan.request(&self.field, &text)).await {
                Ok(answer) => {
                    this.head = Some(answer.head);
                    plan::check(plan, &self.field, &text, &answer)
                }
                Err(broken) => cut(broken, &mut this),
            }
        };
        // A request that is late is not waited for: its connection goes with it.
        if let Ok(end) = tokio::time::timeout(limit, work).await {
            let keep = end == End::Right && plan.kind != Kind::Socket && !plan.close;
            this.end = end;
            if keep {
                self.wire = Some(wire);
            }
        }
        this
    }

    /// The connection of the request before, or a new one. While things are being killed nobody may listen for a while:
    /// nothing has been sent then, so any client can wait and connect again.
    async fn connection(&mut self, fresh: bool) -> Result<Wire, Box<str>> {
        if let Some(mut wire) = self.wire.take().filter(|_| !fresh)
            && wire.is_ready().await
        {
            return Ok(wire);
        }
        let began = monotonic_ns();
        loop {
            let failed = match tokio::time::timeout(self.field.limit, Wire::open(self.field.to)).await {
                Ok(Ok(wire)) => return Ok(wire),
                Ok(Err(why)) => why,
                Err(_) => "no connection in time".into(),
            };
            let waited = Duration::from_nanos(monotonic_ns().saturating_sub(began));
            if !self.field.chaos || waited >= self.field.limit {
                return Err(failed);
            }
            tokio::time::sleep(CONNECT_AGAIN).await;
        }
    }
}

fn cut(broken: Broken, this: &mut Try) -> End {
    if broken.before_head {
        return End::Cut(broken.why);
    }
    this.head = Some(monotonic_ns());
    End::Torn(broken.why)
}

/// A WebSocket: a few messages, each of which must come back before the next is sent.
async fn converse(field: &Field, wire: &mut Wire, plan: &Plan, text: &str, this: &mut Try) -> End {
    let (response, head) = match wire.send(plan.request(field, text)).await {
        Ok(answered) => answered,
        Err(broken) => return cut(broken, this),
    };
    this.head = Some(head);
    if response.status().as_u16() != 101 {
        return match super::wire::whole(response, head).await {
            Ok(answer) => plan::refused(&answer),
            Err(broken) => cut(broken, this),
        };
    }
    let mut talk = match Talk::begin(response).await {
        Ok(talk) => talk,
        Err(why) => return End::HungUp(why),
    };
    for n in 0..plan.messages {
        this.messages = n + 1;
        let message = format!("{text}#{n}");
        match talk.echo(&message).await {
            Ok(back) if back == message => {}
            Ok(back) => return End::Wrong(format!("sent `{message}`, got `{back:.100}` back").into()),
            Err(why) => return End::HungUp(why),
        }
    }
    talk.end().await;
    End::Right
}
