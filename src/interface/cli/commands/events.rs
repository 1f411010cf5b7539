//! `acc events`: what has happened.

use super::super::args::EventsArgs;
use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::show;
use crate::service::error::unexpected;
use crate::service::outcome::Outcome;
use crate::service::request::Request;

pub(in super::super) async fn run(call: &mut CommandContext<'_>, args: &EventsArgs) -> CommandEnd {
    let request = Request::Events {
        instance: args.name.as_deref().map(Into::into),
        lines: args.lines,
    };
    let Outcome::Events { events } = call.ask(request).await? else {
        return Err(unexpected().into());
    };
    let ui = &mut *call.ui;
    if ui.style.json {
        ui.json(&events)?;
    } else if events.is_empty() {
        ui.say("no events yet");
    } else {
        ui.data(&show::events(&events, ui.now, ui.style.colour))?;
    }
    Ok(CommandExit::Done)
}
