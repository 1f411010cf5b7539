//! `acc prove`: shows on this very host that nothing is lost when an instance is stopped, woken, and with `--chaos` killed.
//!
//! It stands beside the interface and uses acc as anybody does: clients speak HTTP to the edge, verbs go the way all verbs go
//! (handed in as [`Operator`]). The run:
//!
//! 1. `subject`: a scratch instance of the demo application, or one that is there.
//! 2. `client`, `plan`, `wire`: clients ask without a pause, each request with an id (`shot`).
//!    `streams`: others hold streams open, which a stop has to end in order.
//! 3. `cycles`: it is put to sleep over and over; the next request wakes it. `chaos`: things are killed meanwhile.
//! 4. `record`: what the application itself has written down of what reached it.
//! 5. `judge`: what was right, lost, wrong, doubled; `report`: the numbers.
//!
//! It never changes another instance, and it leaves nothing behind: neither when it fails nor on Ctrl-C.

mod chaos;
mod client;
mod cycles;
mod dice;
mod judge;
mod plan;
mod record;
pub mod report;
mod shot;
mod streams;
mod subject;
mod wire;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, EdgeKind, SupervisorKind};
use crate::host::clock::monotonic_ns;
use crate::service::error::{ErrorKind, ServiceError};
use crate::service::outcome::Outcome;
use crate::service::request::Request;
use chaos::{Chaos, Strike};
use client::{Client, Field, Order};
use cycles::{Cycles, Slept};
use dice::Dice;
use judge::Evidence;
use record::Record;
use shot::Shot;
use streams::{Ended, Holder};
use subject::Subject;

pub use client::Meter;
pub use report::Report;

/// Beyond the wake timeout, what an answer itself may take on a busy host.
const MARGIN: Duration = Duration::from_secs(5);
/// Everything that was killed is back within this, or the proof ends.
const BACK: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(100);

/// What to prove, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The instance; `None`: a scratch one.
    pub instance: Option<String>,
    /// Model of the scratch instance.
    pub model: String,
    /// Put to sleep so often; `None`: until the time is over.
    pub cycles: Option<u32>,
    /// End after this long at the latest.
    pub time: Option<Duration>,
    /// Clients at once.
    pub clients: u16,
    /// So many WebSockets, and as many event streams, are open all the time.
    pub streams: u16,
    /// Kill things meanwhile.
    pub chaos: bool,
    /// What chance is drawn from.
    pub seed: u64,
}

/// Runs verbs as any other command does. Handed in, because they run in layers above this one.
#[async_trait(?Send)]
pub trait Operator {
    /// One verb.
    async fn ask(&self, request: Request) -> Result<Outcome, ServiceError>;
    /// `acc boot`: brings back what is missing.
    async fn boot(&self) -> Result<(), ServiceError>;
}

/// Runs a proof to its end and leaves the installation as it found it. What is lost is in the report and no error.
///
/// # Errors
/// There is no server; the instance cannot be made, found or started; it could not be removed or put back afterwards; with
/// `chaos`, what was killed could not be brought back.
pub async fn run(config: &Config, options: &Options, operator: &dyn Operator, meter: &Arc<Meter>) -> Result<Report, ServiceError> {
    if chaos::server(operator).await.is_none() {
        return Err(ServiceError::failed("acc does not run: there is nobody to prove anything of", "run `acc boot` first"));
    }
    let interrupts = Interrupts::follow();
    let subject = match &options.instance {
        None => Subject::scratch(config, &options.model, options.seed, operator).await?,
        Some(given) => Subject::existing(config, given, operator).await?,
    };
    let report = prove(config, options, operator, meter, &subject, &interrupts.run).await;
    let left = tokio::select! {
        left = subject.leave(operator) => left,
        () = interrupts.clean_up.cancelled() => Err(ServiceError::failed(format!("`{}` was not cleaned up", subject.name), "see `acc list`")),
    };
    let report = report?;
    left.map(|()| report)
}

/// What one proof is made with.
struct Scene<'a> {
    config: &'a Config,
    options: &'a Options,
    operator: &'a dyn Operator,
    subject: &'a Subject,
    field: Arc<Field>,
    /// Begin, in nanoseconds of the monotonic clock.
    began: u64,
}

/// The proof itself; the subject is there before and after it.
async fn prove(
    config: &Config,
    options: &Options,
    operator: &dyn Operator,
    meter: &Arc<Meter>,
    subject: &Subject,
    interrupted: &CancellationToken,
) -> Result<Report, ServiceError> {
    let field = Arc::new(field(config, options, subject, meter).await?);
    if options.streams > 0 && !field.demo {
        let message = format!("`{}` is not acc's demo application: it is not known which streams it has", subject.name);
        return Err(ServiceError::new(ErrorKind::Denied, message, "prove it without `--streams`"));
    }
    let scene = Scene { config, options, operator, subject, field, began: monotonic_ns() };
    let (order, orders) = watch::channel(Order::Go);
    let mut clients = JoinSet::new();
    for number in 0..options.clients {
        clients.spawn(Client::new(scene.field.clone(), number, options.seed).run(orders.clone()));
    }
    let mut streams = JoinSet::new();
    for number in 0..options.streams {
        for kind in [streams::Kind::Socket, streams::Kind::Events] {
            streams.spawn(Holder::new(scene.field.clone(), kind, number, scene.began).run(orders.clone()));
        }
    }
    drop(orders);
    let mut slept = Slept::default();
    let ended = tokio::select! {
        ended = scene.drive(&order, &mut slept) => ended,
        () = interrupted.cancelled() => Ok(()),
    };
    if options.chaos {
        // It may have been in the middle of mending.
        boot_again(operator, BACK).await?;
    }
    order.send_replace(Order::End);
    let mut shots: Vec<Shot> = Vec::new();
    while let Some(done) = clients.join_next().await {
        shots.extend(done.unwrap_or_default());
    }
    let mut held = Ended::default();
    while let Some(done) = streams.join_next().await {
        held.add(done.unwrap_or_default());
    }
    ended?;
    scene.conclude(shots, held, slept, interrupted.is_cancelled())
}

