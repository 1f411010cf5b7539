//! `acc monitor`: one run over all instances. Prints nothing when nothing happened: cron mails
//! what is printed.

use super::super::args::MonitorArgs;
use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::show;
use super::for_each;
use crate::service::outcome::{MonitorAction, Outcome};
use crate::service::request::Request;

pub(in super::super) async fn run(call: &mut CommandContext<'_>, args: &MonitorArgs) -> CommandEnd {
    let outcome = for_each::one(
        call,
        "checking all instances",
        None,
        Request::Monitor {
            dry_run: args.dry_run,
            thorough: false,
        },
    )
    .await?;
    let ui = &mut *call.ui;
    if ui.style.json {
        ui.json_line(&outcome)?;
    }
    let Outcome::Monitor(run) = &outcome else {
        ui.say(&show::sentence(&outcome));
        return Ok(CommandExit::Done);
    };
    if !ui.style.json {
        ui.data(&show::monitor(&run.lines, ui.style.colour))?;
    }
    if args.dry_run && run.lines.is_empty() {
        ui.say("no instance is awake");
    }
    let failed = run
        .lines
        .iter()
        .any(|line| line.action == MonitorAction::Error);
    Ok(CommandExit::unless(failed))
}
