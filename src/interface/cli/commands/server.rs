//! `acc server`: the daemon, and `acc worker`, the part of it that serves. They talk through the log only.

use super::super::args::{ServerArgs, WorkerArgs};
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::{Engine, LeftToWorker, Reload};
use crate::config::Config;

pub(in super::super) async fn keep(engine: &dyn Engine, config: Config, args: ServerArgs) -> CommandEnd {
    engine.keep(config, args.resume).await?;
    Ok(CommandExit::Done)
}

pub(in super::super) async fn work(engine: &dyn Engine, config: Config, args: WorkerArgs, reload: Reload) -> CommandEnd {
    let WorkerArgs { sockets, tether, keeper, lock, renewed } = args;
    engine.work(config, LeftToWorker { sockets, tether, keeper, lock, renewed }, reload).await?;
    Ok(CommandExit::Done)
}
