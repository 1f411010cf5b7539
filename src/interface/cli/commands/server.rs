//! `acc server`: the daemon. Talks through the log only.

use super::super::exit::Exit;
use super::super::output::End;
use super::super::{Engine, Reload};
use crate::config::Config;

pub(in super::super) async fn run(engine: &dyn Engine, config: Config, reload: Reload) -> End {
    engine.serve(config, reload).await?;
    Ok(Exit::Done)
}
