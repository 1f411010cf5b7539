//! `acc server`: the daemon, and `acc worker`, the part of it that serves. They talk through the
//! log only.

use super::super::args::{ServerArgs, WorkerArgs};
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::{Engine, Reload};
use crate::config::Config;

pub(in super::super) async fn run_master(
    engine: &dyn Engine,
    config: Config,
    args: ServerArgs,
) -> CommandEnd {
    engine.run_master(config, args.resume).await?;
    Ok(CommandExit::Done)
}

pub(in super::super) async fn run_worker(
    engine: &dyn Engine,
    config: Config,
    args: WorkerArgs,
    reload: Reload,
) -> CommandEnd {
    engine.run_worker(config, args, reload).await?;
    Ok(CommandExit::Done)
}
