//! `acc prove`: shows on this very host that nothing is lost when an instance is stopped, woken,
//! and with `--chaos` killed.
//!
//! It uses acc as any client does: clients send HTTP to the edge, verbs are sent as by any command
//! (passed in as [`Operator`]). The run:
//!
//! 1. `target`: a scratch instance of the demo application, or an existing one.
//! 2. `client`, `plan`, `wire`: clients send requests without a pause, each with an id (`sample`).
//!    `streams`: others hold streams open, which a stop must end in order.
//! 3. `cycles`: the instance is put to sleep over and over; the next request wakes it. `chaos`:
//!    processes are killed meanwhile.
//! 4. `record`: what the application itself has recorded about its requests.
//! 5. `judge`: what was right, lost, wrong, doubled; `report`: the numbers.
//!
//! `context`, `strike`, `operator` and `rng` are shared by these.
//!
//! It never changes another instance, and leaves nothing behind, neither after a failure nor after
//! Ctrl-C.

mod chaos;
mod client;
mod context;
mod cycles;
mod judge;
mod operator;
mod plan;
mod record;
pub mod report;
mod rng;
mod sample;
mod streams;
mod strike;
mod target;
mod wire;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::host::clock::monotonic_ns;
use crate::service::error::{ErrorKind, ServiceError};
use chaos::Chaos;
use client::ProveClient;
use context::{Order, ProveContext};
use cycles::{Cycles, Slept};
use judge::Evidence;
use operator::{BACK, boot_again, server};
use record::AppRecord;
use rng::Rng;
use sample::Sample;
use streams::{EndedStreams, StreamHolder};
use strike::Strike;
use target::ProofTarget;

pub use context::Meter;
pub use operator::Operator;
pub use report::Report;

/// What a response itself may take on a busy host, beyond the wake timeout.
const MARGIN: Duration = Duration::from_secs(5);

/// What to prove, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The instance; `None`: a scratch one.
    pub instance: Option<String>,
    /// Model of the scratch instance.
    pub model: String,
    /// Number of cycles; `None`: until the time is over.
    pub cycles: Option<u32>,
    /// End after this long at the latest.
    pub time: Option<Duration>,
    /// Number of simultaneous clients.
    pub clients: u16,
    /// How many WebSockets, and how many event streams, are open all the time.
    pub streams: u16,
    /// Kill processes meanwhile.
    pub chaos: bool,
    /// Random seed.
    pub seed: u64,
}

/// Runs a proof to its end and leaves the installation as it was. Lost requests are part of the
/// report and no error.
///
/// # Errors
/// There is no server; the instance cannot be made, found or started; it could not be removed or
/// restored afterwards; with `chaos`, what was killed could not be restored.
pub async fn run(
    config: &Config,
    options: &Options,
    operator: &dyn Operator,
    meter: &Arc<Meter>,
) -> Result<Report, ServiceError> {
    if server(operator).await.is_none() {
        return Err(ServiceError::failed(
            "no acc server is running",
            "start it with `acc boot`",
        ));
    }
    let interrupts = Interrupts::follow();
    let target = match &options.instance {
        None => ProofTarget::scratch(config, &options.model, options.seed, operator).await?,
        Some(given) => ProofTarget::existing(given, operator).await?,
    };
    let report = prove(config, options, operator, meter, &target, &interrupts.run).await;
    let left = tokio::select! {
        left = target.leave(operator) => left,
        () = interrupts.clean_up.cancelled() => Err(ServiceError::failed(format!("`{}` was not cleaned up", target.name), "check `acc list`")),
    };
    let report = report?;
    left.map(|()| report)
}

/// The parts of one proof.
struct Proof<'a> {
    config: &'a Config,
    options: &'a Options,
    operator: &'a dyn Operator,
    target: &'a ProofTarget,
    context: Arc<ProveContext>,
    /// Start, in nanoseconds of the monotonic clock.
    began: u64,
}

/// Runs the proof; the target exists before and after it.
async fn prove(
    config: &Config,
    options: &Options,
    operator: &dyn Operator,
    meter: &Arc<Meter>,
    target: &ProofTarget,
    interrupted: &CancellationToken,
) -> Result<Report, ServiceError> {
    let context = Arc::new(context(config, options, target, meter).await?);
    let proof = Proof {
        config,
        options,
        operator,
        target,
        context,
        began: monotonic_ns(),
    };
    let (order, orders) = watch::channel(Order::Go);
    let (mut clients, mut streams) = proof.clients(&orders);
    drop(orders);
    let mut slept = Slept::default();
    let ended = tokio::select! {
        ended = proof.drive(&order, &mut slept) => ended,
        () = interrupted.cancelled() => Ok(()),
    };
    if options.chaos {
        // A repair may have been in progress.
        boot_again(operator, BACK).await?;
    }
    order.send_replace(Order::End);
    let mut samples: Vec<Sample> = Vec::new();
    while let Some(done) = clients.join_next().await {
        samples.extend(done.unwrap_or_default());
    }
    let mut held = EndedStreams::default();
    while let Some(done) = streams.join_next().await {
        held.add(done.unwrap_or_default());
    }
    ended?;
    proof.conclude(samples, held, slept, interrupted.is_cancelled())
}

