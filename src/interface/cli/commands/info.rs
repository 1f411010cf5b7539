//! `acc info`: everything about one instance and its running or last operation; of one that failed
//! also what it said last.

use super::super::args::Name;
use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::show;
use crate::service::error::unexpected;
use crate::service::outcome::Outcome;
use crate::service::request::Request;

pub(in super::super) async fn run(call: &mut CommandContext<'_>, args: &Name) -> CommandEnd {
    let instance = args.name.as_str().into();
    let Outcome::Info(info) = call.ask(Request::Info { instance }).await? else {
        return Err(unexpected().into());
    };
    match call.ui.style.json {
        true => call.ui.json(&info)?,
        false => call.ui.data(
            &(show::info(&info.instance, call.ui.now)
                + &show::operation(info.operation.as_ref(), call.ui.now)
                + &show::log_tail(info.log_tail.as_deref().unwrap_or_default())),
        )?,
    }
    call.say_what_waits();
    Ok(CommandExit::Done)
}
