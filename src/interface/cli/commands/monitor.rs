//! `acc monitor`: one pass over all instances. Prints nothing when nothing happened: cron mails what is printed.

use super::super::args::MonitorArgs;
use super::super::exit::Exit;
use super::super::output::End;
use super::super::{Call, show};
use super::each;
use crate::service::outcome::Outcome;
use crate::service::request::Request;

pub(in super::super) async fn run(call: &mut Call<'_>, args: &MonitorArgs) -> End {
    let outcome = each::one(call, "looking at all instances", None, Request::Monitor { dry_run: args.dry_run, thorough: false }).await?;
    let ui = &mut *call.ui;
    if ui.style.json {
        ui.json_line(&outcome)?;
    }
    let Outcome::Monitor(pass) = &outcome else {
        ui.say(&show::sentence(&outcome));
        return Ok(Exit::Done);
    };
    if !ui.style.json {
        ui.data(&show::pass(&pass.lines, ui.style.colour))?;
    }
    if args.dry_run && pass.lines.is_empty() {
        ui.say("no instance is awake");
    }
    let failed = pass.lines.iter().any(|line| line.action == "error");
    Ok(if failed { Exit::Failed } else { Exit::Done })
}
