//! `acc prove`: shows on this host that nothing is lost. The report is the data; the exit code is
//! the verdict.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;

use super::super::args::ProveArgs;
use super::super::context::CommandContext;
use super::super::engine::Engine;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::progress;
use super::super::show_proof::proof;
use crate::config::Config;
use crate::host::clock::monotonic_ns;
use crate::prove::{self, Meter, Operator, Options};
use crate::service::error::ServiceError;
use crate::service::outcome::Outcome;
use crate::service::request::Request;

/// Cycles when neither their number nor a time is given.
const CYCLES: u32 = 100;

/// Verbs, done as every command has them done.
struct EngineOperator<'a> {
    engine: &'a dyn Engine,
    config: &'a Config,
}

#[async_trait(?Send)]
impl Operator for EngineOperator<'_> {
    async fn ask(&self, request: Request) -> Result<Outcome, ServiceError> {
        self.engine.dispatch(self.config, request).await
    }
    async fn boot(&self) -> Result<(), ServiceError> {
        self.engine.boot(self.config, false).await.map(drop)
    }
}

pub(in super::super) async fn run(call: &mut CommandContext<'_>, args: ProveArgs) -> CommandEnd {
    let cycles = args.cycles.or(if args.time.is_some() {
        None
    } else {
        Some(CYCLES)
    });
    let options = Options {
        instance: args.instance,
        model: args.app,
        cycles,
        time: args.time,
        clients: args.clients,
        streams: args.streams.unwrap_or(0),
        chaos: args.chaos,
        seed: args.seed.unwrap_or_else(|| monotonic_ns() & 0xffff_ffff),
    };
    let operator = EngineOperator {
        engine: call.engine,
        config: call.config,
    };
    let meter = Arc::new(Meter::default());
    let line = || shown(&meter, cycles, args.time);
    let report = progress::follow(
        call.ui.style,
        line,
        prove::run(call.config, &options, &operator, &meter),
    )
    .await?;
    match call.ui.style.json {
        true => call.ui.json(&report)?,
        false => call.ui.data(&proof(&report))?,
    }
    Ok(CommandExit::unless(!report.proven))
}

/// How far it is.
fn shown(meter: &Meter, cycles: Option<u32>, time: Option<Duration>) -> String {
    let read = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    let of = match (cycles, time) {
        (Some(cycles), _) => format!(" of {cycles}"),
        (None, Some(time)) => format!(" in {}", humantime::format_duration(time)),
        (None, None) => String::new(),
    };
    let bad = match read(&meter.not_right) {
        0 => String::new(),
        n => format!(", {n} not"),
    };
    format!(
        "proving: cycle {}{of}, {} requests answered correctly{bad}",
        read(&meter.cycles),
        read(&meter.right)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_how_far_it_is() {
        let meter = Meter::default();
        meter.cycles.store(3, Ordering::Relaxed);
        meter.right.store(40, Ordering::Relaxed);
        assert_eq!(
            shown(&meter, Some(100), None),
            "proving: cycle 3 of 100, 40 requests answered correctly"
        );
        meter.not_right.store(2, Ordering::Relaxed);
        let minute = Some(Duration::from_secs(60));
        assert_eq!(
            shown(&meter, None, minute),
            "proving: cycle 3 in 1m, 40 requests answered correctly, 2 not"
        );
    }
}
