//! The way of a simulated request: through an open gate straight to the process, or to acc's door;
//! as the proxy does it.

use std::sync::Arc;
use std::time::Duration;

use super::drivers::who as number;
use super::host::{Asked, BACK_OFF, Flight, Host, NAMES, State, WAKE, Why};
use crate::domain::admission::Refusal;
use crate::domain::name::HostName;
use crate::domain::rule::Verdict;
use crate::service::admission::{Admission, Admitted, Ticket};
use crate::service::world::World;

/// A request that will be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) who: usize,
    /// How long the application works on it, in ms.
    pub(super) takes: u64,
    /// It must be answered: nothing is broken any more.
    pub(super) must: bool,
}

/// On the way between the gate and the socket.
struct Transit<'a>(&'a Host, usize);

impl Drop for Transit<'_> {
    fn drop(&mut self) {
        self.0.state().transit[self.1] -= 1;
    }
}

/// Makes the request and judges what becomes of it.
pub(super) async fn run(host: Arc<Host>, world: Arc<World>, request: Request) {
    {
        let mut s = host.state();
        let now = s.now;
        s.stats.requests += 1;
        s.asked.insert(
            request.id,
            Asked {
                who: request.who,
                since: now,
                delivered: 0,
            },
        );
        s.say(format_args!(
            "request {} to {} ({} ms)",
            request.id, NAMES[request.who], request.takes
        ));
    }
    if host.profile.nginx && through_gate(&host, request).await {
        return;
    }
    let answer = through_acc(&host, &world, request).await;
    let resting = world
        .store
        .by_name(NAMES[request.who])
        .ok()
        .flatten()
        .filter(|row| !row.stored.phase.is_live());
    host.state()
        .judge(request, &answer, resting.map(|row| row.stored.since.0));
}

/// `true`: it was delivered, the rest is between the client and the application.
async fn through_gate(host: &Arc<Host>, request: Request) -> bool {
    {
        let mut s = host.state();
        if !s.gates.contains_key(&request.who) {
            return false;
        }
        s.transit[request.who] += 1;
    }
    let on_the_way = Transit(host, request.who);
    let pause = request.id % 4;
    tokio::time::sleep(Duration::from_millis(pause)).await;
    let delivered = host.state().deliver(request, false);
    host.poke();
    drop(on_the_way);
    delivered
}

async fn through_acc(
    host: &Arc<Host>,
    world: &Arc<World>,
    request: Request,
) -> Result<bool, Refusal> {
    let name = HostName::parse(&format!("{}.apps.localhost", NAMES[request.who])).unwrap();
    let started = host.now();
    let mut pause = 1;
    loop {
        let left = Duration::from_millis((started + WAKE + 5_000).saturating_sub(host.now()));
        let pass = tokio::time::timeout(left, enter(world, &name))
            .await
            .unwrap_or(Err(Refusal::TooSlow))?;
        if let Some(good) = send(host, request, pass).await {
            return Ok(good);
        }
        if host.now() - started >= WAKE {
            return Err(Refusal::TooSlow);
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
        pause = (pause * 2).min(100);
    }
}

async fn enter(world: &Arc<World>, name: &HostName) -> Result<Box<dyn Ticket>, Refusal> {
    match world
        .admit(
            name,
            Verdict {
                wake: true,
                counts: true,
            },
        )
        .await?
    {
        Admitted::Open(pass) => Ok(pass),
        Admitted::Wait(mut waiting) => waiting.admitted().await,
    }
}

/// Sends it with the pass; `None`: the application never saw it.
async fn send(host: &Arc<Host>, request: Request, pass: Box<dyn Ticket>) -> Option<bool> {
    assert_eq!(number(pass.gate().name.as_str()), request.who);
    // A connection takes a moment, and nobody but acc knows of it yet.
    let pause = request.id % 5;
    tokio::time::sleep(Duration::from_millis(pause)).await;
    if !host.state().deliver(request, true) {
        return None;
    }
    host.poke();
    let good = host.until(|s| s.fates.remove(&request.id)).await;
    drop(pass);
    Some(good)
}

impl State {
    /// Connects to the application.
    fn deliver(&mut self, request: Request, via_acc: bool) -> bool {
        let now = self.now;
        let Some(pid) = self
            .process(request.who)
            .filter(|p| p.accepts(now))
            .map(|p| p.pid)
        else {
            return false;
        };
        self.say(format_args!(
            "  request {} is with process {pid}, {}",
            request.id,
            if via_acc { "by acc" } else { "directly" }
        ));
        self.busy(request.who, now);
        let ends = now + request.takes.max(1);
        self.flights.insert(
            request.id,
            Flight {
                pid,
                who: request.who,
                ends,
                via_acc,
            },
        );
        let delivered = self.asked.get_mut(&request.id).map_or(0, |asked| {
            asked.delivered += 1;
            asked.delivered
        });
        if delivered > 1 {
            self.violate(format!(
                "request {} was delivered {delivered} times",
                request.id
            ));
        }
        true
    }

    /// Is this a legitimate end? A closed list.
    fn judge(
        &mut self,
        request: Request,
        answer: &Result<bool, Refusal>,
        rests_since: Option<u64>,
    ) {
        let Some(asked) = self.asked.remove(&request.id) else {
            return;
        };
        let (who, since, now) = (asked.who, asked.since, self.now);
        self.say(format_args!("  request {} ended: {answer:?}", request.id));
        let refusal = match answer {
            Ok(good) => return self.count(*good),
            Err(refusal) => refusal,
        };
        self.stats.refused += 1;
        let ago = |ms: u64| since.saturating_sub(ms);
        let legitimate = match refusal {
            Refusal::UnknownHost | Refusal::Destroyed | Refusal::Creating => {
                self.excused(&[Why::Gone], who, since, now)
            }
            Refusal::Disabled => self.excused(&[Why::Down], who, since, now),
            Refusal::Failed { .. } => {
                self.excused(&[Why::Fault, Why::Outage], who, ago(BACK_OFF + 20_000), now)
            }
            Refusal::TooSlow | Refusal::StillStopping => {
                if rests_since.is_some_and(|at| at > since && now - at > 2_000)
                    && !self.excused(&[Why::Outage], who, since, now)
                {
                    self.violate(format!(
                        "request {} waited for {}, which had failed long ago",
                        request.id, NAMES[who]
                    ));
                }
                let broken = self.excused(&[Why::Fault, Why::Outage], who, ago(60_000), now);
                broken || self.excuses(Why::Stop, who, ago(15_000), now) >= 2
            }
            // A driver that is away is asked again only now and then.
            Refusal::Broken => self.excused(&[Why::Outage], who, ago(2_000), now),
            Refusal::MayNotWake
            | Refusal::TooManyWaiting
            | Refusal::TooManyWakes { .. }
            | Refusal::Halting => false,
        };
        if request.must || !legitimate {
            self.violate(format!(
                "request {} to {} was refused after {} ms: {refusal}",
                request.id,
                NAMES[who],
                now - since
            ));
        }
        if now - since > WAKE + 5_500 {
            self.violate(format!(
                "request {} to {} waited {} ms",
                request.id,
                NAMES[who],
                now - since
            ));
        }
    }
}