/// Collects what the clients need to know.
async fn context(
    config: &Config,
    options: &Options,
    target: &ProofTarget,
    meter: &Arc<Meter>,
) -> Result<ProveContext, ServiceError> {
    let to = reachable(config)?;
    let limit = config.wake.timeout + MARGIN;
    let demo = target::is_demo(to, &target.host, limit).await?;
    if options.streams > 0 && !demo {
        let message = format!(
            "`{}` is not acc's demo application, so its streams are unknown",
            target.name
        );
        return Err(ServiceError::new(
            ErrorKind::Denied,
            message,
            "run `acc prove` without `--streams`",
        ));
    }
    Ok(ProveContext {
        to,
        host: target.host.clone(),
        name: target.name.clone(),
        demo,
        limit,
        tag: format!(
            "{:04x}{:x}",
            options.seed & 0xffff,
            monotonic_ns() / 1_000_000
        ),
        chaos: options.chaos,
        strikes: Mutex::default(),
        meter: meter.clone(),
    })
}

impl Proof<'_> {
    /// Starts the clients and the holders of streams.
    fn clients(
        &self,
        orders: &watch::Receiver<Order>,
    ) -> (JoinSet<Vec<Sample>>, JoinSet<EndedStreams>) {
        let mut clients = JoinSet::new();
        for number in 0..self.options.clients {
            let client = ProveClient::new(self.context.clone(), number, self.options.seed);
            clients.spawn(client.run(orders.clone()));
        }
        let mut streams = JoinSet::new();
        for number in 0..self.options.streams {
            for kind in [streams::StreamKind::Socket, streams::StreamKind::Events] {
                let holder = StreamHolder::new(self.context.clone(), kind, number, self.began);
                streams.spawn(holder.run(orders.clone()));
            }
        }
        (clients, streams)
    }

    /// Runs the cycles, with chaos beside them, until they are done or the time is over.
    async fn drive(
        &self,
        order: &watch::Sender<Order>,
        slept: &mut Slept,
    ) -> Result<(), ServiceError> {
        let &Proof {
            config,
            options,
            operator,
            target,
            ref context,
            ..
        } = self;
        let rng = Rng::new(options.seed, 1 << 32);
        let cycles = Cycles {
            config,
            operator,
            context,
            target,
            order,
            rng,
            most: options.cycles,
            time: options.time,
        };
        let chaos = async {
            match options.chaos {
                true => {
                    Chaos {
                        config,
                        operator,
                        context,
                        rng: Rng::new(options.seed, 1 << 33),
                    }
                    .run()
                    .await
                }
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cycles.run(slept) => Ok(()),
            error = chaos => Err(error),
        }
    }

    /// Judges the run.
    fn conclude(
        &self,
        mut samples: Vec<Sample>,
        held: EndedStreams,
        slept: Slept,
        interrupted: bool,
    ) -> Result<Report, ServiceError> {
        let &Proof {
            config,
            options,
            target,
            ref context,
            began,
            ..
        } = self;
        let took = Duration::from_nanos(monotonic_ns().saturating_sub(began));
        let strikes: Vec<Strike> = context.strikes().clone();
        let record = read_record(target, context.demo, &context.tag)?;
        samples.sort_unstable_by_key(|sample| sample.sent);
        let evidence = Evidence {
            samples: &samples,
            record: record.as_ref(),
            strikes: &strikes,
            began,
            tag: &context.tag,
        };
        let mut judgement = judge::judge(&evidence);
        judgement.faults.extend(held.faults);
        let complete =
            !interrupted && slept.cycles > 0 && (options.chaos || slept.verbs_failed.is_empty());
        Ok(Report {
            proven: complete
                && judgement.tally.is_clean()
                && judgement.tally.right > 0
                && held.count.broken == 0,
            instance: target.name.clone(),
            model: target.model.clone(),
            edge: config.edge.kind.as_str().to_owned(),
            supervisor: config.supervisor.as_str().to_owned(),
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
            strikes: options.chaos.then(|| strike::count(&strikes)),
            verbs_failed: slept.verbs_failed,
            faults: judgement.faults,
        })
    }
}

/// Reads what the demo application has recorded. An unreadable record is no record, not an empty
/// one.
fn read_record(
    target: &ProofTarget,
    demo: bool,
    tag: &str,
) -> Result<Option<AppRecord>, ServiceError> {
    let Some(path) = target.record.as_ref().filter(|_| demo) else {
        return Ok(None);
    };
    let read = AppRecord::read(path, tag);
    read.map(Some).map_err(|e| {
        ServiceError::because(
            format!(
                "could not read the application's record `{}`",
                path.display()
            ),
            &e,
            "run `acc prove` as the user who booted acc",
        )
    })
}

/// The edge's first address, as a client on this host reaches it.
fn reachable(config: &Config) -> Result<SocketAddr, ServiceError> {
    let Some(mut to) = config.edge.listen.first().copied() else {
        return Err(ServiceError::failed(
            "the edge has no listening address",
            "set `edge.listen` in the config",
        ));
    };
    if to.ip().is_unspecified() {
        to.set_ip(if to.is_ipv4() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        });
    }
    Ok(to)
}

/// Ctrl-C and SIGTERM: the first one ends the run, the second one the cleanup as well.
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
            let (Ok(mut int), Ok(mut term)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
            ) else {
                return;
            };
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