/// What the clients need to know.
async fn field(config: &Config, options: &Options, subject: &Subject, meter: &Arc<Meter>) -> Result<Field, ServiceError> {
    let to = reachable(config)?;
    let limit = config.wake.timeout + MARGIN;
    Ok(Field {
        to,
        host: subject.host.clone(),
        name: subject.name.clone(),
        demo: subject::is_demo(to, &subject.host, limit).await?,
        limit,
        tag: format!("{:04x}{:x}", options.seed & 0xffff, monotonic_ns() / 1_000_000),
        chaos: options.chaos,
        strikes: Mutex::default(),
        meter: meter.clone(),
    })
}

impl Scene<'_> {
    /// Cycles, and chaos beside them, until they are done or the time is over.
    async fn drive(&self, order: &watch::Sender<Order>, slept: &mut Slept) -> Result<(), ServiceError> {
        let &Scene { config, options, operator, subject, ref field, .. } = self;
        let dice = Dice::new(options.seed, 1 << 32);
        let cycles = Cycles { config, operator, field, subject, order, dice, most: options.cycles, time: options.time };
        let chaos = async {
            match options.chaos {
                true => Chaos { config, operator, field, dice: Dice::new(options.seed, 1 << 33) }.run().await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cycles.run(slept) => Ok(()),
            error = chaos => Err(error),
        }
    }

    /// Judges what happened.
    fn conclude(&self, mut shots: Vec<Shot>, held: Ended, slept: Slept, interrupted: bool) -> Result<Report, ServiceError> {
        let &Scene { config, options, subject, ref field, began, .. } = self;
        let took = Duration::from_nanos(monotonic_ns().saturating_sub(began));
        let strikes: Vec<Strike> = field.strikes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let record = read_record(subject, field.demo, &field.tag)?;
        shots.sort_unstable_by_key(|shot| shot.sent);
        let evidence = Evidence { shots: &shots, record: record.as_ref(), strikes: &strikes, began, tag: &field.tag };
        let mut judgement = judge::judge(&evidence);
        judgement.faults.extend(held.faults);
        let complete = !interrupted && slept.cycles > 0 && (options.chaos || slept.verbs_failed.is_empty());
        Ok(Report {
            proven: complete && judgement.tally.is_clean() && judgement.tally.right > 0 && held.count.broken == 0,
            instance: subject.name.clone(),
            model: subject.model.clone(),
            edge: if config.edge.kind == EdgeKind::Nginx { "nginx" } else { "builtin" }.to_owned(),
            supervisor: if config.supervisor == SupervisorKind::Supervisord { "supervisord" } else { "builtin" }.to_owned(),
            seed: options.seed,
            cycles: slept.cycles,
            idle_stops: slept.idle_stops,
            clients: options.clients,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            recorded: record.is_some(),
            interrupted,
            tally: judgement.tally,
            wake: judgement.wake,
            wake_from_sleep: judgement.wake_from_sleep,
            streams: (options.streams > 0).then_some(held.count),
            strikes: options.chaos.then(|| chaos::count(&strikes)),
            verbs_failed: slept.verbs_failed,
            faults: judgement.faults,
        })
    }
}

/// Boots until the server answers.
async fn boot_again(operator: &dyn Operator, limit: Duration) -> Result<(), ServiceError> {
    let mut last = ServiceError::new(ErrorKind::TimedOut, "acc did not come back", "run `acc boot`");
    let back = async {
        loop {
            match operator.boot().await {
                Ok(()) if chaos::server(operator).await.is_some() => return,
                Ok(()) => {}
                Err(e) => last = e,
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    match tokio::time::timeout(limit, back).await {
        Ok(()) => Ok(()),
        Err(_) => Err(ServiceError { message: format!("what was killed did not come back: {}", last.message), ..last }),
    }
}

/// What the demo application has written down. A record that cannot be read is no record of nothing.
fn read_record(subject: &Subject, demo: bool, tag: &str) -> Result<Option<Record>, ServiceError> {
    let Some(path) = subject.record.as_ref().filter(|_| demo) else { return Ok(None) };
    let read = Record::read(path, tag);
    read.map(Some).map_err(|e| {
        ServiceError::because(
            format!("could not read what the application recorded in `{}`", path.display()),
            &e,
            "run it as the user who booted acc",
        )
    })
}

/// The edge's first address, as a client on this host reaches it.
fn reachable(config: &Config) -> Result<SocketAddr, ServiceError> {
    let Some(mut to) = config.edge.listen.first().copied() else {
        return Err(ServiceError::failed("the edge listens nowhere", "set `edge.listen` in the config"));
    };
    if to.ip().is_unspecified() {
        to.set_ip(if to.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) });
    }
    Ok(to)
}

/// Ctrl-C and SIGTERM: the first ends the run, the second ends the cleaning up as well.
#[derive(Debug, Clone, Default)]
struct Interrupts {
    run: CancellationToken,
    clean_up: CancellationToken,
}

impl Interrupts {
    /// From now on a signal no longer ends this process.
    fn follow() -> Self {
        let this = Self::default();
        let (run, clean_up) = (this.run.clone(), this.clean_up.clone());
        tokio::spawn(async move {
            let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else { return };
            for token in [run, clean_up] {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                }
                token.cancel();
            }
        });
        this
    }
}
