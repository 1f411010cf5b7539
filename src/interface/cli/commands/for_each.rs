//! Does the same to every named instance. All must exist, else nothing is done. Each
//! is tried, and the highest exit code is returned.

use std::collections::BTreeSet;

use super::super::args::Names;
use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::{progress, show};
use crate::service::error::{ErrorKind, ServiceError};
use crate::service::outcome::Outcome;
use crate::service::request::{InstanceRef, Request};

/// One after the other: without a server each request takes the owner lock. `waiting`: what a
/// spinner says, for instance "waiting for `shop` to answer", made from the name.
pub(super) async fn run(
    call: &mut CommandContext<'_>,
    mut names: Names,
    waiting: impl Fn(&str) -> String,
    request: impl Fn(InstanceRef) -> Request,
) -> CommandEnd {
    // A name that is given twice is one instance.
    let mut seen = BTreeSet::new();
    names.names.retain(|name| seen.insert(name.clone()));
    if let Some(exit) = all_exist(call, &names.names).await {
        return Ok(exit);
    }
    let mut exit = CommandExit::Done;
    for name in names.names {
        let waiting = waiting(&name);
        match one(call, &waiting, Some(&name), request(name.as_str().into())).await {
            Ok(outcome) => print(call, &outcome)?,
            Err(error) => {
                call.ui.error(&error);
                exit = exit.worst(CommandExit::of(error.kind));
            }
        }
    }
    Ok(exit)
}

/// Checks all names before the first instance is changed; one that does not exist ends
/// the command. A lookup that fails is left to the verb, which fails in the same way and reports
/// it.
async fn all_exist(call: &mut CommandContext<'_>, names: &[String]) -> Option<CommandExit> {
    let [_, _, ..] = names else { return None };
    let mut missing = Vec::new();
    for name in names {
        let instance = name.as_str().into();
        match call.ask(Request::Info { instance }).await {
            Err(e) if e.kind == ErrorKind::NotFound => missing.push(e),
            _ => {}
        }
    }
    for error in &missing {
        call.ui.error(&ServiceError {
            hint: format!("{}; nothing was done for the other names", error.hint),
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
        name.map(|name| (call.engine, name)),
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
