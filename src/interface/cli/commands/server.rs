//! `acc server`: the daemon, and `acc worker`, the part of it that serves. They talk through the
//! log only.

use super::super::args::{ServerArgs, WorkerArgs};
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::{Engine, LeftToWorker, Reload};
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
    let WorkerArgs {
        sockets,
        channel,
        master,
        lock,
    } = args;
    engine
        .run_worker(
            config,
            LeftToWorker {
                sockets,
                channel,
                master,
                lock,
            },
            reload,
        )
        .await?;
    Ok(CommandExit::Done)
}
