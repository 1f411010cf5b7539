//! What happens in a step: requests, verbs of an operator, monitor runs, chaos, outages, and time
//! going by.

use std::sync::Arc;
use std::time::Duration;

use super::client;
use super::host::{Host, NAMES, Verb, Why};
use super::rng::Rng;
use crate::domain::instance::{DesiredState, Exit};
use crate::service::error::{ErrorKind, ServiceError};
use crate::service::handle;
use crate::service::handler::{EntryPoint, RequestCaller};
use crate::service::outcome::Outcome;
use crate::service::request::{InstanceRef, NewInstance, Request};
use crate::service::world::World;

/// One life of acc on its host.
pub(super) struct Life {
    pub(super) host: Arc<Host>,
    pub(super) world: Arc<World>,
}

impl Life {
    /// Does one random thing, then lets a random time go by.
    pub(super) async fn step(&self, rng: &mut Rng, next: &mut u64) {
        self.host.state().stats.steps += 1;
        let who = usize::try_from(rng.below(u64::try_from(NAMES.len()).unwrap())).unwrap();
        match rng.below(100) {
            0..45 => self.requests(rng, who, next),
            45..58 => self.verb(
                rng.next(),
                who,
                Request::Monitor {
                    dry_run: rng.percent(10),
                    thorough: rng.percent(10),
                },
            ),
            58..82 => self.operator(rng, who),
            82..86 => self.maker(rng, who),
            86..90 if self.host.profile.faults => self.kill(who),
            90..96 if self.host.profile.faults => self.outage(rng),
            96..98 if self.host.profile.clock => self.set_clock(rng),
            98..100 if self.host.profile.crashes => {
                self.host.state().crash_in = Some(rng.below(15))
            }
            _ => {}
        }
        let ms = match rng.below(100) {
            0..25 => 0,
            25..60 => rng.below(100),
            60..75 => rng.below(2_000),
            75..88 => rng.below(15_000),
            88..96 => rng.between(30_000, 70_000),
            _ => rng.below(400_000),
        };
        self.let_go_by(ms).await;
    }

    pub(super) async fn let_go_by(&self, ms: u64) {
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }

    fn requests(&self, rng: &mut Rng, who: usize, next: &mut u64) {
        let many = if rng.percent(20) {
            rng.between(2, 8)
        } else {
            1
        };
        for _ in 0..many {
            let takes = match rng.below(10) {
                0..7 => rng.below(200),
                7..9 => rng.below(8_000),
                _ => rng.below(200_000),
            };
            self.request(who, takes, next, false);
        }
    }

    pub(super) fn request(&self, who: usize, takes: u64, next: &mut u64, must: bool) {
        *next += 1;
        let request = client::Request {
            id: *next,
            who,
            takes,
            must,
        };
        tokio::spawn(client::run(self.host.clone(), self.world.clone(), request));
    }

    fn operator(&self, rng: &mut Rng, who: usize) {
        let instance = InstanceRef::from(NAMES[who]);
        let set_desired = |desired| Request::SetDesired {
            instance: NAMES[who].into(),
            desired,
        };
        let request = match rng.below(20) {
            0..5 => Request::Start { instance },
            5..9 => Request::Stop {
                instance,
                now: false,
            },
            9..11 => Request::Stop {
                instance,
                now: true,
            },
            11..14 => Request::Restart { instance },
            14 if rng.percent(40) => set_desired(DesiredState::Down),
            14..18 => set_desired(DesiredState::Auto),
            18 => set_desired(DesiredState::Up),
            _ => Request::Reset { instance },
        };
        self.verb(rng.next(), who, request);
    }

    fn maker(&self, rng: &mut Rng, who: usize) {
        let instance = InstanceRef::from(NAMES[who]);
        let request = match rng.below(8) {
            0 => Request::Destroy {
                instance,
                force: rng.percent(70),
            },
            1..4 => Request::Purge { instance },
            _ => create(who, rng.percent(50)),
        };
        self.verb(rng.next(), who, request);
    }

    /// Runs a verb beside everything else, with what it may break while it runs.
    pub(super) fn verb(&self, id: u64, who: usize, request: Request) {
        let (host, world) = (self.host.clone(), self.world.clone());
        let caller = RequestCaller::own(EntryPoint::CommandLine);
        host.state().begin_verb(id, who, &request);
        tokio::spawn(async move {
            let outcome = handle(&world, &caller, request.clone()).await;
            host.state().end_verb(id, who, &request, &outcome);
        });
    }

    /// Somebody kills a process behind acc's back.
    fn kill(&self, who: usize) {
        {
            let mut s = self.host.state();
            let now = s.now;
            s.say(format_args!("CHAOS: kill {}", NAMES[who]));
            s.excuse(Why::Fault, Some(who), now, now);
            if let Some(process) = s.process(who) {
                process.may_cut = true;
                process.dies = Some((now, Exit::Signal(9)));
            }
        }
        self.host.poke();
    }

