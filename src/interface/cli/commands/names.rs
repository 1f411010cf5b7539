//! `acc names`: the names of all instances or models, a line each, for the completions of a shell.
//! For shells only: `acc list` and `acc models` show more.

use super::super::args::NamesArgs;
use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use crate::service::error::unexpected;
use crate::service::outcome::Outcome;
use crate::service::request::Request;

pub(in super::super) async fn run(call: &mut CommandContext<'_>, args: &NamesArgs) -> CommandEnd {
    let request = match args.models {
        false => Request::Names,
        true => Request::Models,
    };
    let names: Vec<String> = match call.ask(request).await? {
        Outcome::Names { names } => names,
        Outcome::Models { models, .. } => models.into_iter().map(|model| model.name).collect(),
        _ => return Err(unexpected().into()),
    };
    call.ui.data(
        &names
            .iter()
            .map(|name| format!("{name}\n"))
            .collect::<String>(),
    )?;
    Ok(CommandExit::Done)
}
