//! One client: sends requests without a pause, in all the ways that the application supports, and
//! records how each request ended.
//!
//! Like any careful client it repeats a safe request that got no response: once if its connection
//! had carried requests before and was closed, and if a crash has cut its connection. A crash cuts
//! a connection if the killed process held it; in the middle of a response also if the process that
//! produced the response was killed. Nothing else is ever sent twice. It judges nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::context::{Order, ProveContext};
use super::plan::{self, RequestPlan};
use super::rng::Rng;
use super::sample::{ClientConnection, ProofRequestId, RequestEnd, RequestKind, Sample};
use super::strike::Strike;
use super::wire::{Broken, Talk, Wire};
use crate::host::clock::monotonic_ns;

/// Pause before connecting again if no process listened.
const CONNECT_AGAIN: Duration = Duration::from_millis(10);
/// Pause of a client whose request failed: a flood of requests would not help.
const AFTER_FAULT: Duration = Duration::from_millis(20);

/// Most times that one request is sent.
const TRIES: u8 = 10;

/// One client.
pub(super) struct ProveClient {
    context: Arc<ProveContext>,
    number: u16,
    rng: Rng,
    wire: Option<Wire>,
    samples: Vec<Sample>,
}

/// The result of a try.
struct Try {
    line: Option<ClientConnection>,
    begun: u64,
    head: Option<u64>,
    messages: u8,
    reused: bool,
    end: RequestEnd,
}

impl ProveClient {
    pub(super) fn new(context: Arc<ProveContext>, number: u16, seed: u64) -> Self {
        Self {
            rng: Rng::new(seed, u64::from(number) + 1),
            context,
            number,
            wire: None,
            samples: Vec::new(),
        }
    }

    /// Sends requests until the order to end; returns all samples.
    pub(super) async fn run(mut self, mut order: watch::Receiver<Order>) -> Vec<Sample> {
        loop {
            let now = *order.borrow_and_update();
            match now {
                Order::Go => self.one().await,
                Order::Rest => {
                    // An idle instance has no connections either.
                    self.wire = None;
                    if order.changed().await.is_err() {
                        return self.samples;
                    }
                }
                Order::End => return self.samples,
            }
        }
    }

    /// Sends one request, as often as it may be sent.
    async fn one(&mut self) {
        let n = u32::try_from(self.samples.len()).unwrap_or(u32::MAX);
        let id = ProofRequestId {
            client: self.number,
            n,
        };
        let plan = RequestPlan::draw(&mut self.rng, self.context.demo);
        self.context.meter.busy.fetch_add(1, Ordering::Relaxed);
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
        let right = last.end == RequestEnd::Right;
        let meter = &self.context.meter;
        meter.busy.fetch_sub(1, Ordering::Relaxed);
        meter.sent.fetch_add(1, Ordering::Relaxed);
        if right {
            &meter.right
        } else {
            &meter.not_right
        }
        .fetch_add(1, Ordering::Relaxed);
        let head = last.head.unwrap_or(ended);
        let (own_ms, messages) = (plan.own_ms(), last.messages);
        self.samples.push(Sample {
            id,
            kind: plan.kind,
            tries,
            line: last.line,
            sent,
            head,
            ended,
            own_ms,
            messages,
            end: last.end,
        });
        if !right {
            self.wire = None;
            tokio::time::sleep(AFTER_FAULT).await;
        }
    }

    fn may_repeat(&self, plan: &RequestPlan, this: &Try, tries: u8) -> bool {
        if !plan.kind.safe() || tries >= TRIES {
            return false;
        }
        let cut = |s: &Strike| this.line.is_some_and(|line| s.cut(&line));
        let now = monotonic_ns();
        match this.end {
            RequestEnd::Cut(_) => (this.reused && tries == 1) || self.context.struck(cut),
            RequestEnd::Torn(_) => self
                .context
                .struck(|s| cut(s) || (s.is_behind() && s.met(this.begun, now))),
            _ => false,
        }
    }

