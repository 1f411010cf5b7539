//! `acc server`: the daemon, and `acc worker`, the part of it that serves. They talk through the log only.

use super::super::args::{ServerArgs, WorkerArgs};
use super::super::exit::Exit;
use super::super::output::End;
use super::super::{Engine, LeftToWorker, Reload};
use crate::config::Config;

pub(in super::super) async fn keep(engine: &dyn Engine, config: Config, args: ServerArgs) -> End {
    engine.keep(config, args.resume).await?;
    Ok(Exit::Done)
}

pub(in super::super) async fn work(engine: &dyn Engine, config: Config, args: WorkerArgs, reload: Reload) -> End {
    let WorkerArgs { sockets, tether, keeper, lock, renewed } = args;
    engine.work(config, LeftToWorker { sockets, tether, keeper, lock, renewed }, reload).await?;
    Ok(Exit::Done)
}
