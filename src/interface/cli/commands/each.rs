//! Does the same to every instance that was named: each is tried, the exit code is the worst.

use super::super::args::Names;
use super::super::exit::Exit;
use super::super::output::End;
use super::super::{Call, progress, show};
use crate::service::error::ServiceError;
use crate::service::outcome::Outcome;
use crate::service::request::Request;

/// One after the other: without a server each request takes the owner lock. `waiting`: what a spinner says, for instance
/// "waiting for `shop` to answer", made from the name.
pub(super) async fn run(call: &mut Call<'_>, names: Names, waiting: impl Fn(&str) -> String, request: impl Fn(String) -> Request) -> End {
    let mut exit = Exit::Done;
    for name in names.names {
        let waiting = waiting(&name);
        match one(call, &waiting, Some(&name), request(name.clone())).await {
            Ok(outcome) => print(call, &outcome)?,
            Err(error) => {
                call.ui.error(&error);
                exit = exit.worst(Exit::of(error.kind));
            }
        }
    }
    Ok(exit)
}

/// Hands in one request while a spinner turns.
pub(super) async fn one(call: &Call<'_>, waiting: &str, name: Option<&str>, request: Request) -> Result<Outcome, ServiceError> {
    progress::watch(call.ui.style, call.config, waiting, name, call.engine.dispatch(call.config, request)).await
}

/// A sentence, or a line of JSON.
pub(super) fn print(call: &mut Call<'_>, outcome: &Outcome) -> std::io::Result<()> {
    call.ui.say(&show::sentence(outcome));
    match call.ui.style.json {
        true => call.ui.json_line(outcome),
        false => Ok(()),
    }
}