    /// Sends it once. `sent` is set the first time.
    async fn attempt(
        &mut self,
        plan: &RequestPlan,
        id: ProofRequestId,
        number: u8,
        sent: &mut u64,
    ) -> Try {
        let begin = monotonic_ns();
        if *sent == 0 {
            *sent = begin;
        }
        let fresh = number > 1 || plan.fresh;
        let mut wire = match self.connection(fresh).await {
            Ok(wire) => wire,
            Err(why) => {
                return Try {
                    line: None,
                    begun: begin,
                    head: None,
                    messages: 0,
                    reused: false,
                    end: RequestEnd::NotConnected(why),
                };
            }
        };
        let (line, reused) = (Some(wire.line), wire.used);
        let text = id.text(&self.context.tag, number);
        let limit = self.context.limit + Duration::from_millis(u64::from(plan.takes_ms()));
        let mut this = Try {
            line,
            begun: begin,
            head: None,
            messages: 0,
            reused,
            end: RequestEnd::Late,
        };
        let work = async {
            if plan.kind == RequestKind::Socket {
                return converse(&self.context, &mut wire, plan, &text, &mut this).await;
            }
            match wire.ask(plan.request(&self.context, &text)).await {
                Ok(answer) => {
                    this.head = Some(answer.head);
                    plan::check(plan, &self.context, &text, &answer)
                }
                Err(broken) => cut(broken, &mut this),
            }
        };
        // A late request is abandoned together with its connection.
        if let Ok(end) = tokio::time::timeout(limit, work).await {
            let keep = end == RequestEnd::Right && plan.kind != RequestKind::Socket && !plan.close;
            this.end = end;
            if keep {
                self.wire = Some(wire);
            }
        }
        this
    }

    /// Returns the connection of the last request, or a new one. While processes are killed, none
    /// may listen for a while: nothing was sent then, so any client can wait and connect again.
    async fn connection(&mut self, fresh: bool) -> Result<Wire, Box<str>> {
        if let Some(mut wire) = self.wire.take().filter(|_| !fresh)
            && wire.is_ready().await
        {
            return Ok(wire);
        }
        let began = monotonic_ns();
        loop {
            let failed =
                match tokio::time::timeout(self.context.limit, Wire::open(self.context.to)).await {
                    Ok(Ok(wire)) => return Ok(wire),
                    Ok(Err(why)) => why,
                    Err(_) => "no connection within the time limit".into(),
                };
            let waited = Duration::from_nanos(monotonic_ns().saturating_sub(began));
            if !self.context.chaos || waited >= self.context.limit {
                return Err(failed);
            }
            tokio::time::sleep(CONNECT_AGAIN).await;
        }
    }
}

fn cut(broken: Broken, this: &mut Try) -> RequestEnd {
    if broken.before_head {
        return RequestEnd::Cut(broken.why);
    }
    this.head = Some(monotonic_ns());
    RequestEnd::Torn(broken.why)
}

/// Uses a WebSocket: sends a few messages, each after the echo of the last one.
async fn converse(
    context: &ProveContext,
    wire: &mut Wire,
    plan: &RequestPlan,
    text: &str,
    this: &mut Try,
) -> RequestEnd {
    let (response, head) = match wire.send(plan.request(context, text)).await {
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
        Err(why) => return RequestEnd::HungUp(why),
    };
    for n in 0..plan.messages {
        this.messages = n + 1;
        let message = format!("{text}#{n}");
        match talk.echo(&message).await {
            Ok(back) if back == message => {}
            Ok(back) => {
                return RequestEnd::Wrong(
                    format!("sent `{message}`, received `{back:.100}`").into(),
                );
            }
            Err(why) => return RequestEnd::HungUp(why),
        }
    }
    talk.end().await;
    RequestEnd::Right
}
