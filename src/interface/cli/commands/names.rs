//! `acc names`: the names of all instances or models, a line each, for the completions of a shell.
//! For shells only: `acc list` and `acc models` show more.

use super::super::args::NamesArgs;
use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use crate::models::list_models;
use crate::service::error::{ServiceError, chain};
use crate::service::view::Reader;

pub(in super::super) fn run(call: &mut CommandContext<'_>, args: &NamesArgs) -> CommandEnd {
    let names = match args.models {
        false => Reader::open(call.config)?.names()?,
        true => {
            let all = list_models(&call.config.models())
                .map_err(|e| ServiceError::failed(chain(&e), "check its owner and mode"))?;
            all.into_iter().flatten().map(|model| model.name).collect()
        }
    };
    call.ui.data(
        &names
            .iter()
            .map(|name| format!("{name}\n"))
            .collect::<String>(),
    )?;
    Ok(CommandExit::Done)
}
