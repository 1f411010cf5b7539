//! `acc events`: what has happened.

use super::super::args::EventsArgs;
use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::show;
use crate::service::view::Reader;

pub(in super::super) fn run(call: &mut CommandContext<'_>, args: &EventsArgs) -> CommandEnd {
    let events = Reader::open(call.config)?.events(args.name.as_deref(), args.lines)?;
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