    fn outage(&self, rng: &mut Rng) {
        let mut s = self.host.state();
        let what = rng.below(4);
        let out = &mut s.out;
        let flag = [
            &mut out.supervisor,
            &mut out.edge,
            &mut out.activity,
            &mut out.disk,
        ]
        .into_iter()
        .nth(usize::try_from(what).unwrap())
        .unwrap();
        *flag = !*flag;
        let (begins, any) = (
            *flag,
            out.supervisor || out.edge || out.activity || out.disk,
        );
        s.say(format_args!(
            "CHAOS: outage {what} {}",
            if begins { "begins" } else { "ends" }
        ));
        if begins {
            s.begin_excuse(Why::Outage, None);
        } else if !any {
            s.end_excuse(Why::Outage, None);
        }
    }

    fn set_clock(&self, rng: &mut Rng) {
        let mut s = self.host.state();
        let by = [-3_600_000, 86_400_000, -5_000, 30_000][usize::try_from(rng.below(4)).unwrap()];
        s.say(format_args!("CHAOS: the wall clock is set by {by} ms"));
        s.wall_offset += by;
    }
}

/// Makes an instance; one in two has another host, which the edge must be told.
pub(super) fn create(who: usize, asleep: bool) -> Request {
    let name = NAMES[who].to_owned();
    let hosts = if who.is_multiple_of(2) {
        vec![format!("{name}.example.org")]
    } else {
        Vec::new()
    };
    Request::Create(NewInstance {
        name: Some(name),
        model: "test".into(),
        hosts,
        asleep,
        ..NewInstance::default()
    })
}

impl super::host::State {
    fn begin_verb(&mut self, id: u64, who: usize, request: &Request) {
        self.say(format_args!("verb {request:?}"));
        self.stats.verbs += 1;
        let now = self.now;
        self.verbs.insert(
            id,
            Verb {
                who,
                request: request.clone(),
                since: now,
            },
        );
        for why in allows(request) {
            self.begin_excuse(*why, Some(who));
        }
    }

    fn end_verb(
        &mut self,
        id: u64,
        who: usize,
        request: &Request,
        outcome: &Result<Outcome, ServiceError>,
    ) {
        match outcome {
            Ok(Outcome::Instance { did, already, .. }) => self.say(format_args!(
                "  ended {request:?}: {did:?} already: {already}"
            )),
            other => self.say(format_args!("  ended {request:?}: {other:?}")),
        }
        let Some(Verb { since, .. }) = self.verbs.remove(&id) else {
            return;
        };
        for why in allows(request) {
            match why {
                Why::Gone | Why::Down => {}
                _ if self.under_way(who, *why) => {}
                _ => self.end_excuse(*why, Some(who)),
            }
            // The verb waits no longer, but what it asked for is still under way.
            if matches!(outcome, Err(e) if e.kind == ErrorKind::TimedOut) {
                self.excuse(*why, Some(who), since, self.now + 3_600_000);
            }
        }
        match (request, outcome) {
            (Request::Create(_), Ok(_)) if !self.under_way(who, Why::Gone) => {
                self.end_excuse(Why::Gone, Some(who))
            }
            (Request::SetDesired { desired, .. }, Ok(_))
                if *desired != DesiredState::Down && !self.under_way(who, Why::Down) =>
            {
                self.end_excuse(Why::Down, Some(who));
            }
            (_, Err(e)) => self.judge_error(since, who, request, e),
            _ => {}
        }
    }

    /// Is there another verb at work that may bring this about?
    fn under_way(&self, who: usize, why: Why) -> bool {
        self.verbs
            .values()
            .any(|v| v.who == who && allows(&v.request).contains(&why))
    }

    /// Is this a legitimate end of a verb when nothing was broken?
    fn judge_error(&mut self, since: u64, who: usize, request: &Request, error: &ServiceError) {
        let now = self.now;
        if self.excused(
            &[Why::Fault, Why::Outage],
            who,
            since.saturating_sub(super::host::BACK_OFF),
            now,
        ) {
            return;
        }
        let meanwhile = [
            "while it was starting",
            "it was started again",
            "is taken",
            "folder",
            "belongs to",
        ];
        let fine = match error.kind {
            ErrorKind::Denied | ErrorKind::NotFound => true,
            ErrorKind::Failed => meanwhile.iter().any(|text| error.message.contains(text)),
            ErrorKind::Invalid | ErrorKind::TimedOut => false,
        };
        if !fine {
            self.violate(format!("{request:?} failed: {error}"));
        }
    }
}

/// What a verb may bring about while it runs (and, with `Gone` and `Down`, until another verb ends
/// it).
fn allows(request: &Request) -> &'static [Why] {
    match request {
        Request::Stop { now: true, .. } => &[Why::Cut],
        Request::Stop { now: false, .. } | Request::Restart { .. } => &[Why::Stop],
        Request::SetDesired {
            desired: DesiredState::Down,
            ..
        } => &[Why::Stop, Why::Down],
        Request::Destroy { .. } => &[Why::Cut, Why::Gone],
        Request::Create(_) => &[Why::Cut, Why::Gone],
        Request::Purge { .. } => &[Why::Gone],
        Request::Ping
        | Request::Settings
        | Request::Upgrade
        | Request::Reload
        | Request::Start { .. }
        | Request::SetDesired { .. }
        | Request::Reset { .. }
        | Request::Monitor { .. }
        | Request::Quiesce
        | Request::List(_)
        | Request::Info { .. }
        | Request::Names
        | Request::Events { .. }
        | Request::Models
        | Request::Model { .. }
        | Request::Logs { .. } => &[],
    }
}
