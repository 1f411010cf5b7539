//! Does the same to every instance that was named: all must exist, else nothing is done; then each
//! is tried, and the exit code is the worst.

use super::super::args::Names;
use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::{progress, show};
use crate::service::error::{ErrorKind, ServiceError};
use crate::service::outcome::Outcome;
use crate::service::request::Request;
use crate::service::view::Reader;

/// One after the other: without a server each request takes the owner lock. `waiting`: what a
/// spinner says, for instance "waiting for `shop` to answer", made from the name.
pub(super) async fn run(
    call: &mut CommandContext<'_>,
    names: Names,
    waiting: impl Fn(&str) -> String,
    request: impl Fn(String) -> Request,
) -> CommandEnd {
    if let Some(exit) = all_exist(call, &names.names) {
        return Ok(exit);
    }
    let mut exit = CommandExit::Done;
    for name in names.names {
        let waiting = waiting(&name);
        match one(call, &waiting, Some(&name), request(name.clone())).await {
            Ok(outcome) => print(call, &outcome)?,
            Err(error) => {
                call.ui.error(&error);
                exit = exit.worst(CommandExit::of(error.kind));
            }
        }
    }
    Ok(exit)
}

/// Looks all names up before anything is done about the first of them; one that is not there ends
/// the command. What cannot be looked up is left to the verb, which meets the same trouble and says
/// it.
fn all_exist(call: &mut CommandContext<'_>, names: &[String]) -> Option<CommandExit> {
    let [_, _, ..] = names else { return None };
    let reader = Reader::open(call.config).ok()?;
    let missing: Vec<ServiceError> = names
        .iter()
        .filter_map(|name| reader.find(name).err())
        .filter(|e| e.kind == ErrorKind::NotFound)
        .collect();
    for error in &missing {
        call.ui.error(&ServiceError {
            hint: format!("{}; nothing was done about the others", error.hint),
            ..error.clone()
        });
    }
    (!missing.is_empty()).then_some(CommandExit::NotFound)
}

/// Hands in one request while a spinner turns.
pub(super) async fn one(
    call: &CommandContext<'_>,
    waiting: &str,
    name: Option<&str>,
    request: Request,
) -> Result<Outcome, ServiceError> {
    progress::watch(
        call.ui.style,
        call.config,
        waiting,
        name,
        call.engine.dispatch(call.config, request),
    )
    .await
}

/// A sentence, or a line of JSON.
pub(super) fn print(call: &mut CommandContext<'_>, outcome: &Outcome) -> std::io::Result<()> {
    call.ui.say(&show::sentence(outcome));
    match call.ui.style.json {
        true => call.ui.json_line(outcome),
        false => Ok(()),
    }
}
